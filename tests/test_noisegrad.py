"""NoiseGrad: weights come back, noise is what it says, sigma = 0 is the method, a linear model has a closed form."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import batch, tiny_net
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saliency_lib import attribution, noisegrad
from saliency_lib.attribution import METHODS, smooth
from saliency_lib.inference import accuracy
from saliency_lib.noisegrad import accuracy_drop, choose_sigma, fusiongrad, perturbed, variants
from saliency_lib.runtime.seeds import INPUTS, WEIGHTS, derive, seeded

NG = noisegrad.noisegrad


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    now = model.state_dict()
    bits = [[d[name].reshape(-1).numpy().tobytes() for name in before] for d in (now, before)]
    return bits[0] == bits[1]


def linear(n=12, classes=3):
    with seeded(5):
        return nn.Sequential(nn.Flatten(), nn.Linear(n, classes)).eval()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Interrupted])
def test_weights_come_back_bit_for_bit(kind, error):
    net = tiny_net().to(memory_format=torch.channels_last)
    before, addresses = state(net), [p.data_ptr() for p in net.parameters()]
    with pytest.raises(error) if error else nullcontext(), perturbed(net, 0.3, generator(), kind=kind) as shaken:
        assert shaken is net
        assert all(not torch.equal(p, before[name]) for name, p in net.named_parameters() if before[name].any())
        if error:
            raise error
    assert same(net, before) and addresses == [p.data_ptr() for p in net.parameters()]
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_weights_come_back_when_the_noise_itself_fails(monkeypatch):
    net, calls = tiny_net(), []
    before, real = state(net), torch.addcmul

    def fails(*arguments, **options):
        calls.append(1)
        if len(calls) > 3:
            raise MemoryError
        return real(*arguments, **options)

    monkeypatch.setattr(torch, "addcmul", fails)
    with pytest.raises(MemoryError), perturbed(net, 0.3, generator()):
        pass
    assert len(calls) == 4 and same(net, before)


def test_buffers_modes_hooks_and_frozen_parameters_are_left_alone():
    net = tiny_net()
    net.fc.weight.requires_grad_(False)
    before = state(net)
    buffers = dict(net.named_buffers())
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules()]
    with perturbed(net, 0.5, generator()):
        assert all(torch.equal(b, before[name]) for name, b in buffers.items())
        assert not any(m.training for m in net.modules()) and not torch.equal(net.fc.weight, before["fc.weight"])
    assert hooks == [len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules()]
    assert same(net, before) and not net.fc.weight.requires_grad


def test_shared_parameters_are_shaken_once():
    with seeded(0):
        shared = nn.Linear(200, 200)
    net = nn.Sequential(shared, shared).eval()
    own = shared.weight.detach().clone()
    with perturbed(net, 0.1, generator()):
        assert abs(((shared.weight / own - 1).std() / 0.1).item() - 1) < 0.02


@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
def test_the_noise_is_normal_with_the_sigma_it_says(kind):
    with seeded(0):
        net = nn.Linear(300, 300).eval()
    own = net.weight.detach().clone()
    with perturbed(net, 0.2, generator(), kind=kind):
        noise = (net.weight.detach() / own - 1 if kind == "multiplicative" else net.weight.detach() - own) / 0.2
    n = noise.numel()
    assert abs(noise.mean()) < 4 / n**0.5 and abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((noise.abs() < 1).float().mean() - 0.6827) < 4 * (0.68 * 0.32 / n) ** 0.5


def test_a_pattern_chooses_the_parameters():
    net = tiny_net()
    before = state(net)
    with perturbed(net, 0.3, generator(), pattern="layer4*weight"):
        moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all(name.startswith("layer4") and name.endswith("weight") for name in moved)
    assert moved == {name for name in before if name.startswith("layer4") and name.endswith("weight")}


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda net: perturbed(net, -0.1, generator()).__enter__(), "finite sigma >= 0, not -0.1"),
        (lambda net: perturbed(net, float("nan"), generator()).__enter__(), "finite sigma >= 0, not nan"),
        (
            lambda net: perturbed(net, 0.1, generator(), kind="salt").__enter__(),
            r"unknown kind of noise 'salt'; one of",
        ),
        (
            lambda net: perturbed(net, 0.1, generator(), pattern="head*").__enter__(),
            "no parameter's name matches 'head",
        ),
        (lambda net: NG("input_gradient", 0.1, 0), "at least one network, not n=0"),
        (lambda net: NG("input_gradient", -1.0), "finite sigma >= 0, not -1.0"),
        (lambda net: NG("gradient", 0.1), "unknown method 'gradient'; one of"),
        (lambda net: fusiongrad("input_gradient", 0.1, -0.1), "finite sigma >= 0 and at least one sample, not -0.1"),
        (lambda net: variants("input_gradient", 0.1, n_grid=0), "at least one sample, not 0.075 and 0"),
        (lambda net: NG(METHODS["input_gradient"], 0.1), r"a name or a function, not Method; METHODS\[name\].function"),
        (lambda net: choose_sigma(net, *batch(), drop=1.5), "need 0 < drop < 1"),
        (lambda net: NG("input_gradient", 0.1)(net.train(), *batch()), "training mode"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_net())


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.forwards <= 50])
def test_sigma_zero_is_the_plain_method_exactly(name):
    net, (x, y) = tiny_net(), batch(2)
    plain = attribution.attribute(name, net, x, y, seed=3)
    for wrapped in (NG(name, 0.0, 3), fusiongrad(name, 0.0, 0.0, 2, 2)):
        assert torch.equal(attribution.attribute(wrapped, net, x, y, seed=3), plain)


@pytest.mark.parametrize("name", ["input_gradient", "gradcam", "integrated_gradients", "gradient_shap", "deeplift"])
def test_a_small_sigma_is_nearly_the_plain_method(name):
    """So that sigma = 0 is the limit and not another branch."""
    net, (x, y) = tiny_net(), batch(2)
    plain = attribution.attribute(name, net, x, y, seed=3)
    for wrapped in (NG(name, 1e-6, 3), fusiongrad(name, 1e-6, 0.0, 2, 2)):
        near = attribution.attribute(wrapped, net, x, y, seed=3)
        torch.testing.assert_close(near, plain, rtol=1e-2, atol=1e-3 * plain.abs().max().item())


def test_noisegrad_is_the_mean_over_the_shaken_networks():
    net, (x, y) = tiny_net(), batch()
    draws, maps = generator(derive(7, WEIGHTS)), []
    for _ in range(4):
        other = copy.deepcopy(net)
        with torch.no_grad():
            for p in other.parameters():
                p.mul_(1 + 0.2 * torch.randn(p.shape, generator=draws))
        maps.append(attribution.attribute("input_gradient", other, x, y))
    ours = NG("input_gradient", 0.2, 4)(net, x, y, seed=7)
    torch.testing.assert_close(ours, torch.stack(maps).mean(0), rtol=1e-3, atol=1e-5)


def test_fusiongrad_is_the_double_mean_of_equation_3():
    net, (x, y) = tiny_net(), batch()
    ours = fusiongrad("input_gradient", 0.2, 0.1, n_models=3, n_inputs=4)(net, x, y, seed=7)
    noise = torch.randn(4, *x.shape[1:], generator=generator(derive(7, INPUTS)))
    spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    draws, total = generator(derive(7, WEIGHTS)), 0
    for _ in range(3):
        with perturbed(net, 0.2, draws):
            for u in noise:
                total = total + attribution.attribute("input_gradient", net, x + 0.1 * spread * u, y)
    torch.testing.assert_close(ours, total / 12, rtol=1e-3, atol=1e-5)


def test_a_linear_models_noisegrad_is_its_weights_times_the_mean_draw():
    net = linear()
    x, y = torch.randn(6, 3, 2, 2, generator=generator(1)), torch.tensor([0, 1, 2, 0, 1, 2])
    draws, mean = generator(derive(0, WEIGHTS)), 0
    for _ in range(5):
        mean = mean + torch.randn(3, 12, generator=draws) / 5
        torch.randn(3, generator=draws)  # the bias's
    expected = (net[1].weight * (1 + 0.3 * mean))[y].view_as(x)
    torch.testing.assert_close(NG("input_gradient", 0.3, 5)(net, x, y), expected)
    many = NG("input_gradient", 0.3, 4000)(net, x[:3], y[:3])
    assert ((many / net[1].weight[y[:3]].view_as(many) - 1).abs() < 5 * 0.3 / 4000**0.5).all()


@given(seed=st.integers(0, 1000), size=st.integers(1, 6))
def test_maps_depend_on_the_seed_and_not_on_the_batch(seed, size):
    net = linear()
    x, y = torch.randn(6, 3, 2, 2, generator=generator(1)), torch.tensor([0, 1, 2, 0, 1, 2])
    for method in (NG("gradient_x_input", 0.2, 3), fusiongrad("gradient_x_input", 0.2, 0.1, 2, 2)):
        all_at_once = method(net, x, y, seed=seed)
        torch.testing.assert_close(method(net, x, y, seed=seed, batch_size=size), all_at_once)
        torch.testing.assert_close(method(net, x[:2], y[:2], seed=seed), all_at_once[:2])
        assert not torch.equal(method(net, x, y, seed=seed + 1), all_at_once)


def test_the_draws_of_weights_of_inputs_and_of_the_method_differ(monkeypatch):
    """The same numbers in both would tie the two kinds of noise together."""
    seeds, real = [], torch.Generator.manual_seed

    def spy(model, images, targets, *, seed=0, batch_size=None):
        seeds.append(seed)
        return torch.zeros_like(images)

    class Noted(torch.Generator):
        def manual_seed(self, seed):
            seeds.append(seed)
            return real(self, seed)

    monkeypatch.setattr(torch, "Generator", Noted)
    fusiongrad(spy, 0.1, 0.1, 2, 2)(linear(), torch.ones(1, 3, 2, 2), torch.tensor([0]), seed=11)
    assert set(seeds) == {11, derive(11, WEIGHTS), derive(11, INPUTS)} and len(set(seeds)) == 3


def test_noise_does_not_compound_over_draws_or_calls():
    net, (x, y) = tiny_net(), batch()
    before, method = state(net), NG("input_gradient", 0.2, 5)
    first = method(net, x, y)
    assert same(net, before) and torch.equal(method(net, x, y), first)


def test_an_exception_in_the_method_leaves_the_model_whole():
    net, calls = tiny_net(), []
    before = state(net)

    def fails(*_, **__):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("in the third network")

        return torch.zeros(1)

    with pytest.raises(RuntimeError, match="in the third network"):
        NG(fails, 0.3, 5)(net, *batch())
    assert same(net, before)


def test_the_four_variants_are_the_papers():
    net, (x, y) = tiny_net(), batch()
    found = {name: f(net, x, y, seed=2) for name, f in variants("input_gradient", 0.2, 0.1, n=3).items()}
    base = METHODS["input_gradient"].function
    expected = {
        "baseline": base(net, x, y),
        "smoothgrad": smooth(base, 0.1, 3)(net, x, y, seed=2),
        "noisegrad": NG("input_gradient", 0.2, 3)(net, x, y, seed=2),
        "fusiongrad": fusiongrad("input_gradient", 0.1, 0.05, 3, 3)(net, x, y, seed=2),
    }
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Flips(nn.Module):
    """Class 1 where w x > b; its accuracy under noise on w alone is known."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, x):
        score = self.w * x.flatten(1).mean(1)
        return torch.stack([-score, score], 1)


def test_accuracy_drop_is_the_closed_form():
    """A draw of N(1, sigma^2) below zero flips every answer: relative drop 2, with probability Phi(-1 / sigma)."""
    x = torch.cat([torch.ones(5, 1, 2, 2), -torch.ones(5, 1, 2, 2)])
    y = torch.tensor([1] * 5 + [0] * 5)
    drops = accuracy_drop(Flips().eval(), x, y, 1.0, n_draws=400)
    assert set(drops.tolist()) == {0.0, 2.0}
    share = (drops == 2).double().mean().item()
    assert abs(share - 0.1587) < 4 * (0.1587 * 0.8413 / 400) ** 0.5
    assert not accuracy_drop(Flips().eval(), x, y, 0.0, n_draws=3).any()


def test_choose_sigma_finds_the_closed_form():
    """Mean drop 2 Phi(-1 / sigma) is 20 % at sigma = -1 / Phi^-1(0.1) = 0.780."""
    x = torch.cat([torch.ones(5, 1, 2, 2), -torch.ones(5, 1, 2, 2)])
    y = torch.tensor([1] * 5 + [0] * 5)
    choice = choose_sigma(Flips().eval(), x, y, 0.2, n_draws=300)
    error = (0.1 * 0.9 / 300) ** 0.5 * 2 / 0.577  # of the mean drop, over its slope 2 phi(1 / sigma) / sigma^2
    assert abs(choice.sigma.value - 0.780) < 4 * error
    assert 0.5 < (choice.sigma.high - choice.sigma.low) / (2 * 1.96 * error) < 2
    assert choice.sigmas[0] == 0 and list(choice.sigmas) == sorted(choice.sigmas)
    assert choice.drops.shape == (len(choice.sigmas), 300) and not choice.drops[0].any()


@pytest.fixture(scope="module")
def trained():
    from saliency_lib import data, training
    from saliency_lib.training import Recipe

    train, val = (data.load("digits", split, n=300) for split in ("train", "val"))
    net = tiny_net(name="convnet-w8-d2-max", in_channels=1, size=8)
    training.fit(net, train, Recipe(epochs=12, lr=0.01), 0)
    return net, val.inputs(), val.labels


def test_the_chosen_sigma_costs_what_was_asked_for(trained):
    net, x, y = trained
    before = state(net)
    choice = choose_sigma(net, x, y, n_draws=20, seed=1)
    at = accuracy_drop(net, x, y, choice.sigma.value, n_draws=20, seed=1).mean().item()
    assert abs(at - 0.05) < 0.01 and same(net, before)
    assert choice.sigma.low < choice.sigma.value < choice.sigma.high
    again = choose_sigma(net, x, y, n_draws=20, seed=1)
    assert again.sigma == choice.sigma and torch.equal(again.drops, choice.drops)
    assert choose_sigma(net, x, y, 0.2, n_draws=20, seed=1).sigma.value > choice.sigma.value


def test_small_weights_need_small_noise():
    """Additive noise in units of weights that are far below the level at which the search begins."""
    x, y = torch.cat([torch.ones(5, 1, 2, 2), -torch.ones(5, 1, 2, 2)]), torch.tensor([1] * 5 + [0] * 5)
    net = Flips().eval()
    with torch.no_grad():
        net.w.fill_(0.003)
    choice = choose_sigma(net, x, y, 0.2, n_draws=300, kind="additive")
    assert abs(choice.sigma.value / 0.003 - 0.780) < 4 * (0.1 * 0.9 / 300) ** 0.5 * 2 / 0.577


@pytest.mark.parametrize("call", [choose_sigma, accuracy_drop])
def test_a_network_in_training_mode_is_refused_before_it_is_touched(call):
    net = tiny_net().train()
    before = state(net)
    with pytest.raises(ValueError, match="training mode"):
        call(net, *batch(), 0.1)
    assert same(net, before)


def test_noise_of_any_kind_and_place_can_be_chosen(trained):
    net, x, y = trained
    for options in ({"kind": "additive"}, {"pattern": "*weight"}):
        choice = choose_sigma(net, x, y, n_draws=10, **options)
        draws, left = generator(1), []
        for _ in range(20):
            with perturbed(net, choice.sigma.value, draws, **options):
                left.append(accuracy(net, x, y))
        drop = 1 - (np.mean(left) - 0.1) / (accuracy(net, x, y) - 0.1)
        assert abs(drop - 0.05) < 0.03


def test_large_noise_leaves_what_guessing_gives(trained):
    net, x, y = trained
    drops = accuracy_drop(net, x, y, 30.0, n_draws=60).numpy()
    assert abs(drops.mean() - 1) < 4 * drops.std() / np.sqrt(60)


def test_a_network_that_only_guesses_has_no_sigma():
    net, (x, y) = tiny_net(), batch(40)
    with pytest.raises(ValueError, match="leaves nothing to lose against guessing"):
        choose_sigma(net, x, (y * 0 + net(x).argmin(1)).detach())
    with pytest.raises(ValueError, match="on 1 classes"):
        choose_sigma(net, x[:1], net(x[:1]).argmax(1))


class Deaf(Flips):
    """Its parameter does nothing."""

    def forward(self, x):
        score = x.flatten(1).mean(1) + 0 * self.w
        return torch.stack([-score, score], 1)


def test_a_network_that_no_noise_harms_is_named():
    x, y = torch.cat([torch.ones(5, 1, 2, 2), -torch.ones(5, 1, 2, 2)]), torch.tensor([1] * 5 + [0] * 5)
    with pytest.raises(ValueError, match="costs too small a share of the accuracy to tell where 0.05 is"):
        choose_sigma(Deaf().eval(), x, y, n_draws=2)


def test_the_crossing_is_read_off_a_curve_that_was_made_monotone(monkeypatch):
    mean = {0.0: 0.0, 0.1: 0.06, 0.2: 0.04, 0.4: 0.2}  # at 0.1 and 0.2 an unlucky and a lucky draw: 0.05 both
    looked_at = {sigma: torch.full((3,), drop, dtype=torch.float64) for sigma, drop in mean.items()}
    monkeypatch.setattr(noisegrad, "_looked_at", lambda *_: looked_at)
    x, y = torch.cat([torch.ones(5, 1, 2, 2), -torch.ones(5, 1, 2, 2)]), torch.tensor([1] * 5 + [0] * 5)
    assert choose_sigma(Flips().eval(), x, y, 0.045, n_draws=3).sigma.value == pytest.approx(0.09)
