"""Layers redrawn from the logits down or one at a time."""

import pytest
import torch
import torchvision
from conftest import batch, tiny_net
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import truncnorm
from torch import nn

from saliency_lib import attribution, randomization
from saliency_lib.randomization import cascading, independent, layers
from saliency_lib.runtime.seeds import seeded

BOTH = pytest.mark.parametrize("steps", [cascading, independent])


@pytest.fixture(autouse=True)
def networks_of_a_seed():
    with seeded(0):
        yield


def states(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def singles(model, x=None):
    """Every module with weights of its own, from the logits down."""
    return [holder for holders in layers(model, x).values() for holder in reversed(holders)]


def changed(model, before):
    """Names of the modules whose weights or statistics differ from ``before``."""
    return {
        name.rpartition(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }


class Upside(nn.Module):
    """Registers its layers in another order than it calls them, with a token of its own and a head it never calls."""

    def __init__(self):
        super().__init__()
        self.last, self.never = nn.Linear(6, 4), nn.Linear(6, 2)
        self.first = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.token = nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, x):
        return self.last(self.norm(self.first(x + self.token)).relu().mean((2, 3)))


def test_the_order_is_that_of_the_pass_and_what_is_unused_is_left_out():
    assert layers(Upside()) == {"last": ("last",), "first": ("first", "norm"), "Upside": ("",)}


@pytest.mark.parametrize(
    "name,expected",
    [
        ("resnet_small", ["fc", "layer4", "layer3", "layer2", "layer1", "conv1"]),
        ("cnn", ["11", "9", "4", "0"]),
        ("mlp", ["7", "5", "3", "1"]),
        ("vgg11", [f"classifier.{k}" for k in (6, 3, 0)] + [f"features.{k}" for k in (18, 16, 13, 11, 8, 6, 3, 0)]),
    ],
)
def test_blocks_of_the_projects_networks(name, expected):
    assert list(layers(tiny_net(name=name, size=32))) == expected


def test_inception_has_the_papers_17_blocks():
    model = torchvision.models.inception_v3(weights=None, init_weights=False)
    found = layers(model, torch.zeros(1, 3, 96, 96))
    assert len(found) == 17 and next(iter(found)) == "fc" and "AuxLogits" not in found
    assert sum(len(holders) for holders in found.values()) == 2 * 94 + 1  # convolutions, their norms, the classifier


def test_a_norm_goes_with_its_layer_and_modules_can_be_named():
    model = tiny_net()
    assert layers(model)["conv1"] == ("conv1", "bn1") and len(singles(model)) == 25
    assert layers(model, only=["layer2.0", "fc"]).keys() == {"fc", "layer2.0"}
    assert layers(model, only=["layer4.0.conv2"]) == {"layer4.0.conv2": ("layer4.0.conv2",)}


def test_attention_is_redrawn_whole():
    model, x = torchvision.models.VisionTransformer(16, 8, 2, 1, 8, 16, num_classes=3), torch.zeros(1, 3, 16, 16)
    name = "encoder.layers.encoder_layer_1.self_attention"
    assert f"{name}.out_proj" in singles(model, x)
    step, redrawn = next(iter(independent(model, 0, x, only=[name])))
    assert step == name and changed(redrawn, states(model)) == {name, f"{name}.out_proj"}
    assert not redrawn.get_submodule(name).out_proj.bias.any(), "as PyTorch begins"


@pytest.mark.parametrize("single", [False, True], ids=["blocks", "modules"])
@pytest.mark.parametrize("name", ["resnet_small", "lenet"])
def test_a_cascade_redraws_one_more_layer_a_step_and_keeps_what_is_drawn(name, single):
    model = tiny_net(name=name, size=16)
    before, last, only = states(model), states(model), singles(model) if single else None
    order, done = layers(model, only=only), set()
    for layer, copied in cascading(model, 3, only=only):
        assert changed(copied, last) <= set(order[layer]), "keeps what is already redrawn"
        done |= set(order[layer])
        assert {h for h in done if "bn" not in h and "downsample.1" not in h} <= changed(copied, before) <= done
        last = states(copied)
    assert len(order) == len(list(cascading(model, 3, only=only)))


@BOTH
def test_the_model_is_left_as_it_was_and_copies_are_apart(steps):
    model = tiny_net()
    model.fc.weight.requires_grad_(False)
    seen = []
    model.conv1.register_forward_hook(lambda *_: seen.append(1))
    before, hooks = states(model), [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    found = list(steps(model, 1))
    assert not changed(model, before) and not model.training and not seen
    assert not model.fc.weight.requires_grad and all(p.grad is None for p in model.parameters())
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    for _, copied in found:
        assert not copied.training and not copied.fc.weight.requires_grad
        assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in copied.modules()]
    maps = [attribution.attribute("input_gradient", copied, *batch()) for _, copied in found]
    assert all(not torch.equal(a, b) for k, a in enumerate(maps) for b in maps[:k])


@BOTH
def test_copies_share_memory_and_nothing_else(steps):
    model = tiny_net()
    of_model = {t.data_ptr() for t in model.state_dict().values()}
    found = list(steps(model, 1))
    (_, first), *_, (_, last) = found
    assert first.conv1.weight.data_ptr() == found[1][1].conv1.weight.data_ptr(), "drawn by neither"
    assert all(not of_model & {t.data_ptr() for t in copied.state_dict().values()} for _, copied in found)
    before = states(last)
    first.double().train().requires_grad_(False)
    first.conv1.register_forward_hook(lambda *_: None)
    first.fc.weight.grad = torch.ones_like(first.fc.weight)
    for t in (*first.fc.parameters(), *(b for b in first.buffers())):  # redrawn in the first copy; moved by .double()
        t.data.zero_()
    assert last.conv1.weight.dtype == torch.float32 and not last.training and not last.conv1._forward_hooks
    assert last.conv1.weight.requires_grad and last.fc.weight.grad is None
    assert not changed(last, before)


@BOTH
def test_draws_do_not_hang_on_the_memory_layout(steps):
    model = tiny_net()
    plain = dict(steps(model, 2, only=singles(model)))
    for name, copied in steps(model.to(memory_format=torch.channels_last), 2, only=singles(model)):
        assert not changed(copied, states(plain[name]))


@BOTH
def test_volumes_are_redrawn_too(steps):
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    before = states(model)
    for (name, copied), expected in zip(steps(model, 1, torch.zeros(1, 1, 4, 4, 4)), ("3", "0")):
        assert name == expected and name in changed(copied, before)


def test_independent_steps_change_one_layer_and_draw_what_the_cascade_draws():
    model = tiny_net()
    before, order = states(model), layers(model)
    for (name, alone), (same, together) in zip(independent(model, 7), cascading(model, 7)):
        assert name == same and changed(alone, before) <= set(order[name])
        for holder in order[name]:
            a, b = (m.get_submodule(holder).state_dict() for m in (alone, together))
            assert all(torch.equal(a[key], b[key]) for key in a)


@settings(max_examples=6)
@given(st.integers(0, 2**31), st.sampled_from(["own", "truncated_normal", "uniform"]))
def test_layers_of_one_shape_differ_and_a_seed_repeats(seed, draw):
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
    ends = [list(cascading(model, s, draw=draw))[-1][1] for s in (seed, seed, seed + 1)]
    weights = [[m.weight for m in end] for end in ends]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1]))
    assert not any(torch.equal(a, b) for a, b in zip(weights[0], weights[2]))
    assert not any(torch.equal(a, b) for k, a in enumerate(weights[0]) for b in weights[0][:k])


def test_draws_are_the_papers():
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.LazyLinear(10))
    model(torch.zeros(2, 3, 16, 16))
    for draw, bound in (("truncated_normal", 0.02), ("uniform", 0.01 * 3**0.5)):
        end = list(cascading(model.eval(), 0, draw=draw))[-1][1]
        for p in end.parameters():
            assert p.abs().max() <= bound
        spread = end[3].weight.std().item()
        expected = 0.01 * (1 if draw == "uniform" else truncnorm(-2, 2).std())
        assert spread == pytest.approx(expected, rel=0.02)


def test_own_draws_are_the_layers_initialiser_and_a_function_may_draw():
    model = nn.Sequential(nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 4))
    for module in (model[0], model[2]):
        nn.init.ones_(module.weight)
    end = list(cascading(model))[-1][1]
    assert end[0].weight.std().item() == pytest.approx((1 / 400 / 3) ** 0.5, rel=0.02)  # U(-1/sqrt(n), 1/sqrt(n))
    zero = next(iter(cascading(model, draw=lambda module: nn.init.zeros_(module.weight))))[1]
    assert not zero[2].weight.any() and zero[0].weight.all()


@BOTH
def test_weights_are_taken_from_a_network_that_was_built_alike(steps):
    """PyTorch's initialiser of a convolution is not the He initialisation that built the project's networks."""
    model, fresh = tiny_net().eval(), tiny_net(seed=1).eval()
    new, order = states(fresh), layers(model)
    for name, copied in steps(model, draw=fresh):
        for holder in order[name]:
            for key, value in copied.get_submodule(holder).named_parameters(recurse=False):
                assert torch.equal(value, new[f"{holder}.{key}"])
    if steps is cascading:
        assert all(torch.equal(p, new[name]) for name, p in copied.named_parameters())
    assert not changed(fresh, new)
    conv = fresh.layer3[0].conv2.weight
    spread = [net.layer3[0].conv2.weight.std().item() for net in (fresh, dict(independent(model))["layer3"])]
    he = (2 / conv[0].numel()) ** 0.5
    assert spread[0] == pytest.approx(he, rel=0.1) and spread[1] == pytest.approx(he / 6**0.5, rel=0.1)


def test_statistics_of_redrawn_norms():
    model = tiny_net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(3.0)
            module.running_var.fill_(5.0)
    for keep, mean, variance in ((False, 0, 1), (True, 3, 5)):
        for draw in ("own", "truncated_normal"):
            by_name = dict(independent(model, draw=draw, keep_statistics=keep))
            redrawn, other = by_name["conv1"].bn1, by_name["fc"].bn1
            assert (redrawn.running_mean == mean).all() and (redrawn.running_var == variance).all()
            assert (other.running_mean == 3).all() and (other.running_var == 5).all()


class Gain(nn.Module):
    """A weight without an initialiser, times the input."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return x * self.gain


@BOTH
def test_clear_errors_come_with_the_call(steps):
    model = tiny_net()
    for options, text in (
        ({"only": ["layer9"]}, "'layer9' has no weights to redraw"),
        ({"only": ["layer2", "layer2.0"]}, "'layer2.0' has no weights to redraw that no other has"),
        ({"only": ["relu", "fc"]}, "'relu' has no weights to redraw"),
        ({"seed": -1}, "seeds are not negative"),
        ({"draw": "normal"}, "unknown draw 'normal'"),
        ({"draw": nn.Linear(2, 2)}, "has others than the model"),
    ):
        with pytest.raises(ValueError, match=text):
            steps(model, **options)
    with pytest.raises(ValueError, match="no weights to redraw"):
        steps(nn.Sequential(nn.Flatten()), 0, torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="pass images="):
        steps(nn.Sequential(nn.Flatten(), nn.ReLU()))
    gain = nn.Sequential(Gain(), nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(ValueError, match="Gain has no initialiser of its own"):
        list(steps(gain, 0, torch.zeros(1, 3, 4, 4)))
    assert len(list(steps(gain, 0, torch.zeros(1, 3, 4, 4), draw="truncated_normal"))) == 2


def test_quantus_gives_layers_of_one_shape_the_same_weights():
    """Why each layer has a generator of its own here."""
    from quantus.helpers.model.pytorch_model import PyTorchModel

    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).eval()
    steps = PyTorchModel(model, channel_first=True).get_random_layer_generator(order="top_down", seed=1)
    end = [copied for _, copied in steps][-1]
    assert torch.equal(end[0].weight, end[2].weight)
    ours = list(cascading(model))[-1][1]
    assert not torch.equal(ours[0].weight, ours[2].weight)
    assert randomization.layers(model).keys() == {"0", "2"}


def test_statistics_without_weights_are_reset_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(2, 3, 8, 8))
    model[1].running_mean.fill_(3.0)
    end = list(cascading(model.eval(), 0, torch.zeros(1, 3, 8, 8)))[-1][1]
    assert layers(model, torch.zeros(1, 3, 8, 8)) == {"3": ("3",), "0": ("0", "1")} and not end[1].running_mean.any()


class Frozen(nn.Module):
    """Hides its first layer from autograd."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(x).detach())


class Uncalled(nn.Module):
    """Uses a layer's weights without calling it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return nn.functional.linear(self.first(x), self.last.weight, self.last.bias)


class TwoHeads(nn.Module):
    """Gives a second output, whose head's weights no logit knows, and has its stem by two names."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.beside = nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2))
        self.alias = self.stem

    def forward(self, x):
        return self.head(self.alias(x)), {"other": self.beside(self.stem(x))}


def test_a_second_head_is_left_out_and_a_second_name_counts_once():
    model = TwoHeads().eval()
    assert layers(model, torch.zeros(1, 6)) == {"head": ("head",), "stem": ("stem",)}
    steps = dict(cascading(model, 3, torch.zeros(1, 6)))
    assert list(steps) == ["head", "stem"]
    end = steps["stem"]
    assert end.alias is end.stem and not torch.equal(end.stem.weight, model.stem.weight)
    assert torch.equal(end.beside[0].weight, model.beside[0].weight)


def test_what_cannot_be_traced_is_refused():
    tied = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    tied[2].weight = tied[0].weight
    for model, text in (
        (Frozen(), "calls 'first', but by autograd the logits do not depend on its"),
        (Uncalled(), "uses weights of 'last' without calling it"),
        (tied, "'0.weight' and '2.weight' are one tensor"),
    ):
        with pytest.raises(ValueError, match=text):
            layers(model, torch.zeros(1, 6))
    normed = nn.utils.spectral_norm(nn.Linear(6, 6))  # whose weight is another one after a pass
    normed(torch.zeros(2, 6))
    with pytest.raises(ValueError, match="Linear has no initialiser of its own .* for all of its weights"):
        randomization.own_initialiser(normed)


@pytest.mark.parametrize("wrapped", [nn.Sequential, nn.DataParallel])
def test_a_wrapper_is_looked_into(wrapped):
    model = wrapped(tiny_net())
    assert [name.rpartition(".")[2] for name in layers(model)] == list(layers(tiny_net()))
    assert list(layers(tiny_net().double())) == list(layers(tiny_net()))


def test_grouping_does_not_change_what_a_module_gets():
    model = tiny_net()
    ends = [list(cascading(model, 5, only=only))[-1][1] for only in (None, singles(model))]
    assert all(map(torch.equal, *(end.state_dict().values() for end in ends)))


@BOTH
def test_the_model_may_change_after_the_call(steps):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    before = model[0].weight.clone()
    found = steps(model, 0)
    with torch.no_grad():
        model[0].weight.fill_(7.0)
    assert torch.equal(next(found)[1][0].weight, before)


def test_the_class_that_is_explained_stays_that_of_the_trained_network():
    model, (x, _) = tiny_net(), batch(12)
    y = model(x).argmax(1)
    end = next(net for _, net in cascading(model) if (net(x).argmax(1) != y).all())  # sees other classes
    leaf = x.clone().requires_grad_()
    logits = end(leaf).gather(1, y[:, None])
    torch.testing.assert_close(
        attribution.attribute("input_gradient", end, x, y), torch.autograd.grad(logits.sum(), leaf)[0]
    )
