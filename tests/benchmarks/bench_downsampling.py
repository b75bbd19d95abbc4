"""Smoothing strided convolutions of resnet18 at 64 pixels: the hooks beside the plain gradient, and an epoch of
training the surrogate beside one of the network."""

import pytest
import torch
from bench_methods import network, timed
from timing import compare, report, sized
from torch.nn import functional as F

from saliency_lib import attribution, data
from saliency_lib.downsampling import BilinearSurrogate, smooth_backward, smooth_forward

N = sized(64, 4)
HOOKS = {"backward": smooth_backward, "forward": smooth_forward}


def pictures():
    val = data.load("photodigits", "val", n=N, size=64)
    return val.inputs(), val.labels


@pytest.mark.parametrize("layer", ["layer1", None], ids=["layer1", "input"])
@pytest.mark.parametrize("name", list(HOOKS))
def test_cost_of_a_hook(name, layer):
    net, (x, y) = network(), pictures()

    def plain():
        attribution.input_gradient(net, x, y, layer=layer, batch_size=N)

    def smooth():
        with HOOKS[name](net, images=x):
            plain()

    work = f"{name} hook, gradient at {layer or 'the input'}, resnet18 at 64 px, {N} images"
    report(work, "the gradient without it", compare(smooth, plain))


def test_surrogate_epoch_against_training_epoch():
    net, (x, y) = network(), pictures()
    surrogate = BilinearSurrogate(net, images=x)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)  # the time is that of any rate, and the network stays

    def epoch():
        net.train()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x.contiguous(memory_format=torch.channels_last)), y).backward()
        optimizer.step()
        net.eval()

    found = compare(lambda: timed(surrogate.fit, x, epochs=1, batch_size=N), epoch)
    report(f"an epoch of the surrogate's {len(surrogate.paths)} paths", "one of the network", found)
