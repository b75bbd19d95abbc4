"""Saliency methods on resnet18: time divided by that of the bare passes they must do, and against captum."""

import time
from functools import partial

import captum.attr
import pytest
import torch
from conftest import as_it_comes
from timing import compare, report, sized
from torch.nn import functional as F

from saliency_lib import attribution, data, models
from saliency_lib.attribution import METHODS, layers
from saliency_lib.attribution.lime_shap import superpixels
from saliency_lib.runtime.seeds import seeded

SIDE = 32
BATCH = sized(128, 32)  # the batch size that is fastest for bare passes of resnet18 at 32 pixels on two cores


def network():
    with seeded(0):
        net = models.build("resnet18", 10).eval()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.data.normal_(0, 0.1)
    return net


def pictures(n):
    val = data.load("photodigits", "val", n=n, size=SIDE)
    return val.inputs(), val.labels


def bare(net, x, y, forwards, backwards, layer=None):
    """The passes that a method must do, in full batches and the fastest layout: seconds for all images of x. A pass
    back alone is one there and back less one forward."""
    images = x.repeat(-(-BATCH // len(x)), 1, 1, 1)[:BATCH].contiguous(memory_format=torch.channels_last)
    target = y.repeat(-(-BATCH // len(y)))[:BATCH, None]
    kept = []
    handle = layer.register_forward_hook(lambda _m, _i, out: kept.append(out)) if layer is not None else None
    times = {}
    for kind, count in (("both", backwards), ("forward", forwards - backwards)):
        rounds = min(-(-abs(count) * len(x) // BATCH), 6)
        if not count:
            continue
        started = time.perf_counter()
        for _ in range(rounds):
            if kind == "both":
                part = images.clone(memory_format=torch.preserve_format).requires_grad_()
                kept.clear()
                scores = net(part).gather(1, target).sum()
                torch.autograd.grad(scores, kept[0] if layer is not None else part)
            else:
                with torch.no_grad():
                    net(images)
        times[kind] = (time.perf_counter() - started) / (rounds * BATCH) * count * len(x)
    if handle:
        handle.remove()
    return sum(times.values())


def timed(function, *arguments, **options):
    """Seconds of a call."""
    started = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - started


def images_for(entry):
    return sized(256 if entry.passes <= 4 else 64 if entry.passes <= 100 else 4, 2)


@pytest.mark.parametrize("name", list(METHODS))
def test_cost_over_bare_passes(name):
    net, entry = network(), METHODS[name]
    x, y = pictures(images_for(entry))
    layer = layers.find(net, "top") if name == "gradcam" else None
    found = compare(
        partial(timed, entry.function, net, x, y, batch_size=BATCH),
        lambda: bare(net, x, y, entry.forwards, entry.backwards, layer),
    )
    passes = f"{entry.forwards} + {entry.backwards} bare passes"
    report(f"{name}, resnet18, {len(x)} images", passes, found)


def captums(net, x, y):
    """captum's own way for each method, ``call(best)`` with its default or its best batch settings."""
    from captum.attr import visualization  # noqa: F401, imported once so that no call pays for it

    references = torch.randn(10, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    tunnel = captum.attr.NoiseTunnel

    def parts(call, size):
        return lambda best: [call(x[i : i + size], y[i : i + size], best) for i in range(0, len(x), size)]

    def hiding(kind):
        def call(a, b, best):
            feature_mask = superpixels(a[0], 50)[None, None]
            options = {"perturbations_per_eval": BATCH} if best else {}
            return kind(net).attribute(a, target=b, feature_mask=feature_mask, n_samples=sized(1000, 20), **options)

        return parts(call, 1)

    def gradcam(a, b, best):
        small = captum.attr.LayerGradCam(net, net.layer4).attribute(a, target=b)
        return F.interpolate(small, a.shape[-2:], mode="bilinear")

    few = max(1, BATCH // 25)  # images per pass, which have many copies each
    ig, saliency = captum.attr.IntegratedGradients(net), captum.attr.Saliency(net)
    return {
        "input_gradient": parts(lambda a, b, _: saliency.attribute(a, target=b, abs=False), BATCH),
        "gradient_x_input": parts(lambda a, b, _: captum.attr.InputXGradient(net).attribute(a, target=b), BATCH),
        "integrated_gradients": lambda best: (
            parts(lambda a, b, _: ig.attribute(a, target=b), max(1, BATCH // 50))(best)
            if best else ig.attribute(x, target=y)
        ),
        "smoothgrad": parts(lambda a, b, _: tunnel(saliency).attribute(a, nt_samples=25, target=b, abs=False), few),
        "vargrad": parts(
            lambda a, b, _: tunnel(saliency).attribute(a, nt_type="vargrad", nt_samples=25, target=b, abs=False), few
        ),
        "deeplift": parts(lambda a, b, _: captum.attr.DeepLift(net).attribute(a, target=b), BATCH // 2),
        "deeplift_shap": parts(
            lambda a, b, _: captum.attr.DeepLiftShap(net).attribute(a, references, target=b), max(1, BATCH // 20)
        ),
        "gradient_shap": parts(
            lambda a, b, _: captum.attr.GradientShap(net).attribute(a, references, n_samples=25, target=b), few
        ),
        "kernel_shap": hiding(captum.attr.KernelShap),
        "lime": hiding(captum.attr.Lime),
        "gradcam": parts(gradcam, BATCH),
        "guided_backprop": parts(lambda a, b, _: captum.attr.GuidedBackprop(net).attribute(a, target=b), BATCH),
        "guided_gradcam": parts(
            lambda a, b, _: captum.attr.GuidedGradCam(net, net.layer4).attribute(a, target=b), BATCH
        ),
        "occlusion": lambda best: captum.attr.Occlusion(net).attribute(
            x, (3, 8, 8), (3, 4, 4), target=y, **({"perturbations_per_eval": max(1, BATCH // len(x))} if best else {})
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(captums(None, torch.zeros(1, 3, 8, 8), None)))
def test_against_captum(name):
    net, entry = network(), METHODS[name]
    x, y = pictures(sized(2, 1) if name in ("lime", "kernel_shap") else images_for(entry))
    theirs = captums(net, x, y)[name]

    ours = partial(timed, entry.function, net, x, y, batch_size=BATCH)

    def call(best):
        with as_it_comes():
            return timed(theirs, best)

    differs = name in ("integrated_gradients", "kernel_shap", "lime", "occlusion")  # where captum has a default to beat
    work = f"{name}, resnet18, {len(x)} images"
    report(work, "captum at its best setting", compare(ours, lambda: call(True)))
    if differs:
        report(work, "captum at its default", compare(ours, lambda: call(False), 1))


def test_one_name_for_every_method_of_captum():
    assert set(captums(None, torch.zeros(1, 3, 8, 8), None)) < set(METHODS)
    assert attribution.METHODS is METHODS
