"""The cascading sanity check on resnet18 against Quantus's MPRT, layer for layer, for the methods that both have."""

from functools import partial

import pytest
import quantus
from bench_methods import SIDE, network, pictures, timed
from conftest import as_it_comes
from timing import compare, report, sized

from saliency_lib import attribution, randomization
from saliency_lib.channels import total
from saliency_lib.similarity import spearman

N, POINTS = sized(16, 2), 10
SAME = {  # our method, its images per pass as in Quantus's, Quantus's options; layer2, since layer4 here is one pixel
    # wide; Quantus stops at blank maps, as guided GradCAM gives
    "input_gradient": (attribution.input_gradient, N, {"method": "Gradient"}),
    "gradient_x_input": (attribution.gradient_x_input, N, {"method": "InputXGradient"}),
    "integrated_gradients": (
        partial(attribution.integrated_gradients, n_steps=POINTS),
        POINTS * N,
        {"method": "IntegratedGradients", "n_steps": POINTS},
    ),
    "deeplift": (attribution.deeplift, N, {"method": "DeepLift"}),
    "gradcam": (
        partial(attribution.gradcam, layer="layer2"),
        N,
        {"method": "LayerGradCam", "gc_layer": "model.layer2", "interpolate": (SIDE, SIDE)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SAME)[: sized(len(SAME), 1)])
def test_cascade_against_quantus(name):
    net, (x, y), (method, size, options) = network(), pictures(N), SAME[name]
    modules = [name for name, module in net.named_modules() if hasattr(module, "reset_parameters")]
    steps = {}

    def ours():
        maps = total(method(net, x, y, batch_size=size))
        copies = randomization.cascading(net, 0, x, only=modules)
        steps["ours"] = len([spearman(maps, total(method(copied, x, y, batch_size=size))) for _, copied in copies])

    def theirs():
        metric = quantus.MPRT(disable_warnings=True, abs=False, normalise=False)
        explain = {"explain_func": quantus.explain, "explain_func_kwargs": options}
        steps["theirs"] = len(metric(net, x.numpy(), y.numpy(), device="cpu", batch_size=N, **explain)) - 1

    with as_it_comes():
        found = compare(ours, theirs)
    assert steps == {"ours": len(modules), "theirs": len(modules)}
    report(f"MPRT of {name}, {len(modules)} layers of resnet18, {N} images", "Quantus", found)


def test_cost_of_a_step():
    """Copying and redrawing, beside one map."""
    net, (x, y) = network(), pictures(N)
    steps = len(randomization.layers(net, x))

    def gradients():
        for _ in range(steps):
            attribution.input_gradient(net, x, y)

    found = compare(lambda: timed(list, randomization.cascading(net, 0, x)), gradients)
    report(f"the cascade's copies of resnet18, {steps} steps", f"a gradient each of {N} images", found)
