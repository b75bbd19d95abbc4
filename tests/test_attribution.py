"""What holds for every method: oracles, hygiene, the same maps whatever the batch, and sentences for bad input."""

import captum.attr
import numpy as np
import pytest
import torch
from conftest import NETS, as_it_comes, batch, tiny_net
from torch import nn

from saliency_lib import attribution, inference
from saliency_lib.attribution import METHODS, attribute
from saliency_lib.attribution.integrated import QUADRATURES
from saliency_lib.hooks import hooked
from saliency_lib.runtime.code import hooks_of
from saliency_lib.runtime.seeds import INPUTS, derive, seeded

STOCHASTIC = [name for name, method in METHODS.items() if method.stochastic]
FEW = {  # options that keep slow methods short
    "integrated_gradients": {"n_steps": 8},
    "smoothgrad": {"n_samples": 4},
    "smoothgrad_ig": {"n_samples": 3, "n_steps": 4},
    "vargrad": {"n_samples": 4},
    "gradient_shap": {"n_samples": 4},
    "lime": {"n_samples": 24, "n_segments": 12},
    "kernel_shap": {"n_samples": 40, "n_segments": 12},
    "rise": {"n_masks": 20},
}


def method(name):
    return lambda *args, **options: METHODS[name].function(*args, **FEW.get(name, {}), **options)


@pytest.mark.parametrize("name,norm", NETS)
def test_methods_that_captum_has_too_give_its_maps(name, norm):
    net, (x, y) = tiny_net(name=name, norm=norm, size=32), batch(3, 32)
    close = {"rtol": 1e-3, "atol": 1e-6}

    def theirs(kind, *args, **options):
        return kind.attribute(x.clone().requires_grad_(), *args, target=y, **options).detach()

    torch.testing.assert_close(
        attribute("input_gradient", net, x, y), theirs(captum.attr.Saliency(net), abs=False), **close
    )
    torch.testing.assert_close(
        attribute("gradient_x_input", net, x, y), theirs(captum.attr.InputXGradient(net)), **close
    )
    from_first = (x - x[:1]) * attribute("input_gradient", net, x, y)
    torch.testing.assert_close(attribution.gradient_x_input(net, x, y, baseline=x[0]), from_first)
    boxes = {"sliding_window_shapes": (3, 8, 8), "strides": (3, 4, 4)}
    torch.testing.assert_close(
        attribute("occlusion", net, x, y), theirs(captum.attr.Occlusion(net), **boxes)[:, :1], rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("name,norm", NETS)
@pytest.mark.parametrize("method,kind", [("smoothgrad", "smoothgrad"), ("vargrad", "vargrad")])
def test_smoothgrad_and_vargrad_are_captums_with_the_same_noise(name, norm, method, kind, monkeypatch):
    net, (x, y) = tiny_net(name=name, norm=norm, size=32), batch(1, 32)
    noise = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(derive(2, INPUTS)))
    deviation = 0.15 * (x.max() - x.min())
    monkeypatch.setattr(torch, "normal", lambda *_, **__: deviation * noise)
    with as_it_comes():
        tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(net))
        theirs = tunnel.attribute(x, nt_type=kind, nt_samples=6, stdevs=1.0, target=y, abs=False).detach()
    ours = getattr(attribution, method)(net, x, y, seed=2, n_samples=6)
    theirs = theirs * (6 / 5 if kind == "vargrad" else 1)  # theirs divides by n, ours by n - 1
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3 * theirs.abs().max().item())


def test_rise_is_the_weighted_mean_of_its_masks():
    net, (x, y) = tiny_net(), batch(2)
    seen = []
    with hooked([net], lambda _module, inputs, out: seen.append((inputs[0], out.softmax(1)))):
        ours = attribution.rise(net, x[:1], y[:1], n_masks=30, batch_size=7)
    shown, p = (torch.cat([part[k] for part in seen[-5:]]) for k in (0, 1))
    masks = (shown / x[:1]).mean(1, keepdim=True)  # what was multiplied, of the image itself
    assert masks.min() > -1e-5 and masks.max() < 1 + 1e-5 and 0.35 < masks.mean() < 0.65
    by_hand = (masks * p[:, y[0]].view(-1, 1, 1, 1)).mean(0) / 0.5
    torch.testing.assert_close(ours[0], by_hand.detach(), rtol=1e-3, atol=1e-5)
    corners = {tuple((m[0].diff(dim=0).abs().sum(1) > 1e-6).nonzero()[:1].flatten().tolist()) for m in masks}
    assert len(corners) > 1, "the coarse grid is moved at random"


@pytest.mark.parametrize("name,norm", NETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_shap_is_captums_with_the_same_draws(name, norm, seed, monkeypatch):
    net, (x, y) = tiny_net(name=name, norm=norm, size=16 if name == "resnet_small" else 32), batch(1)
    if name != "resnet_small":
        x, y = batch(1, 32)
    references = torch.randn(5, *x.shape[1:], generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(5, (6,), generator=generator).numpy()
    alphas = torch.rand(6, generator=generator).numpy()
    monkeypatch.setattr("numpy.random.choice", lambda *_, **__: chosen)
    monkeypatch.setattr("numpy.random.uniform", lambda *_, **__: alphas)
    with as_it_comes():
        theirs = captum.attr.GradientShap(net).attribute(x, references, n_samples=6, stdevs=0.0, target=y)
    ours = attribution.gradient_shap(net, x, y, seed=seed, n_samples=6, references=references)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_gradient_shap_by_hand():
    net, (x, y) = tiny_net(), batch(2)
    references = batch(3, seed=4)[0]
    generator = torch.Generator().manual_seed(5)
    ends = references[torch.randint(3, (4,), generator=generator)]
    alphas = torch.rand(4, generator=generator)
    parts = [attribute("input_gradient", net, end + a * (x - end), y) * (x - end) for end, a in zip(ends, alphas)]
    ours = attribution.gradient_shap(net, x, y, seed=5, n_samples=4, references=references)
    torch.testing.assert_close(ours, torch.stack(parts).mean(0), rtol=1e-3, atol=1e-6)


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


@pytest.mark.parametrize("name,norm", NETS)
def test_integrated_gradients_are_complete(name, norm):
    net, (x, y) = tiny_net(name=name, norm=norm, size=32), batch(2, 32)
    baseline = batch(1, 32, seed=5)[0][0]
    difference = (net(x) - net(baseline[None])).gather(1, y[:, None])[:, 0].detach()
    errors = []
    for steps in (4, 256):
        maps = attribution.integrated_gradients(net, x, y, n_steps=steps, baseline=baseline)
        errors.append(((maps.flatten(1).sum(1) - difference).abs() / maps.abs().flatten(1).sum(1)).max())
    assert errors[1] < 5e-3 and errors[1] < errors[0]


def test_gradient_x_input_of_a_linear_model_is_complete_for_any_baseline():
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).eval()
    x, y = batch(2, 16)
    baseline = batch(1, 16, seed=5)[0][0]
    difference = (net(x) - net(baseline[None])).gather(1, y[:, None])[:, 0].detach()
    maps = attribution.gradient_x_input(net, x, y, baseline=baseline)
    torch.testing.assert_close(maps.flatten(1).sum(1), difference, rtol=1e-4, atol=1e-4)
    for quadrature in QUADRATURES:
        found = attribution.integrated_gradients(net, x, y, n_steps=5, quadrature=quadrature, baseline=baseline)
        torch.testing.assert_close(found, maps, rtol=1e-4, atol=1e-4)


def test_integrated_gradients_are_gausss_sum():
    net, (x, y) = tiny_net(), batch(3)
    nodes, weights = np.polynomial.legendre.leggauss(7)
    parts = [w / 2 * attribute("input_gradient", net, (t + 1) / 2 * x, y) for t, w in zip(nodes.tolist(), weights)]
    ours = attribution.integrated_gradients(net, x, y, n_steps=7, batch_size=5)
    torch.testing.assert_close(ours, x * sum(parts), rtol=1e-3, atol=1e-5)


def test_smoothgrad_without_noise_is_its_base():
    net, (x, y) = tiny_net(), batch()
    torch.testing.assert_close(
        attribution.smoothgrad(net, x, y, sigma=0.0, n_samples=3), attribute("input_gradient", net, x, y)
    )
    torch.testing.assert_close(
        attribution.smoothgrad_ig(net, x, y, sigma=0.0, n_samples=2, n_steps=5),
        attribution.integrated_gradients(net, x, y, n_steps=5),
    )
    assert attribution.vargrad(net, x, y, sigma=0.0, n_samples=3).abs().max() < 1e-12
    plain = attribute("input_gradient", net, x, y)
    near = attribution.smoothgrad(net, x, y, sigma=1e-6, n_samples=3)
    torch.testing.assert_close(near, plain, rtol=1e-2, atol=1e-3 * plain.abs().max().item())


def test_smoothgrad_and_vargrad_are_mean_and_variance_over_noisy_copies():
    net, (x, y) = tiny_net(), batch(2)
    noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(derive(7, INPUTS)))
    span = (x.flatten(1).max(1).values - x.flatten(1).min(1).values).view(-1, 1, 1, 1)
    maps = torch.stack([attribute("input_gradient", net, x + 0.2 * span * eps, y) for eps in noise])
    options = {"seed": 7, "sigma": 0.2, "n_samples": 4}
    torch.testing.assert_close(attribution.smoothgrad(net, x, y, **options), maps.mean(0))
    torch.testing.assert_close(attribution.vargrad(net, x, y, **options), maps.var(0), rtol=1e-3, atol=1e-12)


def test_smooth_wraps_any_method():
    net, (x, y) = tiny_net(), batch()
    smoothed = attribution.smooth("gradient_shap", n_samples=2)
    whole = smoothed(net, x, y, seed=np.int64(3))
    assert whole.shape == x.shape and not torch.equal(whole, smoothed(net, x, y, seed=4))
    seeds = []

    def spy(model, images, targets, *, seed=0, batch_size=None):
        seeds.append(seed)
        return images

    attribution.smooth(spy, n_samples=4)(net, x, y, seed=3, batch_size=5)
    assert set(seeds) == {3} and derive(3, INPUTS) != 3, "one seed for all copies, and not that of their noise"
    torch.testing.assert_close(smoothed(net, x, y, seed=3, batch_size=1), whole)


@pytest.mark.parametrize("name", list(METHODS))
def test_any_batch_size_gives_the_same_maps_and_n_images_are_n_times_one(name):
    net, (x, y) = tiny_net(), batch(4)
    whole = method(name)(net, x, y, seed=1)
    close = {"rtol": 1e-3, "atol": 1e-3 * whole.abs().max().item()}
    for size in (1, 3, 99):
        torch.testing.assert_close(method(name)(net, x, y, seed=1, batch_size=size), whole, **close)
    alone = [method(name)(net, x[i : i + 1], y[i : i + 1], seed=1) for i in range(len(x))]
    torch.testing.assert_close(torch.cat(alone), whole, **close)
    assert whole.shape in (x.shape, (len(x), 1, *x.shape[2:])) and whole.dtype == torch.float32


@pytest.mark.parametrize("name", list(METHODS))
def test_maps_are_signed_or_not_and_depend_on_the_seed_or_not_as_the_registry_says(name):
    net, (x, y) = tiny_net(), batch(3)
    first, again, other = (method(name)(net, x, y, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) != METHODS[name].stochastic
    assert ((first < 0).any() == METHODS[name].signed) and (first > 0).any()


@pytest.mark.parametrize("name", list(METHODS))
def test_model_and_input_are_left_as_they_were(name):
    net, (x, y) = tiny_net(), batch(2)
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    before, image = {k: v.clone() for k, v in net.state_dict().items()}, x.clone()
    attributes = [set(vars(module)) for module in net.modules()]
    method(name)(net, x, y)
    with torch.no_grad():
        method(name)(net, x, y)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not net.training and not x.requires_grad and x.grad is None and torch.equal(x, image)
    assert (net.conv1.weight.grad == 1).all() and net.fc.weight.grad is None
    assert not any(hooks_of(net))
    assert [set(vars(module)) for module in net.modules()] == attributes


@pytest.mark.parametrize("name", list(METHODS))
def test_nothing_is_left_behind_by_an_exception(name):
    net, (x, y) = tiny_net(), batch(2)
    with pytest.raises(ValueError, match="10 classes, 0 to 9"):
        method(name)(net, x, y + 90)
    assert not any(hooks_of(net))


@pytest.mark.parametrize("name", list(METHODS))
def test_the_registry_counts_passes_truly(name):
    entry, net, (x, y) = METHODS[name], tiny_net(), batch(2, 32)
    size = {"batch_size": 64}
    inference.facts(net, x)  # whose passes are those of the model, not of a method
    forwards, backwards = [], []

    def after(_module, _inputs, out):
        forwards.append(len(out))
        if out.requires_grad:
            out.register_hook(lambda grad: backwards.append(len(grad)))

    with hooked([net], after):
        entry.function(net, x, y, **size)
    once = {"deeplift": 1, "deeplift_shap": 10}.get(name, 0)  # references pass once, however many images there are
    assert sum(forwards) == entry.forwards * len(x) + once
    assert sum(backwards) / len(x) == entry.backwards
    assert entry.citation


def test_a_function_of_the_same_signature_is_a_method():
    x, y = batch()
    ours = attribute(lambda model, images, targets, *, seed=0, batch_size=None: images * (seed + 1), None, x, y, seed=2)
    assert torch.equal(ours, 3 * x)


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize(
    "change,message",
    [
        (lambda net, x, y: net.train(), "training mode"),
        (lambda net, x, y: net.bn1.train(), "training mode"),
        (lambda net, x, y: x.fill_(float("nan")), "not finite"),
        (lambda net, x, y: x.squeeze_(0), "expected images"),
        (lambda net, x, y: y.resize_(0), "expected images"),
        (lambda net, x, y: y.sub_(99), "10 classes, 0 to 9"),
        (lambda net, x, y: net.double(), "the images are torch.float32, the model is torch.float64"),
    ],
)
def test_bad_input_gets_a_sentence(name, change, message):
    net, (x, y) = tiny_net(), batch(1)
    change(net, x, y)
    with pytest.raises(ValueError, match=message):
        method(name)(net, x, y)


def test_more_bad_input_gets_a_sentence():
    net, (x, y) = tiny_net(), batch(2)
    for call, message in (
        (lambda: attribute("gradcat", net, x, y), "unknown method 'gradcat'; one of"),
        (lambda: attribute("input_gradient", net, x, y.float()), "int64"),
        (lambda: attribute("input_gradient", net, x[:0], y[:0]), "at least one"),
        (lambda: attribute("input_gradient", net, x, y + 99), "10 classes, 0 to 9"),
        (lambda: attribute("input_gradient", net, x + torch.inf, y), "not finite"),
        (lambda: attribute("lime", net, x, y.to(torch.uint8)), "int64, not torch.uint8"),
        (lambda: attribute("input_gradient", net, x, [1, 2]), "tensors, .* not list"),
        (lambda: attribute("input_gradient", net, x, y, batch_size=0), "batch_size=0"),
        (lambda: attribute("rise", net, x, y, batch_size=-1), "batch_size=-1"),
        (lambda: attribute("lime", net, x, y, seed=-1), "not negative, unlike -1"),
        (lambda: attribute("smoothgrad", net, x, y, layer="top"), "smoothgrad explains the input, not a layer"),
        (lambda: attribution.integrated_gradients(net, x, y, baseline=x[0, :1]), "do not go with images"),
        (lambda: attribution.integrated_gradients(net, x, y, baseline=0.5), "baseline of shape float do not go"),
        (lambda: attribution.gradient_x_input(net, x, y, baseline=x[0, :1]), "do not go with images"),
        (lambda: attribution.deeplift(net, x, y, baseline=x[0, :, :4]), "do not go with images"),
        (lambda: attribution.deeplift(net, x, y, baseline=x[0] * torch.nan), "not finite"),
        (lambda: attribution.gradient_shap(net, x, y, n_samples=0), "at least one sample"),
        (lambda: attribution.rise(net, x, y, n_masks=0), "at least one mask, not n_masks=0"),
        (lambda: attribution.lime(net, x, y, n_samples=1), "at least two samples, not 1"),
        (lambda: attribution.kernel_shap(net, x, y, n_samples=9, n_segments=50), "cannot tell .* superpixels apart"),
        (lambda: attribute("input_gradient", net.conv1, x, y), r"expected logits \(n, classes\)"),
        (lambda: attribution.integrated_gradients(net, x, y, quadrature="simpson"), "unknown quadrature 'simpson'"),
        (lambda: attribution.integrated_gradients(net, x, y, n_steps=0), "at least two steps"),
        (lambda: attribution.gradient_shap(net, x, y, references=x[:, :1]), "do not go with images"),
        (lambda: attribution.smoothgrad(net, x, y, sigma=-1.0), "sigma >= 0"),
        (lambda: attribution.vargrad(net, x, y, n_samples=1), "at least two samples"),
        (lambda: attribution.lime(net, x, y, n_segments=1), "at least two superpixels"),
        (lambda: attribution.kernel_shap(net, x, y, n_samples=3), "at least four samples"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_images_per_pass_follow_the_pixels_and_the_free_memory(monkeypatch):
    net = tiny_net()
    monkeypatch.setattr(inference, "free_memory", lambda device: 10**12)
    assert inference.fitting(net, torch.zeros(300, 3, 32, 32)) == 128
    assert inference.fitting(net, torch.zeros(300, 3, 64, 64)) == 32
    per_image = inference.facts(net, torch.zeros(1, 3, 64, 64)).memory
    monkeypatch.setattr(inference, "free_memory", lambda device: 11 * per_image)
    assert inference.fitting(net, torch.zeros(300, 3, 64, 64)) == 5
    monkeypatch.setattr(inference, "free_memory", lambda device: 0)
    assert inference.fitting(net, torch.zeros(300, 3, 64, 64)) == 1


def test_scarce_memory_makes_small_passes_and_the_same_integrated_gradients(monkeypatch):
    net, (x, y) = tiny_net(size=128), batch(2, 128)
    whole, largest = attribute("integrated_gradients", net, x, y), []
    three = 2 * 3 * inference.facts(net, x[:1]).memory
    monkeypatch.setattr(inference, "free_memory", lambda device: three)
    with hooked([net], lambda _module, _inputs, out: largest.append(len(out))):
        again = attribute("integrated_gradients", net, x, y)
    assert max(largest) <= 3
    torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-6)


def test_free_memory_is_a_plausible_number():
    assert 2**20 < inference.free_memory(torch.device("cpu")) < 2**46


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", list(METHODS))
def test_models_of_other_precision_give_finite_float32_maps(name, dtype):
    net, (x, y) = tiny_net().to(dtype), batch(2)
    maps = method(name)(net, x.to(dtype), y)
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all()
    if dtype == torch.float64:
        whole = method(name)(tiny_net(), x, y)
        assert (maps - whole).norm() < 1e-2 * whole.norm()


@pytest.mark.parametrize("channels,h,w", [(1, 16, 16), (4, 16, 24), (3, 24, 16)])
@pytest.mark.parametrize("name", list(METHODS))
def test_other_channels_and_sides(name, channels, h, w):
    net = tiny_net(in_channels=channels)
    x, y = batch(2, 24)
    x = torch.cat([x, x], 1)[:, :channels, :h, :w].contiguous()
    maps = method(name)(net, x, y)
    assert maps.shape in (x.shape, (2, 1, h, w)) and torch.isfinite(maps).all()


class InPlace(nn.Module):
    """Two ReLUs that work in place, as torchvision's do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True),
            nn.Flatten(), nn.Linear(8 * 25, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("name", list(METHODS))
def test_relus_that_work_in_place_give_the_same_maps(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = InPlace().eval()
    x, y = batch(2)
    options = {"layer": "net.4"} if "gradcam" in name else {}
    maps = method(name)(model, x, y, **options)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.testing.assert_close(maps, method(name)(model, x, y, **options), rtol=1e-3, atol=1e-6)


class SumPool(nn.Module):
    """One convolution, ReLU, sum over the picture (Adebayo et al. 2018, section 5)."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = nn.Parameter(kernel)

    def forward(self, x):
        return nn.functional.conv2d(x, self.kernel, padding=1).relu().sum((2, 3))


@pytest.mark.parametrize("seed", range(3))
def test_a_sum_pool_network_has_the_papers_closed_form_with_a_strict_inequality(seed):
    """Gradient: the sum of the kernel's values where their outputs are on; the paper's >= counts flat zeros as on."""
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(1, 1, 3, 3, generator=generator)
    x = torch.rand(2, 1, 12, 12, generator=generator)
    x[:, :, :6] = 0  # flat: outputs are zero there
    net, y = SumPool(kernel).eval(), torch.zeros(2, dtype=torch.int64)
    gradient = attribute("input_gradient", net, x, y)
    outputs = nn.functional.conv2d(x, kernel, padding=1)
    closed = {
        name: nn.functional.conv_transpose2d(on.float(), kernel, padding=1)
        for name, on in (("strict", outputs > 0), ("paper", outputs >= 0))
    }
    by_hand = sum(
        (outputs[:, :, 6 - k, 7 - m] > 0) * kernel[0, 0, 1 + k, 1 + m] for k in (-1, 0, 1) for m in (-1, 0, 1)
    )
    torch.testing.assert_close(gradient, closed["strict"])
    torch.testing.assert_close(gradient[:, :, 6, 7], by_hand)
    assert not torch.allclose(gradient[:, :, :5], closed["paper"][:, :, :5])


def test_a_class_beyond_the_last_gets_a_sentence():
    net, (x, y) = tiny_net(), batch(1)
    with pytest.raises(ValueError, match="targets run from 10 to 10; the model has 10 classes, 0 to 9"):
        attribution.input_gradient(net, x, y.fill_(10))
