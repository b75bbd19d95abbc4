"""Rows of the papers' tables, the most telling first, for a machine that is lent by the minute or has nights to spare.

``./run_all.sh --profile paper --budget 540`` goes on where the last call stopped: trained networks and rows that were
measured are kept. A row is the signal-to-noise ratio of one method over one ensemble; it stands in ``rows.csv`` of the
figures of its data set and network as soon as it is there. It does without Jupyter.
"""

import itertools
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from saliency_lib import attribution, controls, ensembles, inference, snr
from saliency_lib.attribution.method import Function
from saliency_lib.book import measured, pipeline, profiles, script
from saliency_lib.book.asked import OTHERWISE, asked
from saliency_lib.data import ImageData
from saliency_lib.data.registry import READ
from saliency_lib.estimates import student
from saliency_lib.runtime import deadline
from saliency_lib.runtime.seeds import derive
from saliency_lib.runtime.store import figures_root, kept

PARTS = 10  # of a row's images, measured one after the other
SAMPLED = 100  # images for methods of many passes
GLANCE = 1000  # training images whose accuracy stands beside that on the validation images
Rows = Mapping[str, tuple[dict, int | None]]
TABLE_1: Rows = {  # of Woerl et al. 2023: method, options, images (None for all); references are training images
    "input_gradient": ({}, None),
    "gradcam top": ({"layer": "top"}, None),
    "gradcam mid": ({"layer": "mid"}, None),
    "deeplift": ({}, None),
    "integrated_gradients": ({"n_steps": 50}, 4 * SAMPLED),
    "gradient_shap": ({"n_samples": 25, "references": 20}, 4 * SAMPLED),
    "smoothgrad_ig": ({"n_samples": 10, "n_steps": 20}, SAMPLED),
    "deeplift_shap": ({"references": 20}, SAMPLED),
    "lime": ({"n_samples": 1000}, SAMPLED),
    "kernel_shap": ({"n_samples": 1000}, SAMPLED),
}
THREE: Rows = {name: TABLE_1[name] for name in ("input_gradient", "gradcam top", "gradcam mid")}
GRADIENT: Rows = {"input_gradient": ({}, 1000)}
THREE_OF_1000: Rows = {name: (options, 1000) for name, (options, _) in THREE.items()}
SEGMENTS = {"25 segments": 25, "100 segments": 100, "every pixel": 32**2}
LIME: Rows = {f"lime {name}": ({"n_samples": 1000, "n_segments": k}, SAMPLED // 2) for name, k in SEGMENTS.items()}
WHOLE = {  # notebooks after all rows: Bykov et al., Tab. 2; Herdt et al., all tables
    "paper": ("06_noisegrad", "08_checkerboard_smoothing"),
    "paper-cpu": (),
}
SNAPSHOTS = (1, 2, 4, 8, 15)  # epochs of the arms on CIFAR-10, beside the last
AS_BEFORE = "8 epochs, augmentation"  # the recipe of profile paper-cpu
ARMS: dict[str, dict] = {
    "A, no augmentation": {"augment": "none"},
    "B, augmentation": {},
    "C, stem of 3x3": {"augment": "none", "model": "resnet18_small_stem"},
    "D, 128 pixels": {"augment": "none", "size": 128},
}


@dataclass(frozen=True)
class Step:
    """Rows of one ensemble: the notebook that is about them, the folder of their figures, and what they are."""

    notebook: str
    folder: str
    arm: str
    fields: Mapping
    rows: Rows = field(default_factory=lambda: TABLE_1)
    epochs: tuple[int, ...] = ()  # before the last, after which it is measured as well
    otherwise: tuple[str, ...] = ("",)  # ways to ask, of asked.OTHERWISE


def paper() -> Iterator[Step]:
    """All steps with rows, in the order in which a GPU's minutes are best spent."""
    imagenette = profiles.ensembles("paper")["main"] | {"model": "resnet18"}
    cifar = imagenette | {"dataset": "cifar10", "size": None}
    for n in (4, 8, 30):
        yield Step("03", "imagenette-resnet18", "", imagenette | {"n_members": n})
    for arm, own in ARMS.items():
        fields = cifar | {"epochs": 30, "n_members": 8} | own
        yield Step("03", "cifar10-resnet18", arm, fields, THREE, SNAPSHOTS)
    for model in ({"model": "vgg19", "activation": "softplus"}, {"model": "resnet101"}):
        for fields in (imagenette, cifar):
            fields = fields | model | {"n_members": 10}
            yield Step("03", f"{fields['dataset']}-{fields['model']}", "", fields)
    fashion = imagenette | {"dataset": "fashion_mnist", "size": None, "augment": "none", "epochs": 15, "n_members": 20}
    for depth in (1, 2, 3, 4):
        for width in (4, 8, 16, 32, 64, 128):
            for pool, activation in ((p, a) for p in ("none", "max") for a in ("relu", "none")):
                model = {"model": f"convnet-w{width}-d{depth}-{pool}", "activation": activation}
                yield Step("04", "fashion_mnist-convnet", "", fashion | model, GRADIENT)


def paper_cpu() -> Iterator[Step]:
    """Steps for two cores: three networks of Imagenette and CIFAR-10 with 20,000 images take hours each, more of
    Imagenette nights."""
    imagenette = profiles.ensembles("imagenette-cpu")["main"]
    of_imagenette = [
        Step("03", "imagenette-resnet18", "16 epochs, flips and crops", imagenette | {"n_members": n})
        for n in (3, 8, 12)
    ]
    yield of_imagenette[0]
    cifar = profiles.load("paper-cpu")["03_compare_methods"]["main"] | {"n_members": 4}
    for rows, ways in ((THREE_OF_1000, ("", *OTHERWISE)), (LIME, ("",))):
        yield Step("03", "cifar10-resnet18", AS_BEFORE, cifar, rows, otherwise=ways)
    for arm in list(ARMS)[:2]:
        fields = cifar | {"epochs": 30} | ARMS[arm]
        yield Step("03", "cifar10-resnet18", f"{arm}, 20,000 images", fields, THREE_OF_1000, SNAPSHOTS)
    yield from of_imagenette[1:]


PLANS = {"paper": paper, "paper-cpu": paper_cpu}


def run(profile: str, seconds: float, changes: Mapping, only: Sequence[str], say: Callable[[str], None]) -> str:
    """Measure what is missing until the budget is spent; says each row, and gives what there is to say at the end.

    Parameters
    ----------
    profile : str
        One of ``PLANS``.
    changes : dict
        Fields of all ensembles that are not the plan's, and ``n_eval``, images at the most; their rows go to
        ``figures/custom``.
    only : sequence of str
        Numbers of notebooks, of whose steps alone; all of them by default.

    Raises
    ------
    ValueError
        For another profile, a budget of nothing, and a change that no ensemble has.
    """
    if profile not in PLANS:
        raise ValueError(f"--budget is of the papers' data: --profile {' or '.join(PLANS)}, not {profile}")
    if seconds <= 0:
        raise ValueError(f"--budget wants seconds above zero, not {seconds:g}")
    if (most := changes.get("n_eval")) is not None and (type(most) is not int or most < 1):
        raise ValueError(f"--set n_eval={most} should be a number of images, one or more")
    known = {step.notebook for step in PLANS[profile]()} | {name[:2] for name in WHOLE[profile]}
    chosen, made = {name[:2] for name in pipeline.select(list(only))} & known, 0
    if not chosen:
        raise ValueError(f"--only {' '.join(only)}: a budget has rows of {', '.join(sorted(known))} alone")
    try:
        with deadline.budget(seconds):
            for step in (step for step in PLANS[profile]() if step.notebook in chosen):
                for line in _rows(step, changes):
                    made += 1
                    say(line)
            for name in WHOLE[profile] if not changes else ():
                if name[:2] in chosen:
                    script.run(name, pipeline.settings("paper", [name], {})[name])
    except deadline.OutOfTime:
        return f"the budget of {seconds:g} s is spent, with {made} new rows; call again to go on"
    return f"all is measured, {made} rows of it now"


def _rows(step: Step, changes: Mapping) -> Iterator[str]:
    """Measure the rows of a step that are missing, and keep each; what it says."""
    table = figures_root() / ("custom" if changes else step.folder) / measured.FILE
    changes = dict(changes)
    most = changes.pop("n_eval", None)
    spec = profiles.spec(step.arm or step.folder, dict(step.fields) | {"snapshots": 0} | changes)
    epochs = [epoch for epoch in step.epochs if epoch < spec.recipe.epochs]
    spec = replace(spec, snapshots=tuple(epochs))
    for epoch, otherwise, row in itertools.product((spec.recipe.epochs, *epochs), step.otherwise, step.rows):
        options, n = step.rows[row]
        n = min(filter(None, (n, most)), default=None)
        known = {"network": spec.key, "arm": step.arm, "members": spec.n_members, "epoch": epoch, "method": row,
                 "asked": otherwise, "options": str(options), "asked for": n or "all"}  # fmt: skip
        if measured.has(table, known):
            continue
        ensemble = ensembles.get(spec, "processes")
        found = _measured(ensemble, row, options, n, epoch, otherwise)
        measured.append(table, known, found)
        words = " ".join(filter(None, (step.folder, step.arm, row, otherwise)))
        yield f"{words}, {spec.n_members} networks, epoch {epoch}: SNR {found['snr']}"


def _measured(ensemble: ensembles.Ensemble, row: str, options: dict, n: int | None, epoch: int, otherwise: str) -> dict:
    """What a row says of an ensemble, with where it comes from."""
    spec, started = ensemble.spec, time.monotonic()
    train, val = (part.to(spec.recipe.device) for part in ensembles.splits(spec))
    of = train if otherwise == "training images" else val
    of = of if n is None else of.take(min(n, len(of)))
    last = epoch == spec.recipe.epochs
    nets: Any = ensemble if last else [ensemble.snapshot(k, epoch) for k in range(len(ensemble))]
    if "references" in options:
        options = options | {"references": train.take(options["references"]).inputs()}
    method = asked(partial(attribution.METHODS[row.split()[0]].function, **options), otherwise)
    parts = []  # each is kept, so that a row longer than the budget goes on too
    for k, some in enumerate(torch.arange(len(of)).tensor_split(min(PARTS, len(of)))):
        part = of.inputs(some), of.labels[some]
        parts.append(kept(snr.measure, method, nets, *part, seed=derive(0, k), executor="processes"))
    result = snr.joined(parts)
    plugin, less_noise = result.plugin(), result.corrected()
    history = [record["history"] for record in ensemble.records]
    glance = train.take(min(GLANCE, len(train)))
    right = student([inference.accuracy(net, glance.inputs(), glance.labels) for net in nets])
    return {
        "images": len(of),
        "snr": f"{plugin.value:.4f}", "low": f"{plugin.low:.4f}", "high": f"{plugin.high:.4f}",
        "corrected": f"{less_noise.value:.4f}", "corrected low": f"{less_noise.low:.4f}",
        "corrected high": f"{less_noise.high:.4f}",
        "independent": _independent(method, nets, of) if "gradcam" in row else "",
        "accuracy": f"{student([each['val_accuracy'][epoch - 1] for each in history]).value:.4f}",
        "training accuracy": f"{right.value:.4f}",
        "bfloat16": spec.recipe.bfloat16,
        "seconds": round(time.monotonic() - started, 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        "torch": torch.__version__,
        "data": "; ".join(f"{name}: {said}" for name, said in sorted(READ.items()) if name.startswith(spec.dataset)),
    }  # fmt: skip


def _independent(method: Function, nets: Any, of: ImageData) -> str:
    """How many independent pixels a map is worth, the median of some images; nothing for two networks."""
    few = of.take(min(SAMPLED, len(of)))
    pixels = controls.independent_pixels(snr.member_maps(method, nets, few.inputs(), few.labels)).median().item()
    return "" if math.isnan(pixels) else f"{pixels:.3g}"
