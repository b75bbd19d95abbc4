"""DeepLIFT adds up, also where captum's does not; where captum's does, the two agree."""

import captum.attr
import pytest
import torch
from conftest import as_it_comes, batch, tiny_net
from torch import nn
from torch.nn import functional as F

from saliency_lib import attribution
from saliency_lib.attribution.deeplift import ELEMENTWISE, _below, full_precision
from saliency_lib.hooks import hooked
from saliency_lib.runtime.seeds import seeded

NETS = [
    ("resnet18", None), ("resnet18", "none"), ("vgg11", "none"), ("vgg11", "batch"), ("resnet_small", None),
    ("resnet9", None), ("resnet50", None), ("cnn", None), ("mlp", None),
]  # fmt: skip


def lively(net, seed=0):
    """The network with biases and normalisation statistics as if trained: a fresh one is linear along rays from 0."""
    with seeded(seed):
        for module in net.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.data.normal_(0, 0.2)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return net


def sums(net, x, y, reference):
    return (net(x) - net(reference).mean(0)).gather(1, y[:, None])[:, 0].detach()


@pytest.mark.parametrize("name,norm", NETS)
@pytest.mark.parametrize("activation", ["relu", "softplus", "gelu"])
def test_maps_add_up(name, norm, activation):
    net, (x, y) = lively(tiny_net(name=name, norm=norm, size=32, activation=activation)), batch(3, 32)
    references = batch(4, 32, seed=8)[0]
    for maps, to in (
        (attribution.deeplift(net, x, y), torch.zeros_like(x[:1])),
        (attribution.deeplift(net, x, y, baseline=references[0]), references[:1]),
        (attribution.deeplift_shap(net, x, y, references=references), references),
    ):
        torch.testing.assert_close(maps.flatten(1).sum(1), sums(net, x, y, to), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name,norm", [("resnet_small", None), ("resnet_small", "none"), ("mlp", None)])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_it_is_captums_where_nothing_is_pooled_by_maximum(name, norm, activation):
    net, (x, y) = lively(tiny_net(name=name, norm=norm, activation=activation)), batch(3)
    references = batch(4, seed=8)[0]
    with as_it_comes():
        theirs = captum.attr.DeepLift(net).attribute(x, references[:1], target=y).detach()
    torch.testing.assert_close(attribution.deeplift(net, x, y, baseline=references[0]), theirs, rtol=1e-3, atol=1e-4)
    with as_it_comes():
        theirs = captum.attr.DeepLiftShap(net).attribute(x, references, target=y).detach()
    torch.testing.assert_close(
        attribution.deeplift_shap(net, x, y, references=references), theirs, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name,norm", [("resnet18", None), ("vgg11", "none")])
def test_it_is_captums_in_fresh_networks_whose_reference_is_silent(name, norm):
    net, (x, y) = tiny_net(name=name, norm=norm, size=32), batch(3, 32)
    for module in net.modules():  # without biases, a zero image is zero in all layers
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    with as_it_comes():
        theirs = captum.attr.DeepLift(net).attribute(x, target=y).detach()
    torch.testing.assert_close(
        attribution.deeplift(net, x, y), theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item()
    )


def pooled():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)
        ).eval()


def test_captums_does_not_add_up_where_maxima_are_pooled_after_a_relu():
    """Why ours is not captum's; should this fail, captum may have been mended, and could be used again."""
    net, (x, y) = pooled(), batch(4)
    reference = batch(1, seed=8)[0]
    with as_it_comes():
        _, error = captum.attr.DeepLift(net).attribute(x, reference, target=y, return_convergence_delta=True)
    assert (error.abs() > 0.1 * sums(net, x, y, reference).abs()).any()
    ours = attribution.deeplift(net, x, y, baseline=reference[0])
    torch.testing.assert_close(ours.flatten(1).sum(1), sums(net, x, y, reference))


def test_pooling_by_hand():
    """Two windows of one pixel row: the image wins the first, the reference the second."""
    with seeded(0):
        net = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
    net[2].weight.data.fill_(1.0)
    x, reference = torch.tensor([[[[3.0, 1.0, 0.0, 2.0]]]]), torch.tensor([[[0.0, 2.0, 5.0, 1.0]]])
    maps = attribution.deeplift(net, x, torch.tensor([0]), baseline=reference)
    # 3 against 2: the rise of 1 goes to the image's maximum; 2 against 5: the fall of 3 to the reference's
    torch.testing.assert_close(maps, torch.tensor([[[[1.0, 0.0, -3.0, 0.0]]]]))


def test_pooling_that_changes_forward_is_refused():
    class Padded(nn.MaxPool2d):
        def forward(self, x):
            return nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 2)

    net, (x, y) = pooled(), batch(2)
    net[2] = Padded(2, padding=0)
    with seeded(0):
        net[4] = nn.Linear(net[:4](x).shape[1], 10)
    net.eval()
    with pytest.raises(ValueError, match="no rule for Padded, max pooling with a forward of its own"):
        attribution.deeplift(net, x, y)


def test_a_linear_network_gives_weight_times_difference():
    net, (x, y) = tiny_net(name="mlp", activation="none"), batch(3)
    reference = batch(1, seed=8)[0][0]
    gradient = attribution.input_gradient(net, x, y)
    torch.testing.assert_close(attribution.deeplift(net, x, y, baseline=reference), gradient * (x - reference))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8 * 14 * 14, 10)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).flatten(1))


class Twice(nn.Module):
    """One ReLU module in two places, as in torchvision's residual blocks."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.relu(self.relu(self.conv(x)).mean((2, 3)) - 0.2))


@pytest.mark.parametrize("method", ["deeplift", "deeplift_shap"])
def test_a_nonlinearity_without_a_rule_gets_a_sentence(method):
    with seeded(0):
        net = Functional().eval()
    instance = lively(tiny_net(norm="instance"))
    for model in (net, instance):
        with pytest.raises(ValueError, match="DeepLIFT does not add up for this model"):
            getattr(attribution, method)(model, *batch(3))


def test_one_module_in_two_places_adds_up():
    with seeded(0):
        net = Twice().eval()
    x, y = batch(3)
    reference = batch(1, seed=8)[0]
    maps = attribution.deeplift(net, x, y, baseline=reference[0])
    torch.testing.assert_close(maps.flatten(1).sum(1), sums(net, x, y, reference))


def test_slopes_do_not_cancel():
    """A reference just above zero and an image far above it have slope one, as in float64."""
    with seeded(0):
        net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(6, 1, bias=False)).eval()
    net[0].weight.data.fill_(1.0)
    x = torch.tensor([[[[1.0, 10.0, 10.0], [-3.0, 1e-8, 5.0]]]])
    reference = torch.tensor([[[1e-8, 1e-6, 1e-4], [1e-8, -1.0, -1e-8]]])
    ours = attribution.deeplift(net, x, torch.tensor([0]), baseline=reference)
    exact = attribution.deeplift(net.double(), x.double(), torch.tensor([0]), baseline=reference.double())
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-9)
    rise = (x.double().relu() - reference.double().relu()) / (x.double() - reference.double())
    expected = rise * net[3].weight.view(1, 1, 2, 3) * (x.double() - reference.double())
    torch.testing.assert_close(exact, expected.float().detach())


def test_plain_networks_without_normalisation_give_numbers():
    """Ten random references bring values near zero into every layer; they gave 0/0 in a first version."""
    net = tiny_net(name="vgg11", size=64)
    for seed in (0, 5):
        maps = attribution.deeplift_shap(net, *batch(8, 64, seed), seed=seed)
        assert torch.isfinite(maps).all()


def test_references_pass_a_few_at_a_time():
    net, (x, y) = lively(tiny_net()), batch(2)
    references, sizes = batch(7, seed=8)[0], []
    whole = attribution.deeplift_shap(net, x, y, references=references)
    with hooked([net], lambda _module, _inputs, out: sizes.append(len(out))):
        parts = attribution.deeplift_shap(net, x, y, references=references, batch_size=3)
    assert max(sizes) <= 3
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


class Residual(nn.Module):
    """What a module gives, or takes, is changed in place afterwards; or nothing is."""

    def __init__(self, changed: str = ""):
        super().__init__()
        with seeded(0):
            self.conv, self.act, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 10)
        self.changed = changed
        self.eval()

    def forward(self, x):
        x = self.conv(x)
        h = self.act(x)
        h = h.add_(1) if self.changed == "given" else h + 1
        x = x.add_(h) if self.changed == "taken" else x + h
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("method", [attribution.deeplift, attribution.deeplift_shap])
@pytest.mark.parametrize("changed", ["given", "taken"])
def test_a_network_may_change_tensors_in_place(changed, method):
    x, y = batch(2)
    assert torch.equal(method(Residual(changed), x, y), method(Residual(), x, y))


def test_an_image_that_is_its_own_reference_gives_zero():
    net, (x, y) = lively(tiny_net()), batch(2)
    assert attribution.deeplift(net, x[:1], y[:1], baseline=x[0]).abs().max() == 0


class Plain(nn.Sequential):
    """A small network with a non-linearity of one's own."""

    def __init__(self, activation, dtype=torch.float32):
        with seeded(0):
            first, last = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        super().__init__(first, activation, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
        self.eval().to(dtype)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6), (2, 8, 5, 5)])
def test_small_differences_are_found_wherever_they_are(shape):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for limit in (0.0, 0.1, 0.5, 2.0):
        found = torch.zeros(shape, dtype=torch.bool)
        found[_below(values, limit)] = True
        assert torch.equal(found, values < limit)


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_every_activation_has_a_rule_that_adds_up(kind):
    net, (x, y) = Plain(kind()), batch(3)
    torch.testing.assert_close(
        attribution.deeplift(net, x, y).flatten(1).sum(1), sums(net, x, y, 0 * x[:1]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Hardswish, nn.ReLU6])
def test_activations_that_work_in_place_give_the_maps_of_those_that_do_not(kind):
    changing, (x, y) = Plain(kind(inplace=True)), batch(3)
    torch.testing.assert_close(attribution.deeplift(changing, x, y), attribution.deeplift(Plain(kind()), x, y))
    assert changing[1].inplace


@pytest.mark.parametrize("kind", [nn.ReLU, nn.GELU, nn.SiLU])
@pytest.mark.parametrize("way", ["bfloat16", "float16", "autocast"])
def test_half_precision_changes_no_more_of_a_map_than_rounding_does(kind, way):
    whole, (x, y) = Plain(kind()), batch(3)
    if way == "autocast":
        half, given = Plain(kind()), x
        half.forward = lambda images: torch.autocast("cpu", torch.bfloat16)(nn.Sequential.forward)(half, images)
    else:
        half, given = Plain(kind(), getattr(torch, way)), x.to(getattr(torch, way))
    found, exact = attribution.deeplift(half, given, y), attribution.deeplift(whole, x, y)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.03 * exact.norm()


def test_a_missed_non_linearity_is_found_in_half_precision_too():
    class Functional(Plain):
        def forward(self, x):
            return self[4](F.gelu(4 * self[0](x)).mean((2, 3)))

    net, (x, y) = Functional(nn.ReLU(), torch.bfloat16), batch(3)
    with pytest.raises(ValueError, match="does not add up"):
        attribution.deeplift(net, x.bfloat16(), y)


@pytest.mark.parametrize("before", [True, False])
def test_the_precision_of_convolutions_is_put_back(before, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with pytest.raises(KeyError), full_precision():
        assert not torch.backends.cudnn.allow_tf32
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 == before
