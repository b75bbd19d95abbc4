"""GradCAM and guided backpropagation against captum, pytorch-grad-cam and zennit; layers by name."""

import captum.attr
import pytest
import torch
from conftest import NETS, as_it_comes, batch, tiny_net
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional as F
from zennit.attribution import Gradient
from zennit.core import BasicHook, Composite

from saliency_lib import attribution, models
from saliency_lib.attribution import layers
from saliency_lib.runtime.seeds import seeded


def nets(name, norm, size=64):
    return tiny_net(name=name, norm=norm, size=size), *batch(3, size)


@pytest.mark.parametrize("name,norm", NETS)
@pytest.mark.parametrize("layer", ["top", "mid"])
def test_gradcam_is_captums_resized(name, norm, layer):
    net, x, y = nets(name, norm)
    small = captum.attr.LayerGradCam(net, layers.find(net, layer)).attribute(x, target=y)
    for options, theirs in (({}, small), ({"relu": False}, small), ({"relu": True}, small.relu())):
        theirs = F.interpolate(theirs, x.shape[-2:], mode="bilinear", align_corners=False).detach()
        ours = attribution.gradcam(net, x, y, layer=layer, **options)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


@pytest.mark.parametrize("name,norm", [("resnet18", None), ("vgg11", "batch")])
def test_gradcam_is_that_of_pytorch_grad_cam_after_its_relu_and_scaling(name, norm):
    net, x, y = nets(name, norm)
    layer = layers.find(net, "mid")
    with GradCAM(net, [layer]) as cam:
        theirs = torch.from_numpy(cam(x, [ClassifierOutputTarget(int(k)) for k in y]))
    ours = attribution.gradcam(net, x, y, layer="mid", relu=True)[:, 0]
    low, high = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    # theirs is scaled to [0, 1] before and after it is resized
    torch.testing.assert_close((ours - low) / (high - low).clamp(min=1e-7), theirs, rtol=1e-3, atol=2e-3)


class Guided(BasicHook):
    """zennit's way to say: only positive gradients pass a ReLU."""

    def __init__(self):
        super().__init__(
            input_modifiers=[lambda input: input],
            param_modifiers=[None],
            output_modifiers=[lambda output: output],
            gradient_mapper=lambda out_grad, outputs: [out_grad],
            reducer=lambda inputs, gradients: (inputs[0] > 0).to(inputs[0]) * gradients[0].clamp(min=0),
        )

    def backward(self, module, grad_input, grad_output):
        return (F.relu(grad_output[0]) * (self.stored_tensors["input"][0] > 0),)


@pytest.mark.parametrize("name,norm", NETS)
def test_guided_backprop_is_zennits(name, norm):
    net, x, y = nets(name, norm, 32)
    ours = attribution.guided_backprop(net, x, y)
    composite = Composite(lambda ctx, name, module: Guided() if isinstance(module, nn.ReLU) else None)
    with Gradient(net, composite) as attributor:
        _, zennits = attributor(x.clone().requires_grad_(), torch.eye(10)[y])
    torch.testing.assert_close(ours, zennits.detach(), rtol=1e-3, atol=1e-3 * zennits.abs().max().item())


@pytest.mark.parametrize("name,norm", NETS)
def test_guided_gradcam_is_a_product_and_captums_but_for_resizing(name, norm):
    net, x, y = nets(name, norm)
    ours = attribution.guided_gradcam(net, x, y)
    product = attribution.guided_backprop(net, x, y) * attribution.gradcam(net, x, y, relu=True)
    assert torch.equal(ours, product)
    with as_it_comes():
        theirs = captum.attr.GuidedGradCam(net, layers.find(net, "top")).attribute(
            x, target=y, interpolate_mode="bilinear"
        )
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


class Functional(nn.Module):
    """One ReLU is a module, one a function."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(F.relu(self.relu(self.conv(x)).mean((2, 3)) - 0.1))


class Aside(nn.Module):
    """A ReLU module that takes no part in the logits, and a function that does."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 10)

    def forward(self, x):
        h = self.conv(x)
        self.aside = self.relu(h).detach()
        return self.fc(F.relu(h).mean((2, 3)))


def test_a_relu_module_aside_does_not_hide_a_function():
    with seeded(0):
        net = Aside().eval()
    with pytest.raises(ValueError, match="1 of the 1 ReLUs are functions"):
        attribution.guided_backprop(net, *batch(2))


@pytest.mark.parametrize("method", ["guided_backprop", "guided_gradcam"])
def test_relus_that_are_no_modules_get_a_sentence(method):
    with seeded(0):
        net, soft = Functional().eval(), models.build("resnet_small", 10, activation="softplus").eval()
    options = {"layer": "conv"} if method == "guided_gradcam" else {}
    with pytest.raises(ValueError, match="1 of the 2 ReLUs are functions called in forward"):
        getattr(attribution, method)(net, *batch(2), **options)
    with pytest.raises(ValueError, match="ResNetSmall has none in use"):
        getattr(attribution, method)(soft, *batch(2))


@pytest.mark.parametrize(
    "name,top,mid",
    [
        ("resnet18", "layer4", "layer2"),
        ("resnet50", "layer4", "layer2"),
        ("resnet_small", "layer4", "layer2"),
        ("resnet9", "res3", "res1"),
        ("vgg11", "features.19", "features.9"),
        ("vgg19", "features.51", "features.25"),
        ("lenet", "6", "2"),
        ("cnn", "6", "2"),
        ("convnet-w8-d4-max", "14", "6"),
        ("convnet-w8-d3-none", "8", "5"),
    ],
)
def test_top_and_mid_of_every_architecture(name, top, mid):
    with torch.device("meta"):
        net = models.build(name, 10, norm="batch" if name == "vgg19" else None)
    named = dict(net.named_modules())
    assert layers.find(net, "top") is named[top] and layers.find(net, "mid") is named[mid]
    assert layers.find(net, mid) is named[mid]


def test_top_and_mid_end_in_an_activation_or_a_stage():
    for name in ("vgg11", "vgg16", "vgg19", "cnn", "convnet-w8-d4-max", "convnet-w8-d2-avg"):
        for norm in ("none", "batch"):
            with torch.device("meta"):
                net = models.build(name, 10, norm=norm)
            assert all(isinstance(net.get_submodule(stage), nn.ReLU) for stage in layers.stages(net)), name


def test_unknown_layers_get_a_sentence():
    net, (x, y) = tiny_net(), batch(2)
    for layer in ("layer9", ""):
        with pytest.raises(ValueError, match=f"unknown layer '{layer}'; 'top', 'mid' or one of"):
            attribution.attribute("gradcam", net, x, y, layer=layer)
    with seeded(0):
        net.spare = nn.Conv2d(3, 3, 1).eval()
    with pytest.raises(ValueError, match="does not use layer 'spare' in its forward pass"):
        attribution.gradcam(net, x, y, layer="spare")
    with pytest.raises(ValueError, match="has no feature maps"):
        attribution.gradcam(net, x, y, layer="fc")
    with pytest.raises(ValueError, match="no stage on which"):
        attribution.gradcam(tiny_net(name="mlp"), x, y)
    with pytest.raises(ValueError, match="one stage only"):
        attribution.gradcam(tiny_net(name="convnet-w8-d1-max"), x, y, layer="mid")


def test_a_layer_can_be_named_through_attribute():
    net, (x, y) = tiny_net(), batch(2)
    assert torch.equal(
        attribution.attribute("gradcam", net, x, y, layer="layer1"), attribution.gradcam(net, x, y, layer="layer1")
    )
