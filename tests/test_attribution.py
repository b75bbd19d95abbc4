"""Gradients: equal to captum's and to finite differences; nothing of the model is touched."""

import captum.attr
import pytest
import torch
from conftest import tiny_net

from saliency_lib import attribution
from saliency_lib.attribution import METHODS, attribute


def batch(n=5, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, size, size, generator=generator), torch.randint(0, 10, (n,), generator=generator)


@pytest.mark.parametrize(
    "name,norm,size",
    [
        ("resnet18", None, 32),
        ("resnet18", "none", 32),
        ("vgg11", "none", 32),
        ("vgg11", "batch", 32),
        ("resnet_small", None, 16),
    ],
)
def test_input_gradient_is_captums_signed_saliency(name, norm, size):
    net, (x, y) = tiny_net(name=name, norm=norm, size=size), batch(3, size)
    theirs = captum.attr.Saliency(net).attribute(x.clone().requires_grad_(), target=y, abs=False)
    torch.testing.assert_close(attribute("input_gradient", net, x, y), theirs.detach())


def test_input_gradient_against_finite_differences():
    net, (x, y) = tiny_net(activation="softplus").double(), batch(2)
    x, step = x.double(), 1e-5
    maps = attribute("input_gradient", net, x, y)
    for c, i, j in ((0, 3, 4), (2, 9, 15)):
        up, down = x.clone(), x.clone()
        up[:, c, i, j] += step
        down[:, c, i, j] -= step
        slope = (net(up) - net(down)).gather(1, y[:, None])[:, 0] / (2 * step)
        torch.testing.assert_close(maps[:, c, i, j].double(), slope.detach(), rtol=1e-4, atol=1e-5)


def test_probability_gradient_is_equation_8():
    net, (x, y) = tiny_net(), batch()
    by_class = torch.stack([attribute("input_gradient", net, x, torch.full_like(y, k)) for k in range(10)])
    p = net(x).detach().softmax(1)
    weighted = torch.einsum("nk,knchw->nchw", p, by_class)
    own = by_class[y, torch.arange(len(y))]
    expected = p[torch.arange(len(y)), y].view(-1, 1, 1, 1) * (own - weighted)
    torch.testing.assert_close(attribute("probability_gradient", net, x, y), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", list(METHODS))
def test_any_batch_size_gives_the_same_maps(name):
    net, (x, y) = tiny_net(), batch()
    whole = attribute(name, net, x, y)
    for size in (1, 2, 99):
        torch.testing.assert_close(attribute(name, net, x, y, batch_size=size), whole)
    assert whole.shape == x.shape and whole.dtype == torch.float32


@pytest.mark.parametrize("name", list(METHODS))
def test_model_and_input_are_left_as_they_were(name):
    net, (x, y) = tiny_net(), batch()
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    attribute(name, net, x, y)
    with torch.no_grad():
        attribute(name, net, x, y)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not net.training and not x.requires_grad and x.grad is None
    assert (net.conv1.weight.grad == 1).all() and net.fc.weight.grad is None
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())


def test_a_function_of_the_same_signature_is_a_method():
    x, y = batch()
    ours = attribute(lambda model, images, targets, *, seed=0, batch_size=None: images * (seed + 1), None, x, y, seed=2)
    assert torch.equal(ours, 3 * x)


def test_the_registry_names_source_and_cost():
    for method in METHODS.values():
        assert method.citation and method.forwards >= 1 and method.backwards >= 0


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda net, x, y: net.train(), "training mode"),
        (lambda net, x, y: y.add_(90), "10 classes, 0 to 9"),
        (lambda net, x, y: x.fill_(float("nan")), "not finite"),
        (lambda net, x, y: x.squeeze_(0), "expected images"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    net, (x, y) = tiny_net(), batch(1)
    change(net, x, y)
    with pytest.raises(ValueError, match=message):
        attribute("input_gradient", net, x, y)
    with pytest.raises(ValueError, match="unknown method 'gradcat'; one of"):
        attribute("gradcat", net, *batch())


def test_larger_pictures_go_in_smaller_batches():
    assert [s.stop - s.start for s in attribution._batches(300, torch.zeros(300, 3, 64, 64), None)][0] == 64
