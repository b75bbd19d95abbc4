"""Classifiers of torchvision, timm and transformers: maps or a sentence, as docs/networks.md says; whole audits."""

import pytest
import zoo
from conftest import ALL
from safetensors.torch import save_file
from test_audit import painted, saved_by_transformers

from saliency_lib import __main__ as cli
from saliency_lib.attribution import layers
from saliency_lib.runtime.seeds import seeded

ROWS = zoo.committed()
SMALL = [name for name, row in ROWS.items() if float(row.parameters.split()[0]) < 4]
FEW = ["shufflenet_v2_x0_5", *(name for name in ROWS if name.startswith("hf: "))]


def test_the_table_is_whole():
    assert list(ROWS) == list(zoo.builders()), "python tests/zoo.py adds what is missing"
    assert set(zoo.TORCHVISION) < set(ROWS) and sum(name.startswith("timm:") for name in ROWS) >= 30
    for row in ROWS.values():
        done, _, methods = row.maps.partition(" of ")
        assert int(methods) == len(zoo.GRADIENTS) and (done == methods) == (not row.refused), row
        assert "`" in row.layer or "gradcam" in row.refused, row


@pytest.mark.parametrize("name", SMALL if ALL else FEW)
def test_a_row_of_the_table_is_what_the_library_does(name):
    assert zoo.row(name, zoo.builders()[name]) == ROWS[name]


@pytest.mark.parametrize("name", [n for n in SMALL if n.startswith("timm:")] if ALL else ["timm:test_resnet"])
def test_the_top_layer_has_the_grid_of_the_last_features_that_timm_names(name):
    build = zoo.builder(name)
    net, x = zoo.made(build), zoo.pictures(build)
    info = getattr(net, "feature_info", None)
    if not info:
        pytest.skip("timm names no features of it")
    top = layers.stages(net)[-1]
    side = zoo.grid(net, top, x)
    assert side == tuple(-(-n // info[-1]["reduction"]) for n in x.shape[2:]), (top, info[-1])


AUDITED = ["timm:test_vit", "timm:test_convnext", "timm:test_efficientnet", "timm:test_maxvit", "timm:test_resnet"]


@pytest.mark.notebook
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in AUDITED] + ["hf:runs/seed-0"])
def test_an_audit_from_end_to_end(name, tmp_path, monkeypatch, capsys):
    for k in range(4):
        painted(tmp_path / "photos" / f"{k}.png", size=(40, 40), seed=k)
    for seed in range(3):
        folder = tmp_path / "runs" / f"seed-{seed}"
        folder.mkdir(parents=True)
        if name.startswith("hf:"):
            saved_by_transformers(folder, seed, {"size": {"height": 32, "width": 32}})
        else:
            with seeded(seed):
                save_file(zoo.builder(name)(5).state_dict(), folder / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SALIENCY_FIGURES", "")
    few = ["--n-maps", "2", "--n-runs", "2", "--methods", "input_gradient", "integrated_gradients", "gradcam"]
    words = ["--model", name, "--checkpoints", "runs", "--images", "photos", "--out", "out", *few]
    assert cli.main(["audit", *words]) == 0
    said = capsys.readouterr().out
    assert "3 networks: seed-0/model.safetensors, seed-1" in said and "left out" not in said
    assert "GradCAM explains the layer" in said and f", {zoo.builder(name).source}." in said
    assert said.count("random weights leave a likeness of") == 3 and "What to do next" in said
