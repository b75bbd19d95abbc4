"""Dreams: one member is lucent's own, many are their mean, and everything is as it was afterwards."""

import copy
import random
import weakref

import numpy as np
import pytest
import torch
from conftest import tiny_net
from torch import nn

from saliency_lib import dreams
from saliency_lib.dreams import MeanObjective, dream, objectives, param, transform, views
from saliency_lib.noisegrad import perturbed
from saliency_lib.runtime.seeds import WEIGHTS, derive, seeded

MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
SHORT = {"size": 24, "mean": MEAN, "std": STD, "steps": 3}


def net(seed=0, **options):
    return tiny_net(seed, size=24, **options)


def of_lucent(model, objective, seed=0, size=24, channels=None, mean=MEAN, std=STD, steps=3):
    """The same by lucent alone, which leaves hooks behind: on a copy."""
    from lucent.optvis import render  # quietly, now that the library has imported it

    state = np.random.get_state()
    np.random.seed(seed)
    mean, std = (v.view(-1, 1, 1).to(transform.device) for v in (mean, std))
    normal = [*transform.standard_transforms, lambda x: (x - mean) / std]
    with seeded(seed):
        found = render.render_vis(
            copy.deepcopy(model).to(transform.device), objective, lambda: param.image(size, channels=channels),
            transforms=normal, thresholds=(steps,), preprocess=False, progress=False, show_image=False,
            fixed_image_size=size,
        )  # fmt: skip
    np.random.set_state(state)
    return torch.from_numpy(found[-1][0]).permute(2, 0, 1)


@pytest.mark.parametrize("seed", [0, 5])
def test_one_member_gives_what_lucent_gives(seed):
    model = net()
    found = dream([model], 3, **SHORT, seed=seed)
    assert found.shape == (3, 24, 24) and found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(found, of_lucent(model, "fc:3", seed), rtol=0, atol=1e-5)


@pytest.mark.parametrize("objective", [
    "conv1:1",
    "layer2_0_conv1:3",
    objectives.neuron("layer1", 2),
    objectives.channel("fc", 1) + 0.1 * objectives.neuron("layer4", 2),
])  # fmt: skip
def test_any_objective_of_lucent(objective):
    model = net()
    found = dream([model], 0, **SHORT, objective=objective)
    torch.testing.assert_close(found, of_lucent(model, objective), rtol=0, atol=1e-5)
    assert not torch.allclose(found, dream([model], 0, **SHORT), atol=1e-3)


def test_grey_pictures():
    model, mean, std = net(in_channels=1), torch.tensor([0.3]), torch.tensor([0.2])
    found = dream([model], 3, 24, mean, std, 3)
    assert found.shape == (1, 24, 24)
    expected = of_lucent(model, "fc:3", channels=1, mean=mean, std=std)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_several_targets_are_each_what_it_would_be_alone():
    models = [net(k) for k in range(2)]
    together = dream(models, [4, 0, 7], **SHORT)
    alone = torch.stack([dream(models, target, **SHORT) for target in (4, 0, 7)])
    assert together.shape == (3, 3, 24, 24)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_an_objective_sees_all_pictures():
    found = dream([linear()], [0, 0], 6, MEAN, STD, 3, objective=lambda of: -(of("labels")[1] - of("labels")[0])[2])
    assert not torch.allclose(found[0], found[1], atol=1e-2)


class Mean(nn.Module):
    """Mean logits of several networks, as one."""

    def __init__(self, models):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x):
        return torch.stack([model(x) for model in self.models]).mean(0)


def test_many_are_the_network_of_their_mean_logits():
    models = [net(k) for k in range(3)]
    torch.testing.assert_close(dream(models, 2, **SHORT), dream([Mean(models).eval()], 2, **SHORT), rtol=0, atol=1e-5)


# A linear model's gradient is its weights.


def linear(seed=0, size=6):
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, 4)).eval()


def uphill(models, times=1, **options):
    """What is added to the pictures for class 2, at each of some steps: (times, 3, 6, 6)."""
    wanted = MeanObjective(models, "labels:2", **options)
    return -torch.cat([wanted.gradient(torch.zeros(1, 3, 6, 6)) for _ in range(times)])


def weights_of(model):
    """Weights of class 2 as pixels."""
    return model[1].weight[2].detach().view(3, 6, 6)


def shaken(model, generator, n):
    """Mean weights of class 2 over n draws of noise."""
    total = 0
    for _ in range(n):
        with perturbed(model, 0.3, generator):
            total = total + weights_of(model)
    return total / n


def test_linear_models_dream_of_their_mean_weights():
    models = [linear(k) for k in range(3)]
    torch.testing.assert_close(uphill(models)[0], sum(map(weights_of, models)) / 3)


def test_noise_is_new_in_every_step():
    models, generators = (
        [linear(k) for k in range(2)],
        [torch.Generator().manual_seed(derive(7, WEIGHTS, k)) for k in (0, 1)],
    )
    expected = [sum(shaken(*each, 4) for each in zip(models, generators)) / 2 for _ in range(3)]
    torch.testing.assert_close(uphill(models, 3, seed=7, sigma=0.3, n_draws=4), torch.stack(expected))
    assert torch.equal(uphill(models, sigma=0.0, n_draws=5), uphill(models)), "without noise there is nothing to draw"


def test_a_random_subset_takes_part_in_each_step():
    models, seen = [linear(k) for k in range(5)], []
    for k, model in enumerate(models):
        model.register_forward_hook(lambda *_, k=k: seen.append(k))
    uphill(models, 40, subset=2)
    pairs = [tuple(sorted(seen[i : i + 2])) for i in range(0, 80, 2)]
    assert len(seen) == 80 and all(a != b for a, b in pairs)
    assert len(set(pairs)) > 6 and set(seen) == set(range(5))
    torch.testing.assert_close(uphill(models, subset=5), uphill(models))
    one = uphill(models, subset=1)[0]
    assert sum(torch.allclose(one, weights_of(model), atol=1e-6) for model in models) == 1
    assert len({uphill(models, subset=1, seed=seed).sum().item() for seed in range(8)}) > 1


# What models see.


def test_views_are_what_a_model_sees_in_its_first_steps(monkeypatch):
    model, seen = net(), []
    start = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].detach()))
    monkeypatch.setattr(dreams, "RATE", 0.0)
    monkeypatch.setattr(dreams, "_start", lambda *_: ([start], lambda: start))
    dream([model], 1, 24, MEAN, STD, 3, seed=4, input_size=16)
    found = views(start.detach(), MEAN, STD, 16, n=3, seed=4)
    assert found.shape == (3, 1, 3, 16, 16)
    torch.testing.assert_close(found, torch.stack(seen))


def test_pictures_get_the_same_views():
    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    before = everyones_state()
    found = views(torch.cat([picture, picture]), MEAN, STD, 32, n=4)
    assert torch.equal(found[:, 0], found[:, 1]) and not torch.allclose(found[0], found[1])
    assert everyones_state() == before
    with pytest.raises(ValueError, match=r"picture\[None\] makes one of one"):
        views(picture[0], MEAN, STD, 32)


def test_changes_are_made_where_lucent_has_its_tensors(monkeypatch):
    """On a machine with a GPU that is where it is, whatever the pictures and models are on; "meta" stands for it."""
    devices = []

    def look(pictures):
        devices.append(pictures.device.type)
        return torch.zeros(pictures.shape)

    monkeypatch.setattr(transform, "device", torch.device("meta"))
    monkeypatch.setattr(transform, "standard_transforms", [look])
    found = views(torch.rand(2, 3, 24, 24, generator=torch.Generator()), MEAN, STD, 24, n=2)
    assert devices == ["meta"] * 2 and found.device.type == "cpu"


# What comes back, and what is left behind.


def test_the_seed_decides():
    model = net()
    assert torch.equal(dream([model], 1, **SHORT, seed=3), dream([model], 1, **SHORT, seed=3))
    assert not torch.allclose(dream([model], 1, **SHORT, seed=3), dream([model], 1, **SHORT, seed=4), atol=1e-2)


def state(models):
    return [
        ({name: value.clone() for name, value in model.state_dict().items()},
         [(module.training, len(module._forward_hooks)) for module in model.modules()],
         [(p.requires_grad, p.grad) for p in model.parameters()])
        for model in models
    ]  # fmt: skip


def same(models, before):
    for (weights, modules, gradients), (weights_before, *rest) in zip(state(models), before, strict=True):
        assert all(torch.equal(weights[name], value) for name, value in weights_before.items())
        assert [modules, gradients] == rest


def everyones_state():
    return torch.random.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


@pytest.mark.parametrize("options", [{}, {"subset": 1}, {"sigma": 0.2, "n_draws": 2}])
def test_nothing_is_left_behind(options):
    models = [net(k) for k in range(2)]
    before, randomness = state(models), everyones_state()
    dream(models, 1, **SHORT, **options)
    same(models, before)
    assert everyones_state() == randomness


def test_a_model_may_change_its_input_in_place():
    with seeded(0):
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 24**2, 10)).eval()
    torch.testing.assert_close(dream([model], 1, **SHORT), of_lucent(model, "2:1"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_ctrl_c_leaves_every_model_as_it_was(sigma):
    models, calls = [net(k) for k in range(2)], []

    def stop(*_):
        calls.append(1)
        if len(calls) == 3:  # in the middle of the third step, with hooks on and weights shaken
            raise KeyboardInterrupt

    handle = models[1].layer2.register_forward_hook(stop)
    before, randomness = state(models), everyones_state()
    with pytest.raises(KeyboardInterrupt):
        dream(models, 1, 24, MEAN, STD, 100, sigma=sigma)
    same(models, before)
    assert everyones_state() == randomness and len(calls) == 3
    handle.remove()


def test_an_error_leaves_nothing_behind_either():
    model = net()
    before, randomness = state([model]), everyones_state()
    with pytest.raises(ValueError, match="no layer 'nowhere' took part; one of conv1"):
        dream([model], 1, **SHORT, objective="nowhere:1", sigma=0.3)
    same([model], before)
    assert everyones_state() == randomness


def test_activations_of_one_model_are_gone_when_the_next_takes_its_turn():
    models, kept, alive = [net(k) for k in range(3)], [], []
    for model in models:
        model.register_forward_pre_hook(lambda *_: alive.append(sum(ref() is not None for ref in kept)))
        model.get_submodule("conv1").register_forward_hook(lambda _m, _i, out: kept.append(weakref.ref(out)))
    dream(models, 1, **SHORT)
    assert len(alive) == 3 * 3 and len(kept) == len(alive) and max(alive) == 0


@pytest.mark.parametrize("change,message", [
    ({"models": []}, "at least one model and one target, not 0 and 1"),
    ({"target": []}, "at least one model and one target, not 1 and 0"),
    ({"models": [tiny_net().train()]}, r"call model.eval\(\) first"),
    ({"target": 10}, "asks for what its layer does not have: index 10"),
    ({"models": net()}, r"models are a list; for one write \[resnetsmall\]"),
    ({"models": [nn.Sequential(nn.Flatten(), nn.Linear(3 * 24**2, 4)).eval()], "objective": "1:7"}, "does not have"),
    ({"steps": 0}, "size, input_size, steps and n_draws are at least 1, not 0"),
    ({"size": -1}, "are at least 1, not -1"),
    ({"input_size": 0}, "are at least 1, not 0"),
    ({"n_draws": 0, "sigma": 0.1}, "are at least 1, not 0"),
    ({"sigma": -0.1}, "finite sigma >= 0, not -0.1"),
    ({"subset": 3}, "a subset of 1 models has 1 to 1, not 3"),
    ({"std": torch.tensor([0.2])}, r"mean and std \(c,\), one value per channel"),
    ({"std": torch.tensor([0.2, 0.0, 0.2])}, "std above 0"),
    ({"objective": ""}, "an objective is 'layer:channel'.*not ''"),
    ({"objective": "conv1"}, "an objective is 'layer:channel'.*not 'conv1'"),
    ({"objective": "conv1:999"}, "asks for what its layer does not have: index 999"),
    ({"objective": objectives.diversity("conv1")}, "not one number that depends on the pictures"),
    ({"objective": lambda of: of("labels").sum() * float("nan")}, "the objective is nan"),
])  # fmt: skip
def test_bad_input_gets_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        dream(**({"models": [net()], "target": 1} | SHORT | change))


@pytest.mark.parametrize("target", [-1, 1.7])
def test_targets_are_numbers_of_classes(target):
    with pytest.raises(ValueError, match="targets are numbers of classes from 0"):
        dream([tiny_net()], target, 16, torch.zeros(3), torch.ones(3), steps=1)


class Other(nn.Module):
    """A network in a mapping."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return {"logits": self.net(x)}


def test_dreams_of_networks_with_other_outputs_and_numbers_also_where_gradients_are_off():
    net, options = tiny_net(0), {"size": 16, "mean": torch.zeros(3), "std": torch.ones(3), "steps": 2}
    plain = dream([net], 1, **options)
    with torch.no_grad():
        assert torch.equal(plain, dream([net], 1, **options))
    assert torch.equal(plain, dream([Other(net).eval()], 1, **options))
    torch.testing.assert_close(plain, dream([copy.deepcopy(net).double()], 1, **options), rtol=0, atol=1e-2)
