"""Networks of torchvision, timm and transformers, and docs/networks.md, which ``python tests/zoo.py`` writes.

A row needs a pass or two of every method, with few samples, on one picture of noise and random weights.
"""

import sys
import time
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torchvision.models import list_models

from saliency_lib.attribution import METHODS, grids, layers
from saliency_lib.audit import Builder, builder
from saliency_lib.hooks import hooked
from saliency_lib.outputs import of_output
from saliency_lib.runtime.seeds import seeded

PAGE = Path(__file__).parent.parent / "docs" / "networks.md"
GRADIENTS = [name for name, entry in METHODS.items() if entry.backwards]
FEW = {  # options that leave little to compute
    "smoothgrad": {"n_samples": 2}, "vargrad": {"n_samples": 2}, "smoothgrad_ig": {"n_samples": 1, "n_steps": 2},
    "integrated_gradients": {"n_steps": 2}, "gradient_shap": {"n_samples": 2},
}  # fmt: skip
SHORT = {  # sentences of refusal, and how the table says them
    "has none in use": "no ReLU", "are functions called in forward": "ReLU function", "does not add up": "no sum",
    "a forward of its own": "own pooling", "has no stage on which": "no layer",
}  # fmt: skip
BOTH = {"deeplift, deeplift_shap": "deeplift\\*", "guided_backprop, guided_gradcam": "guided\\*"}
TORCHVISION = list_models(torchvision.models)
# Of every family of timm, a file of its models, the smallest member; none above 35 million parameters.
TIMM = (
    "halonet_h1", "mobileone_s1", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32",
    "convnext_zepto_rms", "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_focus_s", "cspnext_tiny",
    "davit_tiny", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "mobilenetv2_035", "efficientvim_m1", "efficientvit_b0",
    "efficientvit_m0", "vit_tiny_patch16_dinov3_qkvb", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf",
    "gcvit_xxtiny", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "sam2_hiera_tiny",
    "hrnet_w18_small", "iformer_t", "inception_next_atto", "inception_v3", "lcnetv2_small", "levit_128s",
    "lowformer_b0", "mambaout_femto", "maxvit_pico_rw_256", "poolformerv2_s12", "gmlp_ti16_224",
    "mobilenetv3_small_050", "mobilevit_xxs", "mvitv2_tiny", "nest_tiny", "nextvit_small", "nf_regnet_b0",
    "pit_ti_224", "pvt_v2_b0", "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m1", "res2next50",
    "resnest14d", "resnet10t", "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18", "sequencer2d_s",
    "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m",
    "twins_svt_small", "visformer_tiny", "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224",
    "vit_srelpos_small_patch16_224", "vitamin_small_224", "volo_d1_224", "ese_vovnet19b_slim_dw", "legacy_xception",
    "xception41p", "xcit_nano_12_p8_224",
)  # fmt: skip
TOKENS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
RESIDUAL = {"embedding_size": 8, **STAGES}
HEADS = {"num_attention_heads": [1, 1, 2, 2], **STAGES}
NECK = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 16, 16, 24, 24, 32, 64]}
NARROW = {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320}
TRANSFORMERS = {  # configurations, by the side of their pictures
    32: {
        "ViT": TOKENS, "Beit": TOKENS, "Dinov2": TOKENS, "Dinov2WithRegisters": TOKENS, "Swin": WINDOWS,
        "Swinv2": WINDOWS,
    },
    64: {
        "ConvNext": STAGES, "ConvNextV2": STAGES, "ResNet": RESIDUAL | {"layer_type": "basic"}, "PoolFormer": STAGES,
        "RegNet": RESIDUAL | {"groups_width": 8}, "MobileNetV2": {}, "MobileViT": NECK | {"image_size": 64},
        "EfficientNet": NARROW | {"image_size": 64}, "Segformer": HEADS, "Pvt": HEADS | {"image_size": 64},
    },
}  # fmt: skip
HEAD = """# Networks

What every method that needs gradients ({methods}) makes of networks with random weights: all classifiers of
torchvision, the smallest of {families} families of timm, and small ones of transformers. A map counts if it is finite,
of the picture's size and not constant (guided GradCAM's may be zero); whatever gives none is refused in a sentence,
whose short form stands in the last column, beside *infinite* and *zero* maps of these weights. GradCAM explains the
layer that is named, whose output has the grid that stands beside it; `layer=` chooses another. DeepLIFT and guided
backpropagation change what non-linearities do, so that these must be modules (*no ReLU*, *ReLU function*); DeepLIFT
also refuses whatever its maps do not add up for (*no sum*), as products of features, softmax and layer normalisation,
and max pooling of a class with a `forward` of its own (*own pooling*). The star stands for both methods of that name.

`python tests/zoo.py` writes this page; a test holds some of its rows against the library, `--all` more of them.

"""


class Row(NamedTuple):
    """A network's line of the table."""

    network: str
    parameters: str
    layer: str
    grid: str
    maps: str
    refused: str

    def __str__(self) -> str:
        return f"| {' | '.join(self)} |"


def made(build: Builder) -> nn.Module:
    """A network with random weights, whose gradients are no smaller than a trained one's.

    Scales and heads may be zero at first; batch normalisation knows nothing of its inputs, so that little may be left
    of a gradient; and logits may be so large that nothing is left of a probability's.
    """
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is slow to initialise
        net = build().eval()
        for name, p in net.named_parameters():
            if p.ndim == 1 and name.endswith("weight"):
                p.data.uniform_(0.5, 1.5)
            elif p.ndim <= 1 or p.std() == 0:
                p.data = p.data + 0.1 * torch.randn(p.shape)
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train().momentum = None  # the mean of what it has seen
        with torch.no_grad():
            net(pictures(build, 4))
    with torch.no_grad():
        logits = of_output(net.eval()(pictures(build)))
        sized = (m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and len(m.weight) == logits.shape[1])
        for p in list(sized)[-1].parameters():
            p /= logits.std()
    return net


def pictures(build: Builder, n: int = 1) -> torch.Tensor:
    """Noise of the size that the network is made for."""
    return torch.randn(n, 3, *(build.size or (32, 32)), generator=torch.Generator().manual_seed(1))


def attempt(name: str, net: nn.Module, x: torch.Tensor) -> str:
    """Nothing if the method gives a map, or the sentence that refuses; any other exception is an error."""
    options = {"references": torch.zeros_like(x)} if name == "deeplift_shap" else FEW.get(name, {})
    try:
        maps = METHODS[name].function(net, x, torch.zeros(len(x), dtype=torch.long), **options)
    except ValueError as error:
        return str(error)
    assert maps.shape == (len(x), maps.shape[1], *x.shape[2:]), name
    if not maps.isfinite().all():
        return "infinite with these weights"
    return "" if maps.std() > 0 or name == "guided_gradcam" else "zero with these weights"  # a mask may be zero


def grid(net: nn.Module, name: str, x: torch.Tensor) -> tuple[int, int]:
    """Of a layer's output."""
    found = []

    def note(_module, _inputs, out) -> None:
        found.append(grids.grid_of(grids.first_of(out), x))

    with torch.no_grad(), hooked([net.get_submodule(name)], note):
        net(x)
    return found[0].shape


def row(network: str, build: Builder) -> Row:
    """Try every method on a network."""
    net, x = made(build), pictures(build)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*taken for the logits")
        said = {name: attempt(name, net, x) for name in GRADIENTS}
        stages = layers.stages(net)
        place = " x ".join(map(str, grid(net, stages[-1], x))) if stages else "–"
    refused: dict[str, list[str]] = {}
    for name, sentence in said.items():
        if sentence:
            short = next((words for part, words in SHORT.items() if part in sentence), sentence)
            refused.setdefault(short, []).append(name)
    words = {short: ", ".join(names) for short, names in refused.items()}
    why = "; ".join(f"{BOTH.get(names, names)}: {short}" for short, names in words.items())
    count = sum(p.numel() for p in net.parameters())
    digits = count / 1e6
    return Row(
        network, f"{digits:.3g} M" if digits < 99.5 else f"{digits:.0f} M", f"`{stages[-1]}`" if stages else "–", place,
        f"{sum(not s for s in said.values())} of {len(said)}", why,
    )  # fmt: skip


@cache
def builders() -> dict[str, Builder]:
    """Of every network in the table, by the names that ``--model`` takes, or would for a folder."""
    named = {name: builder(name) for name in [*TORCHVISION, *(f"timm:{name}" for name in TIMM)]}
    for side, networks in TRANSFORMERS.items():
        named |= {f"hf: {name}": of_config(name, options, side) for name, options in networks.items()}
    return named


def of_config(name: str, options: dict, side: int) -> Builder:
    """A small network of transformers."""
    import transformers

    def make() -> nn.Module:
        config = getattr(transformers, f"{name}Config")(num_labels=4, **options)
        return transformers.AutoModelForImageClassification.from_config(config)

    return Builder(make, size=(side, side))


def committed() -> dict[str, Row]:
    """Rows of the page, by network."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines()]
    rows = [Row(*(cells + [""] * (6 - len(cells)))) for cells in lines if len(cells) >= 5]
    return {r.network: r for r in rows if r.network not in ("network", "---")}


def main(wanted: list[str]) -> None:
    """Try the networks that are named, or all, and write the page; rows that stand there stay."""
    there = committed()
    for name, build in builders().items():
        if name in wanted if wanted else name not in there:
            started = time.perf_counter()
            new = row(name, build)
            sys.stdout.write(f"{new} {time.perf_counter() - started:.0f} s\n")
            sys.stdout.flush()
            write(committed() | {name: new})


def write(rows: dict[str, Row]) -> None:
    """The page, in the order of :func:`builders`."""
    table = [Row("network", "parameters", "GradCAM's layer", "grid", "maps", "refused"), Row(*["---"] * 6)]
    table += [rows[name] for name in builders() if name in rows]
    families = sum(name.startswith("timm:") for name in rows)
    text = HEAD.format(methods=", ".join(GRADIENTS), families=families) + "\n".join(map(str, table)) + "\n"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
