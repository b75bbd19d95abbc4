"""Strided convolutions, the two hooks, and the surrogate."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from conftest import batch, tiny_net
from torch import nn
from torch.nn import functional as F

from saliency_lib import attribution, models
from saliency_lib.attribution import layers
from saliency_lib.downsampling import (
    BilinearSurrogate,
    Segmenter,
    blocks,
    smooth_backward,
    smooth_forward,
    strided_convs,
)
from saliency_lib.downsampling.remedies import mean_of_rolls
from saliency_lib.downsampling.surrogate import BilinearPath
from saliency_lib.runtime import store
from saliency_lib.runtime.seeds import seeded

HOOKS = pytest.mark.parametrize("smooth", [smooth_backward, smooth_forward])


@pytest.fixture(autouse=True)
def networks_of_a_seed():
    with seeded(0):
        yield


def plain(*modules):
    return nn.Sequential(nn.Identity(), *modules).eval()


def rolled(x):
    """The mean of the four shifts, written out."""
    return sum(torch.roll(x, (h, w), (2, 3)) for h in (0, 1) for w in (0, 1)) / 4


def gradient(function, x, weights=None):
    x = x.detach().clone().requires_grad_()
    out = function(x)
    return torch.autograd.grad(out, x, torch.ones_like(out) if weights is None else weights)[0]


def test_fig_1_a_stride_of_two_prints_a_checkerboard_that_every_remedy_flattens():
    conv = nn.Conv2d(1, 1, 3, stride=2, bias=False)
    conv.weight.data = torch.tensor([[-0.25, 0.5, -0.25], [0.5, -1.0, 0.5], [-0.25, 0.5, -0.25]])[None, None]
    model, x = plain(conv), torch.ones(1, 1, 17, 17)
    inside = (..., slice(2, -2), slice(2, -2))
    rows, columns = torch.meshgrid(torch.arange(17), torch.arange(17), indexing="ij")
    board = torch.where((rows + columns) % 2 == 0, -1.0, 1.0)[None, None]
    torch.testing.assert_close(gradient(model, x)[inside], board[inside])
    for smooth in (smooth_backward, smooth_forward):
        with smooth(model, ["0"], x):
            assert gradient(model, x)[inside].abs().max() < 1e-6
    with smooth_backward(model, ["0"], x, centred=True):
        assert gradient(model, x)[inside].abs().max() < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": 5, "stride": 3, "padding": 2, "dilation": 2},
        {"kernel_size": (3, 2), "stride": (2, 1), "groups": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "circular"},
        {"kernel_size": 7, "stride": (1, 4), "padding": "valid"},
    ],
)
def test_hooks_are_what_they_say_for_any_convolution(options):
    conv = nn.Conv2d(4, 6, **options)
    model, x = plain(conv, nn.Tanh()), torch.randn(2, 4, 15, 16)
    shifts = [(h, w) for h in range(conv.stride[0]) for w in range(conv.stride[1])]

    def of_shifted(x):
        return torch.stack([conv(x.roll(shift, (2, 3))) for shift in shifts]).mean(0).tanh()

    own, out, slope = gradient(model, x), of_shifted(x), gradient(of_shifted, x)
    with smooth_forward(model, ["0"], x):
        torch.testing.assert_close(model(x), out)
        torch.testing.assert_close(gradient(model, x), slope)
    expected = torch.stack([own.roll(shift, (2, 3)) for shift in shifts]).mean(0)
    before = model(x)
    with smooth_backward(model, ["0"], x):
        assert torch.equal(model(x), before), "only the gradient changes"
        torch.testing.assert_close(gradient(model, x), expected)
    with smooth_backward(model, ["0"], x, centred=True):
        back = torch.stack([own.roll((-h, -w), (2, 3)) for h, w in shifts]).mean(0)
        torch.testing.assert_close(gradient(model, x), (expected + back) / 2)
    assert torch.equal(gradient(model, x), own)


def test_several_strided_layers_compose():
    first, second = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)
    model, x = plain(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True)), torch.randn(2, 2, 16, 16)
    out = second(rolled(first(rolled(x)).relu())).relu()
    with smooth_forward(model, ["0"], x):
        torch.testing.assert_close(model(x), out)
    middle = first(x).relu()
    at_middle = rolled(gradient(lambda m: second(m).relu(), middle))
    expected = rolled(gradient(lambda x: first(x).relu(), x, at_middle))
    with smooth_backward(model, ["0"], x):
        torch.testing.assert_close(gradient(model, x), expected)


def test_a_residual_block_gets_both_ways_changed_and_the_skipped_one_not():
    model, (x, y) = tiny_net(), batch()
    block, kept = model.layer3[0], []
    with smooth_backward(model, ["layer2"]):
        found = attribution.input_gradient(model, x, y, layer="layer2")
    handle = block.register_forward_pre_hook(lambda _m, inputs: kept.append(inputs[0].detach()))
    model(x)
    handle.remove()

    def rest(ways):
        main, skip = ways
        out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(main)))))
        deeper = model.layer4[0]
        out = block.relu2(out + block.downsample(skip))
        with smooth_backward(model, ["layer3"]):
            out = deeper(out)
        return model.fc(model.avgpool(out).flatten(1)).gather(1, y[:, None]).sum()

    main, skip = (kept[0].clone().requires_grad_() for _ in range(2))
    expected = sum(rolled(g) for g in torch.autograd.grad(rest((main, skip)), [main, skip]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet_small", "resnet18", "resnet50"])
def test_what_is_touched_in_residual_networks(name):
    model = tiny_net(name=name, size=64)
    convs = {conv.name: conv for conv in strided_convs(model)}
    strided = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert set(convs) == set(strided) - {"conv1"}, "the stem is upstream of all stages"
    shortcuts = [conv for name, conv in convs.items() if "downsample" in name]
    assert shortcuts and all(conv.kernel == (1, 1) and conv.stride == (2, 2) for conv in shortcuts)
    assert {c.name.split(".")[0] for c in strided_convs(model, ["layer3"])} == {"layer4"}
    assert strided_convs(model, ["layer4"]) == [], "the last stage's own maps cannot change"
    assert strided_convs(model, ["conv1"]) == strided_convs(model, ["layer1"])
    assert {conv.name for conv in strided_convs(model, ["input"])} == set(strided), "the stem too"


@HOOKS
def test_only_what_is_before_a_touched_layer_changes(smooth):
    model, (x, y) = tiny_net(), batch()
    names = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    before = {name: attribution.input_gradient(model, x, y, layer=name) for name in names}
    with smooth(model):
        after = {name: attribution.input_gradient(model, x, y, layer=name) for name in names}
    assert not any(torch.allclose(before[name], after[name], rtol=1e-3) for name in names[:-1])
    if smooth is smooth_backward:
        assert torch.equal(before["layer4"], after["layer4"])


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_shifts_of_the_map_in_a_linear_stack(stages):
    """The backward hook moves maps by half a pixel at each strided layer's input; centred, by none. The forward hook
    moves what the network looks at, the other way, and its gradient with it."""
    convs = [nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False) for _ in range(stages)]
    for conv in convs:
        conv.weight.data = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0]))[None, None] / 16
    model, x, places = plain(*convs), torch.zeros(1, 1, 128, 128), torch.arange(128.0)

    def centroid():
        out = torch.zeros_like(model(x))
        out[..., out.shape[-2] // 2, out.shape[-1] // 2] = 1
        g = gradient(model, x, out)[0, 0]
        return torch.stack([(g.sum(1) * places).sum(), (g.sum(0) * places).sum()]) / g.sum()

    own, moved = centroid(), (2**stages - 1) / 2  # 0.5, 1.5, 3.5 pixels
    with smooth_backward(model, ["0"], x):
        torch.testing.assert_close(centroid() - own, torch.full((2,), moved))
    with smooth_backward(model, ["0"], x, centred=True):
        torch.testing.assert_close(centroid() - own, torch.zeros(2), atol=1e-4, rtol=0)
    with smooth_forward(model, ["0"], x):
        torch.testing.assert_close(centroid() - own, torch.full((2,), -moved))


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
def test_mean_of_rolls(stride):
    x = torch.randn(2, 3, 6, 7)
    for back in (False, True):
        sign = -1 if back else 1
        shifts = [(sign * h, sign * w) for h in range(stride[0]) for w in range(stride[1])]
        expected = torch.stack([x.roll(shift, (2, 3)) for shift in shifts]).mean(0)
        torch.testing.assert_close(mean_of_rolls(x, stride, back), expected)
        torch.testing.assert_close(mean_of_rolls(x, stride, back).sum(), x.sum(), rtol=1e-4, atol=1e-4)


@HOOKS
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(smooth, fails):
    model, (x, y) = tiny_net(), batch()
    seen = []
    model.conv1.register_forward_hook(lambda *_: seen.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    own = attribution.input_gradient(model, x, y)
    passes = len(seen)
    try:
        with smooth(model):
            assert len(seen) == passes, "tracing is done on a copy without hooks"
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert all(map(torch.equal, before.values(), model.state_dict().values()))
    assert not model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(own, attribution.input_gradient(model, x, y))


@pytest.mark.parametrize("method", ["input_gradient", "integrated_gradients", "deeplift"])
def test_layer_methods_work_under_the_hooks_with_relus_in_place(method):
    model, (x, y) = tiny_net(), batch()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    options = {"adds_up": False} if method == "deeplift" else {}
    function = attribution.METHODS[method].function
    own = function(model, x, y, layer="layer2")
    for smooth in (smooth_backward, smooth_forward):
        with smooth(model):
            maps = function(model, x, y, layer="layer2", **options)
        assert torch.isfinite(maps).all() and not torch.allclose(maps, own, rtol=0.01)


def test_deeplift_says_that_changed_gradients_do_not_add_up():
    model, (x, y) = tiny_net(), batch()
    with smooth_forward(model):
        attribution.deeplift(model, x, y)
    with smooth_backward(model), pytest.raises(ValueError, match="does not add up"):
        attribution.deeplift(model, x, y)


def test_a_surrogate_by_hand_is_average_pooling():
    pool = nn.Conv2d(3, 3, 2, stride=2, groups=3, bias=False)
    pool.weight.data.fill_(0.25)
    model, x = plain(pool), torch.randn(2, 3, 12, 10)
    surrogate = BilinearSurrogate(model, ["0"], x)
    path = surrogate.paths["1"]
    for conv in (path.before, path.after):
        nn.init.zeros_(conv.bias)
        nn.init.zeros_(conv.weight)
        for channel in range(3):
            conv.weight.data[channel, channel, 1, 1] = 1
    torch.testing.assert_close(surrogate(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(surrogate(x), model(x))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1},
        {"kernel_size": 3, "dilation": 2, "padding": 2, "groups": 2},
        {"kernel_size": 5, "padding": "valid"},
    ],
)
@pytest.mark.parametrize("side", [12, 13])
def test_a_path_gives_the_originals_shape(options, side):
    model, x = plain(nn.Conv2d(4, 6, stride=2, **options)), torch.randn(2, 4, side, side)
    assert BilinearSurrogate(model, ["0"], x)(x).shape == model(x).shape


def test_training_lowers_the_loss_of_every_path_and_touches_nothing_else():
    model, (x, y) = tiny_net(), batch(64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    surrogate = BilinearSurrogate(model)
    assert set(surrogate.paths) == {conv.name for conv in strided_convs(model)}
    assert surrogate.fit(x, epochs=6, batch_size=16) is surrogate
    assert all(len(loss) == 6 and loss[-1] < 0.8 * loss[0] for loss in surrogate.losses.values())
    assert all(map(torch.equal, before.values(), model.state_dict().values()))
    kept = surrogate.network.state_dict()
    for name, value in before.items():
        conv = next((c for c in surrogate.paths if name.startswith(f"{c}.")), None)
        inside = name if conv is None else f"{conv}.original.{name.removeprefix(f'{conv}.')}"
        assert torch.equal(kept[inside], value)
    assert not surrogate.training and not any(p.requires_grad for p in surrogate.parameters())
    assert not any(path.teaching for path in surrogate.paths.values())
    maps = attribution.input_gradient(surrogate.network, x[:4], y[:4], layer="layer1")
    assert maps.shape == attribution.input_gradient(model, x[:4], y[:4], layer="layer1").shape
    torch.testing.assert_close(attribution.deeplift(surrogate, x[:4], y[:4]).flatten(1).sum(1),
                               (surrogate(x[:4]) - surrogate(torch.zeros_like(x[:4]))).gather(1, y[:4, None])[:, 0],
                               rtol=1e-3, atol=1e-3)  # fmt: skip


def test_paths_learn_each_for_itself_on_the_originals_activations():
    """The first step's loss is the mean absolute error of each path against its original, all else original."""
    model, (x, _) = tiny_net(), batch(8)
    surrogate = BilinearSurrogate(model, seed=3)
    fresh, expected = BilinearSurrogate(model, seed=3), {}
    for name, path in fresh.paths.items():
        conv = model.get_submodule(name)
        handle = conv.register_forward_hook(
            lambda _m, i, out, name=name, path=path: expected.update({name: (path.smooth(i[0]) - out).abs().mean()})
        )
        model(x)
        handle.remove()
    surrogate.fit(x, epochs=1, batch_size=8)
    for name, loss in surrogate.losses.items():
        assert loss[0] == pytest.approx(expected[name].item(), rel=1e-4)


def test_seeds_repeat():
    model, (x, _) = tiny_net(), batch(24)
    one, two, other = (BilinearSurrogate(model, seed=s).fit(x, epochs=2, batch_size=8, seed=s) for s in (0, 0, 1))
    assert torch.equal(one(x), two(x)) and not torch.allclose(one(x), other(x))


def test_clear_errors():
    model, (x, _) = tiny_net(), batch(4)
    for smooth in (smooth_backward, smooth_forward, BilinearSurrogate):
        with pytest.raises(ValueError, match=r"no strided convolution behind \['layer4'\]"), context(smooth, model):
            pass
    with pytest.raises(ValueError, match="unknown layer 'nowhere'"):
        strided_convs(model, ["nowhere"])
    with pytest.raises(ValueError, match="stages of Sequential are unknown"):
        strided_convs(nn.Sequential(nn.Linear(3, 2)).eval())
    steep = plain(nn.Conv2d(3, 4, 3, stride=3))
    with pytest.raises(ValueError, match=r"'1' has stride \(3, 3\).*smooth_backward"):
        BilinearSurrogate(steep, ["0"], x)
    flat = nn.Sequential(nn.Identity(), nn.Flatten(2), nn.Conv1d(3, 2, 3, stride=2)).eval()
    with pytest.raises(ValueError, match="'2' is a Conv1d"):
        strided_convs(flat, ["0"], x)
    surrogate = BilinearSurrogate(model)
    for options, message in (
        ({"images": x[0]}, "expected images"),
        ({"images": x[:0]}, "expected images"),
        ({"images": x, "epochs": 0}, "at least one epoch, not 0"),
        ({"images": x, "batch_size": 0}, "at least one image, not batch_size=0"),
    ):
        with pytest.raises(ValueError, match=message):
            surrogate.fit(**options)
    with pytest.raises(ValueError, match="not finite"):
        surrogate.fit(x / 0)


def context(smooth, model):
    """Whatever ``smooth`` gives for a layer behind which nothing is strided, as a context."""
    made = smooth(model, ["layer4"])
    return made if hasattr(made, "__enter__") else nullcontext(made)


def test_networks_without_strides_have_nothing_to_smooth():
    model = models.build("vgg11", 10, size=32).eval()
    assert strided_convs(model) == [] and layers.stages(model)
    with pytest.raises(ValueError, match="nothing to smooth"), smooth_backward(model):
        pass


def test_blocks_before_strides_are_those_of_all_stages_but_the_last():
    net = models.build("resnet18", 10, size=32).eval()
    assert blocks(net) == [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert blocks(net, before_strides=True) == blocks(net)[:-2]


def test_a_segmenter_learns_its_masks_and_leaves_the_network_alone():
    net = models.build("resnet_small", 10, size=32).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    images = torch.rand(40, 3, 32, 32)
    masks = images.mean(1) > 0.5
    segmenter = Segmenter(net, images, seed=1)
    fresh = F.cross_entropy(segmenter.pixels(images), masks.long())
    segmenter.fit(images, masks, epochs=5)
    assert F.cross_entropy(segmenter.pixels(images), masks.long()) < fresh
    torch.testing.assert_close(segmenter(images), segmenter.pixels(images).sum((2, 3)))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    again = Segmenter(net, images, seed=1).fit(images, masks, epochs=5)
    torch.testing.assert_close(again(images), segmenter(images))
    with torch.no_grad():
        again.fit(images, masks, epochs=1)
    assert not any(p.requires_grad for p in again.parameters()) and (again(images) != segmenter(images)).any()
    assert all((p.grad is None) != name.startswith("heads") for name, p in again.named_parameters())


@pytest.mark.parametrize("net", [partial(models.build, "resnet9", 10), partial(nn.Linear, 3, 2)])
def test_a_segmenter_reads_residual_stages_alone(net):
    with seeded(0), pytest.raises(ValueError, match="a segmenter reads the stages layer1"):
        Segmenter(net().eval(), torch.zeros(2, 3, 32, 32))


def test_a_network_that_keeps_what_it_saw_has_a_surrogate_and_one_convolution_of_two_names_one_path():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.Conv2d(4, 4, 3, 2, 1)
            self.fc = nn.Linear(4, 5)

        def forward(self, x):
            self.seen = self.second(x)
            return self.fc(self.seen.mean((2, 3)))

    with seeded(0):
        model, x = Twice().eval(), torch.rand(2, 4, 8, 8)
    model(x)
    made = BilinearSurrogate(model, ["input"], x).network
    assert made.first is made.second and isinstance(made.first, BilinearPath)


def test_losses_are_means_over_images_whatever_the_batch():
    model, (x, _) = tiny_net(), batch(10)
    parts, whole = (BilinearSurrogate(model, seed=3).fit(x, epochs=1, batch_size=n, lr=0.0).losses for n in (8, 10))
    assert all(parts[name] == pytest.approx(whole[name], rel=1e-4) for name in whole)


def test_every_epoch_has_an_order_of_its_own_also_when_training_goes_on(monkeypatch):
    seen, pairs, (x, _) = [], BilinearSurrogate._pairs, batch(24)
    monkeypatch.setattr(
        BilinearSurrogate, "_pairs", lambda self, images, *more: seen.append(images) or pairs(self, images, *more)
    )
    surrogate = BilinearSurrogate(tiny_net())
    for _ in range(2):
        surrogate.fit(x, epochs=1, batch_size=24)
    assert not torch.equal(*seen)


def test_a_taught_surrogate_is_kept(tmp_path, monkeypatch):
    """As notebook 08 asks for it, so that a run that was stopped does not teach it again."""
    monkeypatch.setenv("SALIENCY_RESULTS", str(tmp_path))
    net, (x, _) = tiny_net(), batch(16)
    taught, again, other = (
        store.kept(BilinearSurrogate.fit, BilinearSurrogate(net, seed=3), x, epochs=1, seed=seed) for seed in (0, 0, 1)
    )
    assert len([*tmp_path.glob("*.pickle")]) == 2 and taught is not again
    assert all(torch.equal(a, b) for a, b in zip(taught.state_dict().values(), again.state_dict().values()))
    assert torch.equal(taught(x), again(x)) and not torch.equal(taught(x), other(x)) and taught.losses == again.losses
