"""The audit says what can be said, names what it had to leave out, and runs no code of a checkpoint."""

import argparse
import html
import json
import math
import pickle
import re
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import batch, tiny_net
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import stats
from torch import nn

from saliency_lib import __main__ as cli
from saliency_lib import audit, controls, similarity, snr
from saliency_lib.audit import Problems, sentences, structure
from saliency_lib.audit.agreement import SHIFTS
from saliency_lib.book import profiles, report, script
from saliency_lib.controls import SHIFT, shift
from saliency_lib.estimates import Estimate
from saliency_lib.quality import checkerboard_power
from saliency_lib.runtime.seeds import derive, seeded
from saliency_lib.runtime.store import PROJECT


@given(st.integers(2, 60))
def test_as_many_must_agree_as_tossed_signs_rarely_reach(members):
    votes, chance = audit.votes_needed(members)
    assert chance == pytest.approx(stats.binomtest(votes, members).pvalue)
    assert votes == members or chance <= 0.05
    if votes - 1 > members / 2:
        assert stats.binomtest(votes - 1, members).pvalue > 0.05


def test_agreement_of_tossed_signs_is_chance_and_of_equal_maps_is_whole():
    tossed = torch.randn(8, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = audit.agreement(tossed)
    count = int(found.readable.sum())
    assert stats.binomtest(count, found.readable.numel(), found.by_chance).pvalue > 0.001
    same = audit.agreement(tossed[:1].expand(5, -1, -1, -1, -1))
    some = tossed[0].sum(1).abs() > 1e-4  # closer to zero is no sign
    assert same.readable[some].all() and (same.share[some] == 1).all() and same.spread.abs().max() < 1e-6
    torch.testing.assert_close(same.mean, tossed[0].sum(1))
    with pytest.raises(ValueError, match="two members at least, not 1"):
        audit.agreement(tossed[:1])


def test_maps_without_negative_values_agree_by_what_lies_above_their_mean():
    maps = torch.rand(8, 1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert audit.agreement(maps).readable.all() and audit.agreement(maps, signed=False).readable.double().mean() < 0.1
    constant = 0.3 + 1e-8 * torch.randn(8, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for signed, flat in ((True, torch.zeros(8, 1, 1, 4, 4)), (False, constant)):
        assert not audit.agreement(flat, signed).readable.any()


def test_signal_is_that_of_the_library_and_its_null_has_no_place():
    generator = torch.Generator().manual_seed(0)
    place = torch.randn(1, 4, 1, 16, 16, generator=generator)
    maps = place + 0.5 * torch.randn(6, 4, 1, 16, 16, generator=generator)
    found = audit.signal(maps)
    pixels = controls.independent_pixels(maps)
    assert found.debiased == snr.measure_maps(maps).estimate(lambda p: controls.unbiased_power(p, pixels)).map(
        snr.rooted
    )
    assert found.debiased.value == pytest.approx(snr.measure_maps(maps).debiased().value, rel=0.02) and found.shown
    assert found.null.value < 0.3 < 1.5 < found.debiased.value
    level = audit.signal(torch.full((6, 4, 1, 16, 16), 3.0) + 0.5 * torch.randn(6, 4, 1, 16, 16, generator=generator))
    assert not level.shown and level.null.value > 3, "a level is in moved maps as well"
    assert found == audit.signal(maps) and not audit.signal(maps[:2]).shown, "two members give no interval"
    for function in (audit.signal, audit.agreement):
        with pytest.raises(ValueError, match="not finite"):
            function(maps.where(maps < 2, math.nan))


@pytest.mark.parametrize("members", [4, 5, 8])
def test_coarse_maps_of_few_networks_are_not_too_calm(members):
    generator = torch.Generator().manual_seed(0)
    values = 2 + torch.randn(members, 20000, 1, 1, 1, generator=generator)
    found = audit.signal(values.expand(-1, -1, 1, 4, 4))  # as of GradCAM at a last layer of one pixel
    assert found.debiased.value == pytest.approx(2, rel=0.1)
    assert snr.measure_maps(values).debiased().value > 2.2, "what the ratio alone would say"
    assert audit.signal(values[:2]).debiased.value == snr.measure_maps(values[:2]).debiased().value, "two do not tell"


def test_few_networks_that_share_nearly_all_are_heard_though_their_ratio_has_no_lower_end():
    """The jackknife of a ratio without limits is wide where noise is little; that of a share is not."""
    generator = torch.Generator().manual_seed(0)
    place, heard_of, found = torch.randn(1, 8, 1, 12, 12, generator=generator), [], []
    for _ in range(20):
        scale = torch.exp(0.4 * torch.randn(3, 1, 1, 1, 1, generator=generator))
        found.append(audit.signal(10 * place + scale * torch.randn(3, 8, 1, 12, 12, generator=generator)))
        tossed = torch.randn(3, 8, 1, 12, 12, generator=generator) * scale
        heard_of.append(audit.signal(tossed).shown)
    assert all(s.shown for s in found) and min(s.debiased.low for s in found) == 0 and sum(heard_of) <= 3


def saved(folder, n=3, **options):
    """Files of ``n`` small networks."""
    for seed in range(n):
        save_file(tiny_net(seed, **options).state_dict(), folder / f"seed-{seed}.safetensors")
    return sorted(folder.glob("*.safetensors"))


def test_checkpoints_are_read_in_all_usual_forms(tmp_path):
    model = tiny_net(1)
    state = model.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "c.pth")
    for path in sorted(tmp_path.iterdir()):
        (loaded,) = audit.load(lambda: tiny_net(0), path, Problems()).values()
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("prefix", ["model._orig_mod.", "_orig_mod.module.", "net.", "backbone.", "a.b.c."])
def test_weights_are_found_under_any_prefix_and_what_is_left_over_is_named(prefix, tmp_path):
    state = tiny_net(1, norm="batch").state_dict()
    kept = {prefix + name: tensor for name, tensor in state.items() if "num_batches" not in name}
    more = {"criterion.weight": torch.ones(4), "n_averaged": torch.tensor(3)}
    content = {"state_dict": kept | more, "epoch": 3, "args": argparse.Namespace(lr=1), "acc": np.float64(93.1)}
    torch.save(content, tmp_path / "a.ckpt")
    problems = Problems()
    (loaded,) = audit.load(lambda: tiny_net(0, norm="batch"), tmp_path, problems).values()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert problems == []
    where = f"a.ckpt: weights of 'state_dict', names after {prefix.replace('_orig_mod.', '')!r}; "
    assert problems.remarks == [where + "2 tensors that the network has not are ignored, as criterion.weight."]


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_names_are_read_as_without_wrappers_also_where_a_part_was_wrapped(wrapper, tmp_path):
    def build(seed):
        return nn.Sequential(tiny_net(seed), tiny_net(seed + 5))

    state = build(1).state_dict()
    torch.save({f"0.{wrapper}{n[2:]}" if n[0] == "0" else wrapper + n: t for n, t in state.items()}, tmp_path / "a.pt")
    problems = Problems()
    (loaded,) = audit.load(lambda: build(0), tmp_path, problems).values()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert problems == [] and problems.remarks == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")  # PyTorch 2.11's own
def test_a_factory_of_compiled_networks_is_told_so(tmp_path):
    torch.save(torch.compile(tiny_net(1)).state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="the network is compiled, .* pass it as before torch.compile"):
        audit.load(lambda: torch.compile(tiny_net(0)), tmp_path, Problems())


def test_checkpoints_may_be_named_from_here_and_from_the_root(tmp_path, monkeypatch):
    for k, name in enumerate(("a.pt", "b.pt")):
        torch.save(tiny_net(k).state_dict(), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert list(audit.load(lambda: tiny_net(0), ["a.pt", tmp_path / "b.pt"], Problems())) == ["a.pt", "b.pt"]


@pytest.mark.parametrize("ema", ["state_dict_ema", "model_ema"])
def test_weights_of_training_go_before_their_moving_average_and_it_is_said(ema, tmp_path):
    state, mean = tiny_net(1).state_dict(), tiny_net(2).state_dict()
    torch.save({ema: mean, "network": state}, tmp_path / "a.pt")
    problems = Problems()
    (loaded,) = audit.load(lambda: tiny_net(0), tmp_path / "a.pt", problems).values()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert problems.remarks == [f"a.pt: weights of 'network', not of {ema!r}."]


def test_trained_weights_go_before_others_of_their_names_whatever_these_are_called(tmp_path):
    trained, initial = tiny_net(1).state_dict(), tiny_net(2).state_dict()
    torch.save({"init": initial, "state_dict": trained}, tmp_path / "a.pt")
    torch.save({f"{who}.{k}": v for who, of in zip("st", (trained, initial)) for k, v in of.items()}, tmp_path / "b.pt")
    for name in "ab":
        problems = Problems()
        (loaded,) = audit.load(lambda: tiny_net(0), tmp_path / f"{name}.pt", problems).values()
        assert all(torch.equal(tensor, trained[key]) for key, tensor in loaded.state_dict().items())
        assert "not of" in problems.remarks[0]


def test_a_deeper_network_is_another_architecture(tmp_path):
    def build(n=2):
        with torch.random.fork_rng():
            return nn.ModuleDict({"row": nn.Sequential(*(nn.Linear(4, 4) for _ in range(n)))})

    torch.save(build(3).state_dict(), tmp_path / "a.pt")
    torch.save(build().state_dict() | {"more.0.weight": torch.zeros(1)}, tmp_path / "b.pt")
    problems = Problems()
    assert list(audit.load(build, tmp_path, problems)) == ["b.pt"]
    assert "a.pt is left out: it is a checkpoint of another architecture: 2 tensors differ, as row.2." in problems[0]


class Counting(nn.Linear):
    """It keeps more than tensors."""

    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        assert state is None, "it is not read from a file"


def test_a_state_that_is_no_tensor_is_left_as_it_is_built_and_told(tmp_path):
    def build(seed=0):
        with seeded(seed):
            return nn.Sequential(nn.Flatten(), Counting(12, 3))

    saved = {f"{k}.pt": build(k) for k in range(2)}
    for name, net in saved.items():
        torch.save(net.state_dict(), tmp_path / name)
    problems = Problems()
    loaded = audit.load(build, tmp_path, problems)
    assert all(torch.equal(loaded[name][1].weight, net[1].weight) for name, net in saved.items()) and not problems
    assert problems.remarks == ["0.pt, 1.pt: 1._extra_state, which is no tensor, stays as the network is built."]


def test_weights_that_are_nearly_the_same_are_named_and_integers_are_refused(tmp_path):
    state, other = tiny_net(1).state_dict(), tiny_net(2).state_dict()
    for name, weights in {"a": state, "b": {k: v.half() for k, v in state.items()}, "c": other}.items():
        torch.save(weights, tmp_path / f"{name}.pth.tar")
    torch.save({k: (127 * v).to(torch.int8) for k, v in state.items()}, tmp_path / "d.pt")
    problems = Problems()
    assert len(audit.load(lambda: tiny_net(0), tmp_path, problems)) == 3
    assert "is torch.int8, as of a quantised network" in problems[0]
    assert problems[1].startswith("a.pth.tar and b.pth.tar have nearly the same weights: copies, snapshots")


def test_checkpoints_in_folders_that_are_links_are_found(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "runs").mkdir()
    torch.save(tiny_net(1).state_dict(), tmp_path / "far" / "a.pt")
    (tmp_path / "runs" / "seed-1").symlink_to(tmp_path / "far")
    assert list(audit.load(lambda: tiny_net(0), tmp_path / "runs", Problems())) == ["a.pt"]


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_what_is_no_checkpoint_is_named_and_never_run(tmp_path):
    files = saved(tmp_path)
    touched = tmp_path / "touched"
    (tmp_path / "xd_hostile.pt").write_bytes(pickle.dumps(Hostile(touched)))
    torch.save({"state_dict": Hostile(touched)}, tmp_path / "xe_hostile.pt")
    (tmp_path / "xf_pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "xg_cut.safetensors").write_bytes(files[0].read_bytes()[:1000])
    (tmp_path / "xh_empty.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "xi_list.pt")
    save_file(tiny_net(name="resnet9", size=32).state_dict(), tmp_path / "xj_other.safetensors")
    save_file(tiny_net(0).state_dict(), tmp_path / "xk_copy.safetensors")
    broken = tiny_net(7).state_dict()
    next(iter(broken.values())).fill_(math.nan)
    save_file(broken, tmp_path / "xl_nan.safetensors")
    problems = Problems()
    loaded = audit.load(lambda: tiny_net(5), str(tmp_path / "*.*"), problems)
    assert list(loaded) == [path.name for path in files] and not touched.exists()
    assert [p.split()[0] for p in problems] == sorted(path.name for path in tmp_path.glob("x*"))
    said = dict(zip("defghijkl", problems))
    for letter in "dfgh":
        assert "cannot be read as weights or is broken" in said[letter]
    assert "holds objects of io.open, whose code would have to be run" in said["e"]
    assert "holds no state dict" in said["i"]
    assert "another architecture: " in said["j"] and "tensors differ, as" in said["j"]
    assert said["k"].endswith("it holds the same weights as seed-0.safetensors") and "not finite" in said["l"]
    assert all("\n" not in p for p in problems)
    for a, b in zip(loaded.values(), range(3)):
        assert torch.equal(next(a.parameters()), next(tiny_net(b).parameters())) and not a.training


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        torch.save(tiny_net(seed).state_dict(), tmp_path / "runs" / folder / "best.pt")
    problems = Problems()
    loaded = audit.load(tiny_net, str(tmp_path / "runs" / "*" / "best.pt"), problems)
    assert list(loaded) == ["a/best.pt", "c/best.pt"]
    assert problems == ["b/best.pt is left out: it holds the same weights as a/best.pt"]


def test_no_network_at_all_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    for pattern, reason in (("*.pth", "no checkpoint matches"), ("*.pt", "empty.pt is left out")):
        with pytest.raises(ValueError, match=f"no network could be loaded: {reason}"):
            audit.load(tiny_net, str(tmp_path / pattern), Problems())


def test_networks_by_name(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"torchvision has no classifier 'resnet19' \(near it: .*resnet18.*timm:NAME"):
        audit.builder("resnet19")
    with pytest.raises(ValueError, match="no classifier 'fcn_resnet50'"):
        audit.builder("fcn_resnet50")
    with pytest.raises(ValueError, match="'nowhere:build' cannot be imported"):
        audit.builder("nowhere:build")
    (tmp_path / "mine_for_audit.py").write_text("import torch\ndef build():\n    return torch.nn.Linear(2, 3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    build = audit.builder("squeezenet1_1")
    with torch.random.fork_rng():
        assert audit.builder("mine_for_audit:build")().out_features == 3
        save_file(build(7).state_dict(), tmp_path / "seven.safetensors")
    (model,) = audit.load(build, str(tmp_path / "*.safetensors"), Problems()).values()
    assert model.num_classes == 7 and build.size == (224, 224)
    assert build.mean == [0.485, 0.456, 0.406] and audit.builder("inception_v3").size == (299, 299)


def test_the_number_of_classes_is_that_of_the_weights_whatever_the_factory_calls_it(tmp_path):
    def build(n_classes=3, width=4):
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(4, n_classes))

    with torch.random.fork_rng():
        torch.save(build(5).state_dict(), tmp_path / "five.pt")
        torch.save(build(3, 6).state_dict(), tmp_path / "wide.pt")
    problems = Problems()
    (model,) = audit.load(build, tmp_path, problems).values()
    assert model[2].out_features == 5 and "wide.pt is left out" in problems[0] and "another architecture" in problems[0]


@pytest.mark.parametrize("name, head", [("googlenet", "aux"), ("inception_v3", "AuxLogits")])
def test_torchvisions_auxiliary_heads_may_be_missing(tmp_path, name, head):
    """Networks with them and without give the same logits, and torchvision's own weights come without."""
    build = audit.builder(name)
    with torch.device("meta"):
        state = {k: v for k, v in build().state_dict().items() if not k.startswith(head)}
    torch.save(
        {k: torch.zeros_like(v[:5] if k.startswith("fc.") else v, device="cpu") for k, v in state.items()},
        tmp_path / "a.pt",
    )
    problems = Problems()
    (model,) = audit.load(build, tmp_path, problems).values()
    assert model.fc.out_features == 5 and not model.fc.weight.any() and not problems
    del state["fc.bias"]
    torch.save({k: torch.zeros_like(v, device="cpu") for k, v in state.items()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="another architecture"):
        audit.load(build, tmp_path, problems)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_maxvit", "test_resnet"])
def test_a_model_of_timm(name, tmp_path):
    build = audit.builder(f"timm:{name}")
    assert build.size == (160, 160) and len(build.mean) == len(build.std) == 3 and build.source == "timm's"
    with torch.random.fork_rng():
        save_file(build(7).state_dict(), tmp_path / "seven.safetensors")
    (model,) = audit.load(build, tmp_path, Problems()).values()
    assert model(torch.zeros(1, 3, 160, 160)).shape == (1, 7)


def test_names_that_timm_has_not():
    with pytest.raises(ValueError, match=r"timm has no classifier 'resnet19' \(near it: .*resnet18"):
        audit.builder("timm:resnet19")
    with pytest.raises(ValueError, match="timm: Invalid pretrained tag"):
        audit.builder("timm:resnet18.nobody")
    assert audit.builder("timm:vit_tiny_patch16_224.augreg_in21k").mean == (0.5, 0.5, 0.5)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm is not installed; pip install '\.\[zoo\]'"):
        audit.builder("timm:resnet18")


def saved_by_transformers(folder, seed=0, processor=None, labels=5, **more):
    """A small Swin as ``save_pretrained`` and a trainer leave it."""
    import transformers

    options = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]} | more
    with seeded(seed):
        config = transformers.SwinConfig(window_size=4, num_labels=labels, **options)
        model = transformers.AutoModelForImageClassification.from_config(config).eval()
    model.save_pretrained(folder)
    torch.save({"state": {}}, folder / "optimizer.pt")
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return model


def test_a_folder_that_transformers_has_saved(tmp_path):
    said = {"size": {"height": 32, "width": 48}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    model = saved_by_transformers(tmp_path / "a", 1, said)
    saved_by_transformers(tmp_path / "b", 2, labels=6)
    build, problems = audit.builder(f"hf:{tmp_path / 'a'}"), Problems()
    assert (build.size, build.mean, build.std) == ((32, 48), [0.5] * 3, [0.25] * 3)
    (loaded,) = audit.load(build, build.weights, problems).values()
    assert problems == [] and problems.remarks == [], "what a trainer keeps is no checkpoint"
    x = batch(2, 32)[0]
    torch.testing.assert_close(loaded(x).logits, model(x).logits)
    both = audit.load(build, [tmp_path / "a", tmp_path / "b"], problems)
    assert list(both) == ["a/model.safetensors", "b/model.safetensors"]
    assert both["b/model.safetensors"](x).logits.shape == (2, 6)


def test_of_two_files_that_transformers_saved_in_one_folder_each_is_read(tmp_path):
    other = saved_by_transformers(tmp_path / "other", 2)
    saved_by_transformers(tmp_path / "run", 1)
    torch.save(other.state_dict(), tmp_path / "run" / "pytorch_model.bin")
    networks = audit.load(audit.builder(f"hf:{tmp_path / 'run'}"), tmp_path / "run", Problems())
    assert list(networks) == ["model.safetensors", "pytorch_model.bin"]
    x = batch(2, 32)[0]
    torch.testing.assert_close(networks["pytorch_model.bin"](x).logits, other(x).logits)


def test_a_processor_that_does_not_normalise_fits_pictures_of_one_channel(tmp_path):
    saved_by_transformers(tmp_path, processor={"size": 32, "do_normalize": False}, num_channels=1)
    build = audit.builder(f"hf:{tmp_path}")
    assert (build.mean, build.std) == ([0.0], [1.0])


@pytest.mark.parametrize(
    "said,size,mean,std",
    [
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, (32, 32), 0.0, 1.0),
        ({"size": 32, "image_mean": [127.5] * 3, "image_std": [51] * 3, "do_rescale": False}, (32, 32), 0.5, 0.2),
        ({"image_mean": [1] * 3, "image_std": [1] * 3, "rescale_factor": 2 / 255}, None, 0.5, 0.5),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, None, 0.0, 1.0),
    ],
)
def test_what_a_processor_does_to_pixels_is_a_mean_and_a_deviation(said, size, mean, std, tmp_path):
    saved_by_transformers(tmp_path, processor=said)
    build = audit.builder(f"hf:{tmp_path}")
    assert build.size == size and build.mean == pytest.approx([mean] * 3) and build.std == pytest.approx([std] * 3)


def test_folders_that_hold_no_classifier(tmp_path):
    with pytest.raises(ValueError, match="holds no config.json; hf: names a folder that save_pretrained has written"):
        audit.builder(f"hf:{tmp_path}")
    for content in ("{}", "no json", json.dumps({"model_type": "bert"})):
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="no image classifier can be made of .*: ") as caught:
            audit.builder(f"hf:{tmp_path}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shared", ["all", "a part"])
def test_a_factory_that_builds_nothing_new_is_refused(shared, tmp_path):
    """Else all networks would have the last checkpoint's weights, and agree about everything."""

    def built(seed=0):
        with seeded(seed):
            return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))

    for k in range(3):
        torch.save(built(k).state_dict(), tmp_path / f"{k}.pt")
    one = built()
    make = {"all": lambda: one, "a part": lambda: nn.Sequential(one[0], *built()[1:])}[shared]
    with pytest.raises(ValueError, match="the factory gives the same network, or parts of it, at every call"):
        audit.load(make, tmp_path, Problems())
    assert len(audit.load(lambda: built(), tmp_path, Problems())) == 3


def test_a_network_that_may_change_its_input_is_named(tmp_path):
    class Own(nn.Linear):
        transform_input = False

    with seeded(0):
        torch.save(Own(2, 2).state_dict(), tmp_path / "a.pt")
    problems = Problems()
    audit.load(lambda: Own(2, 2), tmp_path, problems)
    assert "transform_input=True" in problems.remarks[0]


def test_networks_that_do_not_take_the_pictures_are_left_out():
    problems, images = Problems(), batch()[0]
    with torch.random.fork_rng():
        wide, maps = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), nn.Conv2d(3, 2, 1)
    fit = audit.compatible({"a": tiny_net(), "b": wide, "c": maps}, images, problems)
    assert list(fit) == ["a"] and problems[0].startswith("b does not take pictures of (3, 16, 16): ")
    assert "not (1, classes)" in problems[1]
    with torch.random.fork_rng():
        other = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
    few = audit.compatible({"a": tiny_net(), "b": other, "c": tiny_net(1)}, images, problems)
    assert list(few) == ["a", "c"] and problems[-1] == "b is left out: it has 7 outputs, the others 10"
    with pytest.raises(ValueError, match="no network takes the pictures.*size= sets theirs"):
        audit.compatible({"b": wide}, images, Problems())


def painted(path, size=(20, 16), mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(values).convert(mode).save(path)


def test_pictures_are_read_and_those_that_cannot_be_are_named(tmp_path):
    for k, (folder, mode) in enumerate((("cat", "RGB"), ("cat", "L"), ("dog", "CMYK"))):
        painted(tmp_path / folder / f"{k}.jpg", mode=mode)
    (tmp_path / "dog" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "dog" / "empty.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    problems = Problems()
    found = audit.read(tmp_path, None, 16, problems)
    assert found.inputs.shape == (3, 3, 16, 16) and found.folders == ("cat", "dog")
    assert sorted(found.labels.tolist()) == [0, 0, 1] and len(problems) == 2
    assert all("cannot be read as an image" in p and "\n" not in p for p in problems)
    shown = found.shown.permute(0, 3, 1, 2)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    torch.testing.assert_close(found.inputs, (shown - mean) / std)
    grey = audit.read(tmp_path / "cat", 1, None, problems, channels=1, mean=[0.5], std=[0.5])
    assert grey.inputs.shape == (1, 1, 16, 16) and grey.labels is None
    for values, message in (
        ({"mean": [0.5]}, "give both mean and std"),
        ({"mean": [0.5], "std": [0.5]}, "3 channels need as many"),
        ({"mean": [0, 0, 0], "std": [1, 0, 1]}, "positive deviations"),
    ):
        with pytest.raises(ValueError, match=message):
            audit.read(tmp_path / "cat", None, 16, problems, **values)
    with pytest.raises(ValueError, match="is not a folder"):
        audit.read(tmp_path / "bird", None, 16, problems)
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match="holds no picture that can be read"):
        audit.read(tmp_path / "void", None, 16, problems)


def test_the_size_is_that_of_the_first_picture_by_name_and_enlarging_is_said(tmp_path):
    for k, side in enumerate((24, 64, 10)):
        painted(tmp_path / f"{k}.png", size=(side, side + 4))
    (tmp_path / "00.png").write_bytes(b"no picture")
    for seed in range(3):
        problems = Problems()
        assert audit.read(tmp_path, None, None, problems, seed=seed).inputs.shape == (3, 3, 24, 24)
        assert problems.remarks == ["1 pictures are enlarged to 24 x 24 pixels, by half and more."]
    for size in (0, 2.5, [16, 16, 16], ["a"]):
        with pytest.raises(ValueError, match="height and width, in whole pixels, not"):
            audit.read(tmp_path, None, size, Problems())
    for name in "012":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(ValueError, match="holds no picture that can be read .*; a picture is left out: 00.png cannot"):
        audit.read(tmp_path, None, None, Problems())


def test_folders_named_by_number_out_of_order_are_named(tmp_path):
    for name in ("2", "10", "1"):
        painted(tmp_path / name / "a.png")
    problems = Problems()
    assert audit.read(tmp_path, None, 8, problems).folders == ("1", "10", "2")
    assert problems[0].startswith("folders named by number are classes in alphabetical order, 1, 10, 2 and so on")
    (tmp_path / "10").rename(tmp_path / "3")
    quiet = Problems()
    assert audit.read(tmp_path, None, 8, quiet).folders == ("1", "2", "3") and not quiet


def test_pictures_that_are_not_square_keep_their_middle(tmp_path):
    picture = PIL.Image.new("RGB", (80, 40), "blue")
    picture.paste("red", (20, 0, 60, 40))
    picture.save(tmp_path / "a.png")
    found = audit.read(tmp_path, None, [32, 16], Problems(), mean=[0] * 3, std=[1] * 3)
    assert found.inputs.shape == (1, 3, 32, 16) and found.shown.shape == (1, 32, 16, 3)
    assert (found.inputs[0, 0] > 0.9).all(), "of the scaled 64 x 32 pixels, 16 columns in the middle"


def test_what_lies_beside_pictures_is_no_class_and_is_named(tmp_path):
    for k, place in enumerate(("cat", "dog", ".ipynb_checkpoints", ".git", ".")):
        painted(tmp_path / place / f"{k}.png")
    painted(tmp_path / "cat" / "._0.png")
    (tmp_path / "bird").mkdir()
    PIL.Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "dog" / "glass.gif")
    problems = Problems()
    found = audit.read(tmp_path, None, 8, problems)
    assert found.folders == ("bird", "cat", "dog") and sorted(found.labels.tolist()) == [1, 2, 2]
    assert problems == [
        "1 pictures beside the folders are of no class and left out, as 4.png",
        "folders without pictures, which count as classes all the same: bird",
    ]
    assert problems.remarks == ["1 pictures may have transparent pixels; these show ImageNet's mean colour."]


@pytest.mark.parametrize("train,val", [("train", "val"), ("Train", "validation"), ("training", "Test")])
def test_of_a_data_set_with_splits_those_for_validation_are_audited(train, val, tmp_path):
    for k, split in enumerate((train, val)):
        for folder in ("cat", "dog")[: k + 1]:
            painted(tmp_path / split / folder / f"{k}.png")
    problems = Problems()
    found = audit.read(tmp_path, None, 8, problems)
    assert found.folders == ("cat", "dog") and len(found.inputs) == 2
    assert problems.remarks == [f"Of {tmp_path.name}, the pictures in {val} are taken."]


def test_constants_of_pixels_up_to_255_are_refused():
    with pytest.raises(ValueError, match="of pixels from 0 to 1; divide"):
        audit.normalised(torch.zeros(2, 3, 8, 8), [123.7, 116.3, 103.5], [58.4, 57.1, 57.4])


@pytest.mark.parametrize("line,raised", [("parser.parse_args()", None), ("raise SystemExit(2)", "ends the program")])
def test_a_module_that_reads_the_command_line_gets_none(line, raised, tmp_path, monkeypatch):
    name = f"reads_{line.split()[0].partition(chr(46))[0]}"
    (tmp_path / f"{name}.py").write_text(
        f"import argparse\nparser = argparse.ArgumentParser()\n{line}\n\n\ndef build():\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["run", "--unknown"])
    if raised:
        with pytest.raises(ValueError, match=raised):
            audit.builder(f"{name}:build")
    else:
        assert callable(audit.builder(f"{name}:build"))


def test_checkpoints_are_named_by_file_pattern_or_folder(tmp_path):
    files = saved(tmp_path)
    odd = tmp_path / "runs [1]" / "a [b].safetensors"
    odd.parent.mkdir()
    save_file(tiny_net(9).state_dict(), odd)
    for named, names in (
        (tmp_path, ["runs [1]/a [b].safetensors", *(path.name for path in files)]),
        ([str(path) for path in files[:2]], [path.name for path in files[:2]]),
        (str(odd), [odd.name]),
        ([tmp_path / "seed-[01]*", odd], ["runs [1]/a [b].safetensors", "seed-0.safetensors", "seed-1.safetensors"]),
    ):
        loaded = audit.load(tiny_net, named, Problems())
        assert list(loaded) == names


def test_targets_are_joint_predictions_or_folders():
    images = batch(12)[0]
    nets, problems, ten = [tiny_net(0), tiny_net(1)], Problems(), tuple("abcdefghij")
    pictures = audit.Pictures(images.permute(0, 2, 3, 1), images, torch.arange(12) % 10, ten)
    with torch.no_grad():
        joint = (nets[0](images).softmax(1) + nets[1](images).softmax(1)).argmax(1)
    assert torch.equal(audit.targets(nets, pictures, "predicted", Problems()), joint)
    assert torch.equal(audit.targets(nets, pictures, "folders", problems), pictures.labels) and not problems
    for folders, labels in (((), None), (("a", "b"), torch.arange(12) % 2)):
        few, problems = audit.Pictures(pictures.shown, images, labels, folders), Problems()
        assert torch.equal(audit.targets(nets, few, "folders", problems), joint)
        assert f"10 outputs, but there are {len(folders)} folders" in problems[0]
    one = audit.Pictures(pictures.shown, images, torch.zeros(12, dtype=torch.long), ten)
    audit.targets(nets, one, "folders", problems)
    assert "all pictures have the one target 0" in problems[-1]
    with pytest.raises(ValueError, match="not 'true'"):
        audit.targets(nets, pictures, "true", problems)


def test_noisy_copies_leave_the_network_as_it_was():
    model, images, problems = tiny_net(), batch()[0], Problems()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    copies, level = audit.noisy_copies(model, images[:1], 3, problems)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    first = [next(net.parameters()) for net in copies]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], next(model.parameters()))
    assert level == 0.1 and "0.1 is used" in problems[0], "no level from one picture"


def test_with_all_weights_redrawn_maps_are_as_like_as_those_of_random_networks():
    images, targets = batch(4)
    nets = [tiny_net(k) for k in range(3)]
    names, found = audit.against_random("input_gradient", nets, images, targets, runs=4)
    assert found.shape == (3, len(names)) and len(names) > 3, "a run for every network"
    again = audit.against_random("input_gradient", nets, images, targets, runs=4)[1]
    assert np.array_equal(found, again)
    others = similarity.of_pairs(snr.member_maps("input_gradient", nets, images, targets), structure.MEASURE)
    assert found[:, -1].mean() == pytest.approx(np.nanmean(others), abs=0.1), "networks that were never trained"
    few, some = audit.against_random("input_gradient", nets, images, targets, runs=4, n_layers=2)
    assert few == [names[0], names[-1]] and np.array_equal(some, found[:, [0, -1]])
    draws = audit.against_random("input_gradient", nets[:2], images, targets, runs=4)[1]
    assert len(draws) == 4 and len(set(draws[:, -1])) == 4, "draws of their own"


def test_a_stochastic_method_draws_anew_for_redrawn_networks():
    """Or what two maps share would be the draws, which two trained networks' maps do not have in common."""
    images, targets = batch(4)

    def of_draws(model, x, y, *, seed=0, batch_size=None):
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))

    names, found = audit.against_random(of_draws, [tiny_net(k) for k in range(3)], images, targets)
    assert abs(found).max() < 0.2 and len(np.unique(found)) == found.size
    few = audit.against_random(of_draws, [tiny_net(k) for k in range(3)], images, targets, n_layers=2)[1]
    assert np.array_equal(few, found[:, [0, -1]])


class Tokens(nn.Module):
    """Has a parameter that no initialiser of PyTorch's redraws."""

    def __init__(self):
        super().__init__()
        self.shift, self.out = nn.Parameter(torch.ones(3, 1, 1)), nn.Linear(3, 10)

    def forward(self, x):
        return self.out((x + self.shift).square().mean((2, 3)))


def test_modules_without_an_initialiser_are_redrawn_too():
    with torch.random.fork_rng():
        model = Tokens().eval()
    names, found = audit.against_random("input_gradient", [model], *batch(2), runs=2)
    assert "Tokens" in names and np.isfinite(found).all()


def test_checkerboard_power_is_of_the_gradient_that_a_strided_convolution_passes_back():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10),
        ).eval()  # fmt: skip
    images, targets = batch(4)
    found = audit.checkerboard(model, images, targets)
    middle = model[:2](images).detach().requires_grad_()
    gradient = torch.autograd.grad(model[2:](middle).gather(1, targets[:, None]).sum(), middle)[0]
    assert list(found) == ["2"]
    np.testing.assert_allclose(found["2"], checkerboard_power(gradient).numpy())
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert audit.checkerboard(tiny_net(name="convnet-w4-d1-max"), images, targets) == {}
    with torch.random.fork_rng():
        patches = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    assert audit.checkerboard(patches.eval(), images, targets) == {}, "prints period four"
    together = audit.checkerboard(tiny_net(size=32), batch(2, 32)[0], batch(2, 32)[1])
    assert any(" and " in name for name in together), "a block's and its shortcut's"


class Strided(nn.Module):
    """``run(convolutions, x)`` gives what a linear layer reads."""

    def __init__(self, run):
        super().__init__()
        with seeded(0):
            self.first, self.second = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1)
            self.aside, self.out = nn.Conv2d(8, 2, 3, 2, 1), nn.Linear(8, 10)
        self.run = run
        self.eval()

    def forward(self, x):
        return self.out(self.run(self, x).mean((2, 3)))


def with_a_head_aside(net, x):
    features = net.first(x)
    net.aside(features.relu())
    return net.second(features)


def test_strides_that_are_seldom():
    images, targets = batch(4)

    def found(run):
        return audit.checkerboard(Strided(run), images, targets)

    assert list(found(with_a_head_aside)) == ["second"], "on the other the logits do not depend"
    assert list(found(lambda net, x: net.second(net.second(net.first(x)).relu()))) == ["second", "second, call 2"]
    assert found(lambda net, x: nn.functional.conv_transpose2d(net.first(x), net.second.weight, stride=2)) == {}
    with pytest.raises(ValueError, match="'second' is called by keyword, which hooks do not see"):
        found(lambda net, x: net.second(input=net.first(x)))
    with pytest.raises(ValueError, match="are functions that forward calls, no modules, and are not measured"):
        found(lambda net, x: nn.functional.conv2d(net.first(x), net.second.weight, stride=2))


def test_a_redrawn_network_with_constant_maps_says_nothing():
    with seeded(0):
        last = nn.utils.parametrizations.orthogonal(nn.Linear(8, 10))  # whose weight is zero after a truncated normal
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    with pytest.raises(ValueError, match="with 4 redrawn every map is constant, which says nothing"):
        audit.against_random("input_gradient", [net], *batch(2))


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.spectral_norm], ids=["weight", "spectral"])
@pytest.mark.filterwarnings("ignore")
def test_weights_that_hooks_compute_are_redrawn(wrap):
    with seeded(0):
        first = wrap(nn.Conv2d(3, 8, 3, 2, 1))
        net = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    names, found = audit.against_random("input_gradient", [net], *batch(2), runs=2)
    assert names == ["4", "0"] and (found < 0.99).all()


intervals = st.tuples(*[st.floats(0, 9)] * 3).map(sorted).map(lambda v: Estimate(v[1], v[0], v[2]))


@given(st.dictionaries(st.sampled_from("abcde"), intervals, min_size=1))
def test_only_methods_whose_intervals_are_apart_are_ranked(estimates):
    found = sentences.ranked(estimates)
    for above, below in found:
        assert estimates[above].low > estimates[below].high
    apart = sum(estimates[a].low > estimates[b].high for a in estimates for b in estimates)
    assert len(found) == apart


def test_seeds_needed_follow_the_interval():
    assert sentences.seeds_needed(Estimate(0.5, 0.4, 1.0), 2.0) == "16 [4, 25]"
    assert sentences.seeds_needed(Estimate(0.5, 0.0, 1.0), 2.0) == "16 [4, any number]"
    assert sentences.seeds_needed(Estimate(0.0, 0.0, 0.1), 1.0) == "no number [100, any number]"
    assert sentences.seeds_needed(Estimate(0.5, -math.inf, math.inf), 2.0) == "16 (no interval)"


UNKNOWN = Estimate(0.9, -math.inf, math.inf)


def heard(low, high, null=(0.0, 0.0)):
    own, moved = Estimate((low + high) / 2, low, high), Estimate(null[0], *null)
    return audit.Signal(own, own, moved, Estimate(own.value - moved.value, low - null[1], high - null[0]))


def test_words_on_noise():
    found = {"a": heard(0.5, 0.7), "b": heard(0.6, 0.9)}
    said = list(sentences.of_noise(found, 3, 2))
    assert "over the 3 networks" in said[2] and "not ranked, since all intervals overlap. Three networks" in said[3]
    assert "average this many networks: 12 [9, 16]" in said[0]
    found["c"] = heard(2, 3, (1.9, 2.5))
    said = list(sentences.of_noise(found, 8, 2))
    assert said[-1] == "Intervals that do not overlap: c above a; c above b. No other two methods are ranked."
    assert "no message with a place" in said[2] and "average" not in said[2], "no number for what is not shown"
    two = list(sentences.of_noise({"a": audit.Signal(*[UNKNOWN] * 4), "b": heard(1, 2)}, 2, 2))
    assert "nothing can be concluded" in two[0] and "three networks at least" in two[-1]
    copies = list(sentences.of_noise({"a": heard(0.5, 0.7)}, 8, 2, copies=True))
    assert len(copies) == 1 and "cannot be told" in copies[0] and "average" not in copies[0]
    drawing = list(sentences.of_noise({"rise": heard(1, 2), "gradcam": heard(1, 2)}, 8, 2))
    assert "A part of the noise of rise is of their own draws: with more samples there is less of it." in drawing


def test_words_on_what_to_do_next():
    e, members = Estimate, 8
    noise = {"deaf": heard(0.5, 0.7, (0.4, 0.6)), "edges": heard(3, 4), "few": heard(1.5, 1.6), "more": heard(0.3, 0.4)}
    noise |= {"open": heard(0.6, 0.9), "single": heard(3, 4), "untold": audit.Signal(*[UNKNOWN] * 4)}
    last = dict.fromkeys(noise, e(0.2, 0.1, 0.3)) | {"edges": e(0.9, 0.8, 1.0)}
    control: dict = dict.fromkeys(noise, e(0.5, 0.4, 0.6))
    unshown = "the networks are not shown to share more"
    said = dict(line.split(": ", 1) for line in sentences.of_next(noise, last, control, members, 2))
    assert said == {
        "Do not read the maps of deaf": f"{unshown} than maps that were moved about at random.",
        "Do not read the maps of edges": "a network with random weights would show much the same.",
        "few": "read the mean map of all 8 networks, whose SNR is above 2; a single map is noisier.",
        "more": "the mean map of the 8 networks stays below an SNR of 2; train 17 more at least, and average all.",
        "open": "average all 8 networks; that may reach an SNR of 2 or not, 12 would.",
        "single": "a single map will do, its SNR is above 2 already.",
        "untold": "nothing can be concluded, since its signal has no interval; more networks may give one.",
    }
    (one,) = sentences.of_next({"few": noise["few"]}, last, control, 8, 2, copies=True)
    assert one.startswith("Train the network again from two other seeds")
    (two,) = sentences.of_next({"untold": noise["untold"]}, last, control, 2, 2)
    assert two.startswith("Train a third network")
    assert list(sentences.of_next({}, {}, {}, 3, 2)) == []


def test_words_on_classes():
    assert sentences.counted([3, 3, 1]) == "class 3 (2), class 1 (1)"
    assert sentences.counted([1, 0, 1], ("cat", "dog")) == "dog (2), cat (1)"
    assert sentences.counted(range(7)).endswith("class 4 (1), and 2 more")


def test_words_on_random_weights():
    e, one = Estimate, {"m": Estimate(0.5, 0.4, 0.6)}
    endings = {
        e(0.2, 0.1, 0.3): "Do not take them for what was learned.", e(0.8, 0.7, 0.9): "depend on what was learned.",
        e(0.5, 0.4, 0.6): "cannot tell.", UNKNOWN: "nothing can be concluded.", None: "would keep.",
    }  # fmt: skip
    for control, ending in endings.items():
        sentence, units = sentences.of_random(one, {"m": control}, "4 networks")
        assert sentence.endswith(ending) and units.endswith("over 4 networks.")
    assert sentences.within(e(0.3, -3.7, 4.4)) == e(0.3, -1, 1) and sentences.within(UNKNOWN) == UNKNOWN


def test_words_on_patterns_and_agreement():
    e = Estimate
    assert "no convolution of stride two" in next(sentences.of_checkerboard({}, ""))
    assert "look at the maps" in list(sentences.of_checkerboard({"conv": e(1.5, 0.9, 2)}, "networks"))[1]
    assert "conv has 1.5 [1.1, 2] times" in next(sentences.of_checkerboard({"conv": e(1.5, 1.1, 2)}, "networks"))
    some = list(sentences.of_checkerboard({"conv": e(1.5, 1.1, 2), "other": e(400, -300, 1000)}, "networks"))
    assert some[1] == "Of other it cannot be told."
    tossed = torch.randn(3, 1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert "read no pixel" in next(sentences.of_agreement({"m": audit.agreement(tossed)}))
    same = tossed[:1].expand(8, -1, -1, -1, -1)
    assert "on 100% of the pixels, about 1% of these by luck" in next(
        sentences.of_agreement({"m": audit.agreement(same)})
    )
    skewed = torch.randn(8, 1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).exp()
    found = audit.agreement(skewed, signed=False)
    assert found.readable.double().mean().item() < 3 * found.by_chance, "maps that have nothing in common"
    assert "above the map's own median" in next(sentences.of_agreement({"m": audit.agreement(same, signed=False)}))
    copies = list(sentences.of_agreement({"m": audit.agreement(same)}, copies=True))
    assert len(copies) == 1 and "little of another training" in copies[0] and "luck" not in copies[0]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's folder: code, checkpoints, two of them bad, and pictures, one of them bad."""
    (tmp_path / "my_networks.py").write_text(
        "from saliency_lib import models\n\ndef build():\n    return models.build('resnet_small', 10, size=16)\n"
    )
    (tmp_path / "runs").mkdir()
    saved(tmp_path / "runs", 3)
    save_file(tiny_net(name="lenet").state_dict(), tmp_path / "runs" / "x_other.safetensors")
    (tmp_path / "runs" / "y_cut.safetensors").write_bytes(b"0" * 100)
    for k in range(6):
        painted(tmp_path / "2024" / "ab"[k % 2] / f"{k}.png", size=(16, 16), seed=k)
    (tmp_path / "2024" / "a" / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SALIENCY_FIGURES", "")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # not the user's folder, which kernels find without it
    return tmp_path


def call(*more, checkpoints="*/*.safetensors"):
    return cli.main([
        "audit", "--model", "my_networks:build", "--checkpoints", checkpoints, "--images", "2024", "--out", "out",
        "--methods", "input_gradient", "gradcam", "nonsense", "--n-maps", "3", "--n-runs", "2",
        *more,
    ])  # fmt: skip


@pytest.mark.parametrize("name, value", [("n_runs", 0), ("n_eval", -1), ("goal", 0.0), ("goal", None)])
def test_numbers_that_nothing_can_be_made_of_are_refused(name, value):
    values = profiles.load("smoke")["09_audit_models"] | {"profile": "smoke", name: value}
    with pytest.raises(ValueError, match=f"all numbers are 1 or more, and the goal is above 0.*{name}={value}"):
        script.run("09_audit_models", values)


@pytest.mark.notebook
def test_an_audit_from_the_command_line(mine, capsys):
    (mine / "out" / "09_runs").mkdir(parents=True)
    (mine / "out" / "09_notes.csv").write_text("mine")
    (mine / "out" / "09_snr.png").write_text("of an earlier audit")
    assert call("--targets", "folders") == 0
    assert (mine / "out" / "09_notes.csv").read_text() == "mine" and (mine / "out" / "09_runs").is_dir()
    said = capsys.readouterr().out
    page = (mine / "out" / "report" / "audit.html").read_text()
    advice, problems = (block.splitlines() for block in said.split("\n\n")[:2])
    assert advice[0] == "What to do next" and len(advice) > 1 and problems[0] == "What could not be done"
    assert len(problems) == 6  # two checkpoints, a picture, an unknown method, two folders for ten outputs
    for sentence in [line for line in said.splitlines() if line.startswith("- ")]:
        assert html.escape(sentence[2:], quote=False) in page
    for word in ("x_other.safetensors", "y_cut.safetensors", "broken.png", "unknown method 'nonsense'"):
        assert word in said
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:"} and "http" not in page
    assert page.count("<img") == 5 and page.count('class="explorer"') == 1 and "function explore(" in page
    assert all(len(alt) > 40 for alt in re.findall(r'alt="([^"]*)"', page))
    assert page.index("What to do next") < page.index("What could not be done") < page.index("<h2")
    assert "3 networks: seed-0.safetensors" in said and "Three networks rarely rank anything" in said
    assert said.endswith(f"report: {mine / 'out' / 'report' / 'audit.html'}\n")
    assert str(mine) not in page, "no path of the user's machine"
    assert "explained are the networks' joint predictions: class " in said, "two folders are not ten classes"
    for code in ("import ", "sentences.of_noise", "Predict first", "On your own"):
        assert code not in page
    numbers = json.loads((mine / "out" / "09_snr.json").read_text())["numbers"]["SNR debiased"]
    assert set(numbers) == {"input_gradient", "gradcam"} and set(numbers["gradcam"]) == {
        "value",
        "low",
        "high",
        "df",
        "n",
    }
    assert page.count("<th>gradcam</th>") == 3, "a row in three tables"


@pytest.mark.notebook
def test_an_audit_of_one_checkpoint_says_what_it_cannot_say(mine, capsys):
    assert call("--size", "16", "24", "--layer", "layer3", checkpoints="runs/seed-0.safetensors") == 0
    said = capsys.readouterr().out
    assert "6 pictures of (3, 16, 24)" in said and "GradCAM explains the layer 'layer3'" in said
    assert "a mean of 0.485, 0.456, 0.406 and a deviation of 0.229, 0.224, 0.225, ImageNet's" in said
    assert "One network, seed-0.safetensors" in said and "cannot be told" in said
    assert "noise of" in said and "Without a second network" in said


def test_an_audit_that_cannot_begin_says_why_in_a_sentence(mine, capsys):
    assert call(checkpoints="runs/none*") == 1
    assert capsys.readouterr().out.startswith("audit: no network could be loaded: no checkpoint matches")
    assert cli.main(["audit", "--goal", "high"]) == 2
    assert "goal='high'" in capsys.readouterr().out


def test_a_message_is_shown_above_all_of_the_nulls_interval():
    assert heard(0.5, 0.7, (0.3, 0.4)).shown and not heard(0.5, 0.7, (0.4, 0.6)).shown


def test_the_spread_of_an_agreement_is_the_unbiased_deviation_over_members():
    maps = torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(audit.agreement(maps).spread, maps.sum(2).var(0).sqrt())


def test_the_null_is_of_several_ways_to_move_the_maps():
    maps = torch.randn(4, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = torch.cat([shift(maps, derive(0, SHIFT, k)) for k in range(SHIFTS)], 1)
    assert len({tuple(part.flatten().tolist()) for part in moved.split(2, 1)}) == SHIFTS
    pixels = controls.independent_pixels(moved)
    null = snr.measure_maps(moved).estimate(lambda p: controls.unbiased_power(p, pixels)).map(snr.rooted)
    assert audit.signal(maps).null == null


def test_only_maps_that_are_clearly_the_same_with_random_weights_are_refused():
    noise, control = {"m": heard(3, 4)}, {"m": Estimate(0.5, 0.4, 0.6)}
    for low, refused in ((0.55, False), (0.61, True)):
        (said,) = sentences.of_next(noise, {"m": Estimate(0.7, low, 0.8)}, control, 8, 2)
        assert said.startswith("Do not read" if refused else "m: a single map will do"), said


def test_as_many_networks_as_are_needed_are_enough():
    (sure,) = sentences.of_next({"m": heard(1, 1.2)}, {}, {}, 4, 2)
    assert sure.startswith("m: read the mean map of all 4 networks"), sure
    (perhaps,) = sentences.of_next({"m": heard(0.9, 1)}, {}, {}, 4, 2)
    assert perhaps == "m: average all 4 networks; that may reach an SNR of 2 or not, 5 would.", perhaps


def test_a_checkerboard_is_told_where_all_of_the_interval_is_above_noise():
    for low, told in ((0.99, False), (1.01, True)):
        assert ("a checkerboard" in next(sentences.of_checkerboard({"conv": Estimate(1.5, low, 2)}, ""))) == told


def test_an_option_without_effect_on_ones_own_networks_is_none(capsys):
    with pytest.raises(SystemExit):
        report.run(["--executor", "serial"], print)
    assert "unrecognized arguments: --executor serial" in capsys.readouterr().err


@pytest.mark.parametrize("name, change", [("0.bias", {"bias": False}), ("1.running_mean", {"track": False})])
@pytest.mark.usefixtures("chance")
def test_weights_of_what_the_network_does_without_are_another_architecture(tmp_path, name, change):
    def build(bias=True, track=True):
        conv, norm = nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, track_running_stats=track)
        return nn.Sequential(conv, norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    torch.save(build().state_dict(), tmp_path / "a.pt")
    assert audit.load(build, tmp_path, Problems())
    with pytest.raises(ValueError, match=rf"another architecture: .* as {name} is"):
        audit.load(lambda: build(**change), tmp_path, Problems())


def test_the_pattern_is_asked_of_a_network_in_eval_mode_and_of_its_classes():
    net, (x, y) = tiny_net(0), batch(2)
    with pytest.raises(ValueError, match="targets run from"):
        structure.checkerboard(net, x, y + 10)
    before = net.train().bn1.running_mean.clone()
    with pytest.raises(ValueError, match="training mode"):
        structure.checkerboard(net, x, y)
    assert torch.equal(net.bn1.running_mean, before)


def test_numbers_for_pictures_may_be_one_for_all(tmp_path):
    pixels = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 65535\n" + pixels.byteswap().tobytes())
    given = [
        audit.read(tmp_path, None, size, Problems(), mean=0.5, std=0.25) for size in ([64], np.int64(64), (64, 64))
    ]
    for found in given:
        torch.testing.assert_close(found.inputs[0, 0], found.shown[0, :, :, 0] * 4 - 2)
        assert (found.shown[0, :, :, 0] * 255 - torch.from_numpy(pixels / 257)).abs().max() <= 0.5
    with pytest.raises(ValueError, match="size is a side, or height and width"):
        audit.read(tmp_path, None, [], Problems())


def test_words_on_constants_and_chance():
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    said = sentences.of_constants([0.5], [0.003125], "as given", x)
    assert "a deviation of 0.003125, as given. So these pictures have a mean of" in said and "--mean" not in said
    assert "give these as --mean and --std" in sentences.of_constants([0.5], [0.2], "ImageNet's", x)
    pictures = audit.Pictures(x.permute(0, 2, 3, 1), x, torch.arange(4) % 2, ("a", "b"))
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    nn.init.zeros_(net[1].weight)
    said = list(sentences.of_pictures(pictures, [net], torch.zeros(4, dtype=torch.int64), "predicted"))
    assert said[-1].startswith("That is no better than chance")


def test_pictures_of_16_bits_keep_their_levels(tmp_path):
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)  # 12 bits in 16
    PIL.Image.fromarray(levels).save(tmp_path / "a.png")
    found = audit.read(tmp_path, None, 64, Problems(), channels=1, mean=0.0, std=1.0)
    torch.testing.assert_close(found.inputs[0, 0], torch.from_numpy(levels.astype(np.float32) / 65535))
    assert audit.read(tmp_path, None, 32, Problems(), mean=0.0, std=1.0).inputs.shape == (1, 3, 32, 32)


def test_what_differs_is_found_behind_a_prefix(tmp_path):
    with seeded(0):
        nets = [
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), head)
            for head in (nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2)))
        ]
    torch.save({f"model.{name}": value for name, value in nets[0].state_dict().items()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="4 tensors differ, as 2.0.weight is missing in place of"):
        audit.load(lambda: nets[1], tmp_path, Problems())
