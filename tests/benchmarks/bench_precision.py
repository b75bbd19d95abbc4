"""Training in bfloat16 against float32: how much faster, and whether any finding moves by more than its uncertainty.

The trial: ``main`` of the notebooks, accuracy and debiased SNR of four methods, and the exponent of the width of a
small sweep. Where the machine does not compute in bfloat16 it is slow and its time means nothing: it then runs with
``SALIENCY_BENCH=findings`` (or tiny), and only its findings count.
"""

import os
from unittest import mock

import numpy as np
import pytest
from scipy import stats
from timing import TINY, Comparison, report, sized

from saliency_lib import convergence, data, ensembles, estimates, inference, snr
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.estimates import Estimate
from saliency_lib.recipe import device_settings
from saliency_lib.training import Recipe

METHODS = ("input_gradient", "integrated_gradients", "gradcam", "guided_backprop")
MEMBERS = sized(12, 8)
WIDTHS = (4, 8, 16, 32)
IMAGES = sized(100, 4)
CORRECTION = stats.norm.ppf(0.025 / 6) / stats.norm.ppf(0.025)  # for six comparisons

with mock.patch.dict(os.environ):
    os.environ.pop("SALIENCY_PRECISION", None)  # which the suite's settings force
    COMPUTES = device_settings("cpu")["bfloat16"]
pytestmark = pytest.mark.skipif(
    not COMPUTES and os.environ.get("SALIENCY_BENCH") not in ("tiny", "findings"),
    reason="needs a CPU that computes in bfloat16; SALIENCY_BENCH=findings looks at what is found alone",
)


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv("SALIENCY_PRECISION", raising=False)


def trained(bfloat16: bool, dataset: str, model: str, n_train: int | None, epochs: int) -> tuple[list, float]:
    """Members and the seconds that their training took, one process a core."""
    recipe = Recipe(epochs=epochs, batch_size=64, device="cpu", bfloat16=bfloat16)
    spec = EnsembleSpec(dataset, model, MEMBERS, recipe, n_train=sized(n_train, 64), n_val=sized(None, 64))
    members = ensembles.get(spec, "processes")
    return [members[k] for k in range(MEMBERS)], members.seconds


def findings(members: list, dataset: str) -> dict[str, Estimate]:
    """Accuracy and SNR with their intervals over members."""
    val = data.load(dataset, "val")
    right = [inference.accuracy(net, val.inputs(), val.labels) for net in members]
    few = val.take(IMAGES)
    found = {name: snr.measure(name, members, few.inputs(), few.labels).debiased() for name in METHODS}
    return {"accuracy": estimates.student(np.array(right))} | found


def alike(a: Estimate, b: Estimate) -> bool:
    """Whether two estimates differ by no more than their uncertainty."""
    widths = [(e.high - e.low) / 2 for e in (a, b)]
    return abs(a.value - b.value) <= CORRECTION * np.hypot(*widths)


def test_findings_of_the_main_ensemble():
    found, seconds = {}, {}
    for half in (False, True):
        members, seconds[half] = trained(half, "photodigits", "resnet_small", 4000, sized(6, 1))
        found[half] = findings(members, "photodigits")
    ratio = seconds[True] / seconds[False]
    report(
        f"training {MEMBERS} resnet_small in bfloat16", "in float32",
        Comparison(seconds[True], seconds[False], ratio, ratio, ratio), "s of processor time",
    )  # fmt: skip
    for name, whole in found[False].items():
        print(f"{name}: float32 {whole}, bfloat16 {found[True][name]}")
        assert TINY or alike(whole, found[True][name]), name


def test_the_exponent_of_the_width():
    slopes = {}
    for half in (False, True):
        few = data.load("digits", "val").take(IMAGES)
        lines = []
        for width in WIDTHS:
            members, _ = trained(half, "digits", f"convnet-w{width}-d1-max", None, sized(15, 1))
            groups = [members[k::4] for k in range(4)]  # ensembles of their own, for an interval
            lines.append([snr.measure("input_gradient", g, few.inputs(), few.labels).debiased().value for g in groups])
        slopes[half] = estimates.student(
            np.array([convergence.loglog_slope(WIDTHS, line) for line in np.array(lines).T])
        )
    print(f"exponent: float32 {slopes[False]}, bfloat16 {slopes[True]}")
    assert TINY or alike(slopes[False], slopes[True])
