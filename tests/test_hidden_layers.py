"""Gradient, integrated gradients and DeepLIFT of a hidden layer's output."""

from functools import partial

import captum.attr
import pytest
import torch
from conftest import as_it_comes, batch, tiny_net
from torch import nn

from saliency_lib import attribution
from saliency_lib.attribution import layers
from saliency_lib.runtime.seeds import seeded

METHODS = ["input_gradient", "integrated_gradients", "deeplift"]
EACH = pytest.mark.parametrize("method", METHODS)


def above(model, x, layer):
    """The layer's values for x, and the logits as a function of them."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.detach().clone()))
    model(x)
    handle.remove()

    def rest(values):
        handle = model.get_submodule(layer).register_forward_hook(lambda *_: values.clone())
        try:
            return model(x)
        finally:
            handle.remove()

    return kept[0], rest


def in_place(model):
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return model


@pytest.mark.parametrize("change", [lambda m: m, in_place], ids=["plain", "in place"])
@pytest.mark.parametrize("layer", ["bn1", "layer1", "layer2.0.bn1", "layer3"])
def test_the_gradient_is_that_of_what_follows_the_layer(layer, change):
    model, (x, y) = change(tiny_net()), batch()
    values, rest = above(model, x, layer)
    values.requires_grad_()
    expected = torch.autograd.grad(rest(values).gather(1, y[:, None]).sum(), values)[0]
    found = attribution.attribute("input_gradient", model, x, y, layer=layer)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["layer1", "layer3"])
def test_against_captum(layer):
    model, (x, y) = tiny_net(), batch()
    module = model.get_submodule(layer)
    oracle = captum.attr.LayerIntegratedGradients(model, module).attribute(x, torch.zeros_like(x), y, n_steps=20)
    found = attribution.integrated_gradients(model, x, y, layer=layer, n_steps=20, batch_size=7)
    torch.testing.assert_close(found, oracle.float(), rtol=1e-4, atol=1e-5)
    with as_it_comes():
        oracle = captum.attr.LayerDeepLift(model, module).attribute(x, torch.zeros_like(x), y)
    torch.testing.assert_close(attribution.deeplift(model, x, y, layer=layer), oracle, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [partial(attribution.integrated_gradients, n_steps=200), attribution.deeplift])
@pytest.mark.parametrize("layer", ["relu", "layer1", "layer2", "layer4"])
def test_maps_of_a_layer_that_all_goes_through_are_complete(method, layer):
    model, (x, y) = in_place(tiny_net()), batch()
    maps = method(model, x, y, layer=layer)
    difference = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(maps.flatten(1).sum(1), difference, rtol=2e-2, atol=2e-3)


@EACH
def test_batches_do_not_matter_and_nothing_is_left_behind(method):
    model, (x, y) = tiny_net(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    maps = attribution.attribute(method, model, x, y, layer="layer2")
    assert maps.shape == (5, *model.layer2(model.layer1(model.relu(model.bn1(model.conv1(x))))).shape[1:])
    one = attribution.attribute(method, model, x, y, layer="layer2", batch_size=1)
    torch.testing.assert_close(maps, one, rtol=1e-3, atol=1e-5)
    assert all(map(torch.equal, before.values(), model.state_dict().values()))
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


@EACH
def test_what_follows_may_work_in_place(method):
    model, (x, y) = tiny_net(), batch()
    own = attribution.attribute(method, model, x, y, layer="bn1")
    torch.testing.assert_close(attribution.attribute(method, in_place(model), x, y, layer="bn1"), own)


@EACH
def test_a_layer_that_is_called_twice_is_refused(method):
    (x, y), shared = batch(), nn.ReLU()
    with seeded(0):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), shared, nn.Conv2d(4, 4, 3), shared, nn.Flatten(), nn.Linear(576, 10)
        ).eval()
    with pytest.raises(ValueError, match="calls layer '1' 2 times"):
        attribution.attribute(method, model, x, y, layer="1")


@EACH
def test_bad_layers_get_a_clear_sentence(method):
    model, (x, y) = tiny_net(), batch()
    with seeded(0):
        model.idle = nn.Conv2d(3, 3, 1).eval()
    for layer, words in [("nowhere", "unknown layer 'nowhere'"), ("fc", "has no feature maps"), ("idle", "not use")]:
        with pytest.raises(ValueError, match=words):
            attribution.attribute(method, model, x, y, layer=layer)


def test_upsampled_maps_are_captums():
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    oracle = captum.attr.LayerAttribution.interpolate(maps, (16, 12), "bilinear")
    torch.testing.assert_close(layers.upsampled(maps, torch.empty(2, 3, 16, 12)), oracle)
