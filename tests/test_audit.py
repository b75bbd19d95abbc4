"""The audit says what can be said, names what it had to leave out, and runs no code of a checkpoint."""

import html
import json
import math
import pickle
import re

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
from saliency_lib import audit
from saliency_lib.audit import Problems, networks, words
from saliency_lib.estimates import Estimate
from saliency_lib.quality import checkerboard_power


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
    assert same.readable.all() and (same.share == 1).all() and same.spread.abs().max() < 1e-6
    torch.testing.assert_close(same.mean, tossed[0].sum(1))
    with pytest.raises(ValueError, match="two members at least, not 1"):
        audit.agreement(tossed[:1])


def test_maps_without_negative_values_agree_by_what_lies_above_their_mean():
    maps = torch.rand(8, 1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert audit.agreement(maps).readable.double().mean() < 0.1
    assert not audit.agreement(torch.zeros(8, 1, 1, 4, 4)).readable.any()


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
        found = networks.weights(path)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[k], state[k]) for k in state)


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
    loaded = audit.load(lambda: tiny_net(5), audit.matching(str(tmp_path / "*.*"), problems), problems)
    assert loaded.names == [path.name for path in files] and not touched.exists()
    assert [p.split()[0] for p in problems] == sorted(path.name for path in tmp_path.glob("x*"))
    said = dict(zip("defghijkl", problems))
    for letter in "dfgh":
        assert "cannot be read as weights alone" in said[letter]
    assert "weights" in said["e"] and "holds no state dict" in said["i"]
    assert "another architecture: " in said["j"] and "tensors are missing, as" in said["j"]
    assert said["k"].endswith("it holds the same weights as seed-0.safetensors") and "not finite" in said["l"]
    assert all("\n" not in p for p in problems)
    for a, b in zip(loaded.networks, range(3)):
        assert torch.equal(next(a.parameters()), next(tiny_net(b).parameters())) and not a.training


def test_no_network_at_all_is_an_error_with_the_reasons(tmp_path):
    problems = Problems()
    assert audit.matching(str(tmp_path / "*.pt"), problems) == [] and "no file matches" in problems[0]
    with pytest.raises(ValueError, match="no network could be loaded: no file matches"):
        audit.load(tiny_net, [], problems)


def test_networks_by_name(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="torchvision has no model 'resnet19'"):
        audit.builder("resnet19")
    with pytest.raises(ValueError, match="'nowhere:build' cannot be imported"):
        audit.builder("nowhere:build")
    (tmp_path / "mine_for_audit.py").write_text("import torch\ndef build():\n    return torch.nn.Linear(2, 3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    build = audit.builder("squeezenet1_1")
    with torch.random.fork_rng():
        assert audit.builder("mine_for_audit:build")().out_features == 3
        save_file(build(num_classes=7).state_dict(), tmp_path / "seven.safetensors")
    (model,) = audit.load(build, [tmp_path / "seven.safetensors"], Problems()).networks
    assert model.num_classes == 7


def test_networks_that_do_not_take_the_pictures_are_left_out():
    problems, images = Problems(), batch()[0]
    with torch.random.fork_rng():
        wide, maps = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), nn.Conv2d(3, 2, 1)
    fit = audit.taking(audit.Loaded(["a", "b", "c"], [tiny_net(), wide, maps]), images, problems)
    assert fit.names == ["a"] and problems[0].startswith("b does not take pictures of (3, 16, 16): ")
    assert "not (1, classes)" in problems[1]
    with pytest.raises(ValueError, match="no network takes the pictures.*size= sets theirs"):
        audit.taking(audit.Loaded(["b"], [wide]), images, Problems())


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


def test_targets_are_joint_predictions_or_folders():
    images = batch(12)[0]
    nets, problems = [tiny_net(0), tiny_net(1)], Problems()
    pictures = audit.Pictures(images.permute(0, 2, 3, 1), images, torch.arange(12) % 2, ("a", "b"))
    with torch.no_grad():
        joint = (nets[0](images).softmax(1) + nets[1](images).softmax(1)).argmax(1)
    assert torch.equal(audit.targets(nets, pictures, "predicted", Problems()), joint)
    assert torch.equal(audit.targets(nets, pictures, "folders", problems), pictures.labels) and not problems
    one = audit.Pictures(pictures.shown, images, torch.zeros(12, dtype=torch.long), ("a",))
    audit.targets(nets, one, "folders", problems)
    assert len(problems) == 1 and "all pictures have the one target 0" in problems[0]
    wrong = (
        ("folders", (), "need one folder"),
        ("folders", tuple("abcdefghijkl"), "12 folders of"),
        ("x", "a", "not 'x'"),
    )
    for which, folders, message in wrong:
        labels = torch.arange(12) % len(folders) if folders else None
        with pytest.raises(ValueError, match=message):
            audit.targets(nets, audit.Pictures(pictures.shown, images, labels, folders), which, problems)


def test_shaken_copies_leave_the_network_as_it_was():
    model, images = tiny_net(), batch()[0]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    copies = audit.shaken(model, 0.2, 3, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    first = [next(net.parameters()) for net in copies]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], next(model.parameters()))
    problems = Problems()
    assert audit.noise_level(model, images[:1], problems) == 0.1 and "0.1 is used" in problems[0]


def test_similarity_falls_to_what_random_weights_give():
    images, targets = batch(4)
    names, found = audit.against_random("input_gradient", [tiny_net(0), tiny_net(1)], images, targets, runs=3)
    assert found["rank correlation"].shape == (3, len(names)) and len(names) > 3
    again = audit.against_random("input_gradient", [tiny_net(0), tiny_net(1)], images, targets, runs=3)[1]
    assert np.array_equal(found["rank correlation"], again["rank correlation"])
    assert found["rank correlation"][:, -1].max() < 0.5
    assert not np.array_equal(found["rank correlation"][0], found["rank correlation"][2]), "draws of its own"


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
    together = audit.checkerboard(tiny_net(size=32), batch(2, 32)[0], batch(2, 32)[1])
    assert any(" and " in name for name in together), "a block's and its shortcut's"


intervals = st.tuples(*[st.floats(0, 9)] * 3).map(sorted).map(lambda v: Estimate(v[1], v[0], v[2]))


@given(st.dictionaries(st.sampled_from("abcde"), intervals, min_size=1))
def test_only_methods_whose_intervals_are_apart_are_ranked(estimates):
    found = words.ranked(estimates)
    for above, below in found:
        assert estimates[above].low > estimates[below].high
    apart = sum(estimates[a].low > estimates[b].high for a in estimates for b in estimates)
    assert len(found) == apart


def test_seeds_needed_follow_the_interval():
    assert words.seeds_needed(Estimate(0.5, 0.4, 1.0), 2.0) == "16 [4, 25]"
    assert words.seeds_needed(Estimate(0.5, 0.0, 1.0), 2.0) == "16 [4, any number]"
    assert words.seeds_needed(Estimate(0.0, 0.0, 0.1), 1.0) == "no number [100, any number]"
    assert words.seeds_needed(Estimate(0.5, -math.inf, math.inf), 2.0) == "16 (no interval)"


def test_words_follow_the_numbers():
    def noise(low, high, null=0.0):
        return {"debiased": Estimate((low + high) / 2, low, high), "null debiased": null}

    rows = {"a": noise(0.5, 0.7), "b": noise(0.6, 0.9)}
    assert "not ranked, since all intervals overlap. Three networks" in list(words.of_noise(rows, 3, 2, "networks"))[-1]
    rows["c"] = noise(2, 3, null=2.5)
    said = list(words.of_noise(rows, 8, 2, "networks"))
    assert said[-1] == "Intervals that do not overlap: c above a; c above b. No other two methods are ranked."
    assert sum("no shared message is shown" in s for s in said) == 1 and "c: the interval" in said[-2]
    assert len(list(words.of_noise({"a": rows["a"]}, 8, 2, "networks"))) == 1

    e, one = Estimate, {"m": Estimate(0.5, 0.4, 0.6)}
    for control, ending in ((e(0.2, 0.1, 0.3), "what was learned."), (e(0.8, 0.7, 0.9), "depend on what was learned."),
                            (e(0.5, 0.4, 0.6), "cannot tell."), (None, "would keep.")):  # fmt: skip
        (sentence,) = words.of_random(one, {"m": control})
        assert sentence.endswith(ending)
    assert "do not" in list(words.of_random(one, {"m": e(0.2, 0.1, 0.3)}))[0]
    assert "no strided convolutions" in next(words.of_checkerboard({}))
    assert "beyond doubt" in next(words.of_checkerboard({"conv": e(1.5, 0.9, 2)}))
    assert "conv has 1.5 [1.1, 2]" in next(words.of_checkerboard({"conv": e(1.5, 1.1, 2)}))
    maps = torch.randn(3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert "read areas, not single pixels" in list(words.of_agreement({"m": audit.agreement(maps)}))[-1]


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
        painted(tmp_path / "photos" / "ab"[k % 2] / f"{k}.png", size=(16, 16), seed=k)
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    for name in ("SALIENCY_FIGURES", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    return tmp_path


def call(*more, checkpoints="runs/*"):
    return cli.main([
        "audit", "--model", "my_networks:build", "--checkpoints", checkpoints, "--images", "photos", "--out", "out",
        "--methods", "input_gradient", "gradcam", "nonsense", "--n-maps", "3", "--n-runs", "2", "--n-shaken", "3",
        *more,
    ])  # fmt: skip


@pytest.mark.notebook
def test_an_audit_from_the_command_line(mine, capsys):
    assert call("--targets", "folders") == 0
    said = capsys.readouterr().out
    content = json.loads((mine / "out" / "report" / "audit.json").read_text())
    page = (mine / "out" / "report" / "audit.html").read_text()
    assert len(content["problems"]) == 4  # two checkpoints, a picture, and an unknown method
    for word in ("x_other.safetensors", "y_cut.safetensors", "broken.png", "unknown method 'nonsense'"):
        assert word in said and html.escape(word) in page
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:"} and "http" not in page
    assert page.count("<img") == 4 and all(len(alt) > 40 for alt in re.findall(r'alt="([^"]*)"', page))
    assert "3 networks: seed-0.safetensors" in said and "Three networks rarely rank anything" in said
    assert str(mine / "out" / "report" / "audit.html") in said
    assert {r["method"] for r in content["tables"]["Signal and noise"]} == {"input_gradient", "gradcam"}


@pytest.mark.notebook
def test_an_audit_of_one_checkpoint_says_what_it_cannot_say(mine, capsys):
    assert call(checkpoints="runs/seed-0.safetensors") == 0
    said = capsys.readouterr().out
    assert "One network, seed-0.safetensors" in said and "cannot be told" in said
    assert "noise of" in said and "without a second network" in said


def test_an_audit_that_cannot_begin_says_why_in_a_sentence(mine, capsys):
    assert call(checkpoints="runs/none*") == 1
    assert capsys.readouterr().out.startswith("audit: no network could be loaded: no file matches")
    assert cli.main(["audit", "--goal", "high"]) == 2
    assert "goal='high'" in capsys.readouterr().out
