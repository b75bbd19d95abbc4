"""Networks: torchvision's functions, one module per activation and use, every option."""

import pytest
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from saliency_lib import models
from saliency_lib.models.blocks import ACTIVATIONS, NORMS, Blur
from saliency_lib.runtime.seeds import seeded

CONVNETS = ("d3-max", "d1-none", "d2-avg", "d2-stride", "d2-blur")
ALL = (*models.NAMES, *(f"convnet-w4-{rest}" for rest in CONVNETS))


def built(name, **options):
    with seeded(0):
        return models.build(name, 7, size=32, **options).eval()


class CountCalls(TorchFunctionMode):
    """Counts calls of activation functions, whoever makes them."""

    names = {"relu", "relu_", "softplus", "gelu", "tanh"}

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += getattr(function, "__name__", "") in self.names
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ALL)
def test_every_activation_is_a_module_used_once(name):
    model, seen = built(name), []
    kinds = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    assert kinds and not any(m.inplace for m in kinds)
    for module in kinds:
        module.register_forward_hook(lambda m, *_: seen.append(m))
    with torch.no_grad(), CountCalls() as counter:
        out = model(torch.zeros(2, 3, 32, 32))
    assert out.shape == (2, 7)
    assert sorted(map(id, seen)) == sorted(map(id, kinds)), "each once, none unused"
    with torch.no_grad(), CountCalls() as counter:
        nn.Sequential(*[nn.ReLU() for _ in kinds])(torch.zeros(1))
        alone = counter.calls
    with torch.no_grad(), CountCalls() as counter:
        model(torch.zeros(2, 3, 32, 32))
    assert counter.calls == alone, "no activation but the modules'"


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11"])
def test_torchvision_weights_give_torchvisions_outputs(name):
    with seeded(0):
        theirs = getattr(torchvision.models, name)(num_classes=7).eval()
        x = torch.randn(2, 3, 64, 64)
    ours = built(name)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet_small", "resnet9", "vgg11", "lenet", "cnn", "convnet-w4-d2-max"])
@pytest.mark.parametrize("norm", list(NORMS))
def test_norms(name, norm):
    if norm == "instance" and name == "resnet18":
        with pytest.raises(ValueError, match="1x1 map"):
            built(name, norm=norm)
        return
    model = built(name, norm=norm)
    kinds = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
    for key, kind in kinds.items():
        assert any(isinstance(m, kind) for m in model.modules()) == (key == norm)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("name", ["resnet_small", "vgg11", "mlp", "convnet-w4-d2-max"])
def test_activations(name, activation):
    model = built(name, activation=activation)
    kind = type(ACTIVATIONS[activation]())
    assert sum(isinstance(m, kind) for m in model.modules()) >= 2
    assert activation == "relu" or not any(isinstance(m, nn.ReLU) for m in model.modules())


def test_without_activation_and_with_average_pooling_a_convnet_is_linear():
    model = built("convnet-w4-d2-avg", activation="none").double()
    a, b = torch.randn(2, 1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    zero = model(torch.zeros_like(a))
    torch.testing.assert_close(model(2 * a + b) - zero, 2 * (model(a) - zero) + model(b) - zero)


def test_convnet_parameters_count_as_written():
    model = built("convnet-w16-d2-max")
    expected = (3 * 9 * 16 + 16) + (16 * 9 * 16 + 16) + (16 * 8 * 8 * 7 + 7)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_quick_network_ends_in_a_map():
    model, shapes = built("resnet_small"), []
    model.layer4.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert shapes == [(128, 4, 4)] and model.conv1.stride == (2, 2)


@pytest.mark.parametrize("name", ALL)
def test_grey_pictures(name):
    assert built(name, in_channels=1)(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    "name,options,message",
    [
        ("resnet17", {}, "unknown network 'resnet17'"),
        ("lenet", {"norm": "layer"}, "unknown norm 'layer'"),
        ("lenet", {"activation": "swish"}, "unknown activation 'swish'"),
        ("lenet", {"size": 8}, "at least 16 pixels"),
        ("convnet-w4-d4-max", {"size": 8}, "at most 3 layers"),
        ("convnet-w4-d2-blur", {"size": 30}, "30 pixels must divide by 4"),
        ("convnet-w0-d1-max", {}, "at least 1"),
    ],
)
def test_bad_names_get_a_sentence(name, options, message):
    with pytest.raises(ValueError, match=message), seeded(0):
        models.build(name, 10, **options)


def test_the_seed_decides_the_weights():
    with seeded(1):
        a = models.build("resnet_small", 10)
    with seeded(1):
        b = models.build("resnet_small", 10)
    with seeded(2):
        c = models.build("resnet_small", 10)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.conv1.weight, c.conv1.weight)


def test_a_blur_halves_pictures_without_folding_stripes_into_them():
    x = torch.arange(16.0)
    stripes = (-1.0) ** x.expand(1, 2, 16, 16)
    blur = Blur()
    assert blur(stripes).abs().max() == 0 and blur(torch.ones(1, 2, 16, 16)).eq(1).all()
    assert blur(stripes).shape == (1, 2, 8, 8) and not list(blur.parameters()) and not blur.state_dict()
    picture = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([1.0, 2, 1])
    by_hand = (picture[0, 1, 3:6, 5:8] * kernel[:, None] * kernel / 16).sum()
    assert blur(picture)[0, 1, 2, 3] == pytest.approx(by_hand.item())


@pytest.mark.parametrize(
    "name, size, norm", [("vgg11", 16, None), ("resnet9", 4, None), ("resnet_small", 8, "instance")]
)
def test_pictures_that_are_too_small_are_named_when_it_is_built(name, size, norm):
    with pytest.raises(ValueError, match="needs pictures of at least|pictures this small"):
        models.build(name, 10, 3, norm, size=size)
