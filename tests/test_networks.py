"""Networks as people have them: forward passes of their own, other outputs, blocks that are no maps, any classifier."""

import copy
import warnings
from collections import OrderedDict, namedtuple
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torchvision
from conftest import ALL
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model, list_models
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from saliency_lib import attribution, audit, data, downsampling, inference, quality, randomization, snr, training
from saliency_lib.attribution import METHODS, attribute, grids, layers
from saliency_lib.hooks import hooked
from saliency_lib.runtime.seeds import seeded

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Y = torch.arange(4)
GRADIENTS = [name for name, entry in METHODS.items() if entry.backwards and not entry.needs_modules]
SIMPLE = ("resnet18", "vgg11", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "shufflenet_v2_x0_5", "swin_t")


def body():
    with seeded(0):
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 4)).eval()


class Own(nn.Module):
    """A small network with a forward pass of one's own, ``run(body, x)``."""

    def __init__(self, run):
        super().__init__()
        self.body, self.run = body(), run
        self.eval()

    def forward(self, x):
        return self.run(self.body, x)


def viewed(net, x):
    return net[3](net[:2](x).view(len(x), -1))


def without_grad(net, x):
    with torch.no_grad():
        h = net[:2](x)
    return net[2:](h)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_network_that_flattens_with_view_gets_the_maps_of_one_that_does_not(name):
    found = attribute(name, Own(viewed), X[:2], Y[:2])
    torch.testing.assert_close(found, attribute(name, Own(lambda net, x: net(x)), X[:2], Y[:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(METHODS))
def test_images_stay_as_they_are_whatever_the_network_does_with_them(name):
    own = X[:2].clone()
    found = attribute(name, Own(lambda net, x: net(x.mul_(2))), own, Y[:2])
    assert torch.equal(own, X[:2])
    torch.testing.assert_close(found, attribute(name, Own(lambda net, x: net(x * 2)), own, Y[:2]))


OUTPUTS = {
    "tuple": lambda net, x: (net(x), x),
    "mapping": lambda net, x: {"features": x, "logits": net(x)},
    "autocast": lambda net, x: torch.autocast("cpu", torch.bfloat16)(net.forward)(x),
}


@pytest.mark.parametrize("kind", list(OUTPUTS))
@pytest.mark.parametrize("name", list(METHODS))
def test_logits_are_found_in_what_a_network_gives(name, kind):
    net, plain = Own(OUTPUTS[kind]), attribute(name, body(), X[:2], Y[:2])
    said = {"tuple": "a tuple; the first entry is", "mapping": "a dict; its logits are"}.get(kind)
    with pytest.warns(match=f"Own gives {said} taken for the logits") if said else nullcontext():
        found = attribute(name, net, X[:2], Y[:2])
    assert found.shape == plain.shape and found.dtype == torch.float32 and found.isfinite().all()
    if kind != "autocast":
        torch.testing.assert_close(found, plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


CHANCE = {
    "in a second pass.*F.dropout": lambda net, x: net[2:](F.dropout(net[:2](x))),
    "beside another image.*batch normalisation": lambda net, x: net(F.batch_norm(x, None, None, training=True)),
}


@pytest.mark.parametrize("words", list(CHANCE))
def test_a_network_whose_logits_are_chance_or_its_batchs_is_refused(words):
    with seeded(0), pytest.raises(ValueError, match=words):
        attribute("input_gradient", Own(CHANCE[words]), X, Y)


def test_a_gradient_that_does_not_reach_the_input_is_a_sentence():
    with pytest.raises(ValueError, match="no gradient reaches the input; is part of forward under no_grad"):
        attribute("input_gradient", Own(without_grad), X, Y)


def test_what_is_known_of_a_model_is_asked_once_for_a_shape():
    net, passes = body(), []
    with hooked([net], lambda *_: passes.append(1)):
        assert inference.facts(net, X) == inference.facts(net, X.clone()[:1])
    assert len(passes) == 3 and inference.facts(net, X).layout == torch.channels_last
    assert inference.facts(Own(viewed), X).layout == torch.contiguous_format


def test_what_is_known_of_a_model_is_known_of_its_copies():
    net, passes = body(), []
    inference.facts(net, X)
    for _, broken in randomization.cascading(net, 0, X):
        with hooked([broken], lambda *_: passes.append(1)):
            assert inference.facts(broken, X) == inference.facts(net, X)
    assert not passes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_no_chance(dtype):
    with seeded(0):
        net = get_model("resnet18", weights=None).eval().to(dtype)
    assert attribute("input_gradient", net, X[:2].to(dtype), Y[:2]).isfinite().all()


def test_features_that_a_network_keeps_are_left_out_of_copies():
    def keeps(net, x):
        net.__dict__["kept"] = {"features": [net[:2](x)]}
        return net[2:](net.__dict__["kept"]["features"][0])

    net = Own(keeps)
    net(X.clone().requires_grad_())
    assert net.body.__dict__["kept"]["features"][0].grad_fn is not None
    assert audit.checkerboard(net, X, Y).keys() == {"body.0"}
    assert len(list(randomization.cascading(net, 0, X))) == 2


def test_maps_that_are_not_finite_are_counted():
    root = Own(lambda net, x: net((x**2).sum(1, keepdim=True).sqrt().expand(-1, 3, -1, -1)))
    holed = X.clone()
    holed[:2, :, :4] = 0
    with pytest.raises(ValueError, match="the maps of 2 of 4 images are not finite"):
        snr.measure("input_gradient", [root] * 3, holed, Y)


def test_one_output_has_two_sides():
    net = Own(lambda net, x: net(x)[:, :1] - 0.2)
    pictures, problems = audit.Pictures(X.permute(0, 2, 3, 1), X, None, ()), audit.Problems()
    (wrapped,) = audit.compatible({"a": net}, X, problems).values()
    z = net(X)
    torch.testing.assert_close(wrapped(X).softmax(1)[:, 1:], z.sigmoid())
    sides = audit.targets([wrapped], pictures, "predicted", problems)
    assert torch.equal(sides, (z[:, 0] > 0).long()) and torch.equal(
        sides, audit.targets([net], pictures, "predicted", audit.Problems())
    )
    assert len(sides.unique()) == 2 and "one output; the side of zero" in problems.remarks[0]


def test_names_in_a_network_with_one_output_stay():
    with seeded(0):
        net = get_model("resnet18", num_classes=1).eval()
    state = copy.deepcopy(net.state_dict())
    (given,) = audit.compatible({"a": net}, X, audit.Problems()).values()
    assert layers.stages(given) == ["layer1", "layer2", "layer3", "layer4"] and net(X).shape == (4, 1)
    maps = attribute("gradcam", given, X, Y % 2, layer="layer3")
    torch.testing.assert_close(maps, attribute("gradcam", copy.deepcopy(given), X, Y % 2, layer="layer3"))
    assert list(randomization.layers(given, X))[:2] == ["fc", "layer4"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in given.state_dict().items())


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "log_softmax", "logits"])
def test_outputs_that_look_like_probabilities_are_said(kind):
    ways = {
        "sigmoid": lambda net, x: net(x)[:, :1].sigmoid(), "softmax": lambda net, x: net(x).softmax(1),
        "log_softmax": lambda net, x: net(x).log_softmax(1), "logits": lambda net, x: net(x),
    }  # fmt: skip
    problems = audit.Problems()
    audit.compatible({"a": Own(ways[kind])}, X, problems)
    assert any("look like probabilities" in remark for remark in problems.remarks) == (kind != "logits")


def test_compiled_networks_are_refused_where_hooks_would_be_left_out():
    net = body()
    compiled = torch.compile(net, backend="eager")
    for name in ("gradcam", "deeplift", "guided_backprop"):
        with pytest.raises(ValueError, match="the network is compiled, so that hooks are not seen"):
            attribute(name, compiled, X, Y)
    with pytest.raises(ValueError, match="is compiled"), downsampling.smooth_backward(compiled, ["input"], X):
        pass
    with warnings.catch_warnings(action="ignore"):  # that it is old
        scripted = torch.jit.trace(net, X)
    with pytest.raises(ValueError, match="is TorchScript, which takes no hooks"):
        layers.stages(scripted)


# Layers


def test_a_convolutions_maps_may_have_other_proportions_than_the_picture():
    """Channels times rows of (n, 32, 32, 30) are more like a picture of 32 pixels than rows times columns."""
    with seeded(0):
        row = nn.Conv2d(3, 32, (1, 3))
        net = nn.Sequential(row, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()
        cut = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU())
        cut = nn.Sequential(cut, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    features = net[:2](X)
    weights = net[4].weight[Y][:, :, None, None] / features[0, 0].numel()
    by_hand = F.interpolate((weights * features).sum(1, keepdim=True), X.shape[2:], mode="bilinear")
    for layer in ("top", "1"):
        torch.testing.assert_close(attribute("gradcam", net, X, Y, layer=layer), by_hand)
    tall = X.repeat(1, 1, 2, 1)
    for layer, shape in (("0", (26, 10)), ("1", (13, 5)), ("0.4", (26, 10)), ("0.1", (60, 28))):
        with layers.used(cut, layer) as found:
            cut(tall)
        assert found == [grids.Grid("maps", shape)]
    assert attribute("gradcam", cut, tall, Y).shape == (4, 1, 64, 32)


def test_pooling_may_give_indices():
    def run(net, x):
        return net[2:](F.max_unpool2d(*pool(net[:2](x)), 2))

    pool, net = nn.MaxPool2d(2, return_indices=True).eval(), Own(run)
    net.pool = pool
    assert attribute("gradcam", net, X, Y, layer="body.1").shape == (4, 1, 32, 32)


@pytest.mark.parametrize("size", [(48, 48), (20, 30)], ids=str)
def test_stages_of_a_network_for_pictures_of_a_seldom_size(size):
    with seeded(0):
        conv = nn.Conv2d(3, 8, 3, 2, 1)
        net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(size[0] * size[1] * 2, 4)).eval()
    assert layers.stages(net) == [], "of none of the usual sizes"
    assert attribute("gradcam", net, torch.ones(2, 3, *size), Y[:2]).shape == (2, 1, *size)
    assert layers.stages(net) == ["1"]


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_transformer_encoder_is_explained_before_its_last_block(norm_first):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.token = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
            block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
            self.blocks = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            return self.head(self.blocks(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))[:, 0])

    with seeded(0):
        assert layers.stages(Encoder().eval()) == ["blocks.layers.1"]


def vit(**options):
    with seeded(0):
        net = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4, **options)
        nn.init.normal_(net.heads.head.weight)  # which is zero at first
    return net.eval()


def swin():
    with seeded(0):
        return SwinTransformer([2, 2], 8, [1, 2], [1, 2], [4, 4], num_classes=4).eval()


@pytest.mark.parametrize("build", [vit, swin])
@pytest.mark.parametrize("name", [*GRADIENTS, "occlusion"])
def test_transformers_have_maps(build, name):
    found = attribute(name, build(), X[:2], Y[:2])
    assert found.shape[0] == 2 and found.shape[2:] == (32, 32) and found.isfinite().all() and found.std() > 0


@pytest.mark.parametrize(
    "build,layer,shape", [(vit, "encoder.layers.encoder_layer_0", (16, 4, 4)), (swin, "features.3", (16, 8, 8))]
)
def test_a_block_of_tokens_or_with_channels_last_is_turned(build, layer, shape):
    net, inside = build(), []
    with hooked([net.get_submodule(layer)], lambda _m, _i, out: inside.append(out)):
        net(X)
    grid = grids.grid_of(inside[0], X)
    maps = grid.maps(inside[0])
    assert maps.shape[1:] == shape and torch.equal(grid.output(maps, inside[0]), inside[0])
    assert attribute("input_gradient", net, X, Y, layer=layer).shape[1:] == shape
    along = attribution.integrated_gradients(net, X[:1], Y[:1], layer=layer, n_steps=4)
    assert along.shape[1:] == shape and along.std() > 0
    assert layers.stages(net)[-1] == layer


@pytest.mark.parametrize("skipped", [0, 1, 2, 5])
@pytest.mark.parametrize("side", [(32, 32), (64, 32)])
def test_tokens_of_no_place_come_first(skipped, side):
    h, w = side[0] // 8, side[1] // 8
    out = torch.arange(2 * (skipped + h * w) * 3.0).view(2, -1, 3)
    grid = grids.grid_of(out, torch.zeros(2, 3, *side))
    assert (grid.kind, grid.shape, grid.skipped) == ("tokens", (h, w), skipped)
    assert torch.equal(grid.maps(out)[:, :, 0, 0], out[:, skipped])
    assert torch.equal(grid.maps(out)[:, :, -1, -1], out[:, -1])
    assert grids.grid_of(torch.zeros(2, 10), torch.zeros(2, 3, *side)) is None


Pair = namedtuple("Pair", "maps rest")


@pytest.mark.parametrize("kind", [tuple, list, Pair._make])
def test_a_layer_may_give_several_things_of_which_the_first_is_explained(kind):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body()[:2]

        def forward(self, x):
            return kind([self.body(x), x])

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = Several(), body()[2:]

        def forward(self, x):
            maps, rest = self.features(x)
            assert rest is not maps
            return self.head(maps)

    net, plain = Whole().eval(), body()
    for method in (attribution.gradcam, attribution.input_gradient):
        torch.testing.assert_close(method(net, X, Y, layer="features"), method(plain, X, Y, layer="1"))
    assert layers.stages(net)[-1] == "features"


def test_stages_of_a_network_that_was_changed_are_found_anew():
    with torch.random.fork_rng():
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(3)).eval()
        net(torch.zeros(1, 3, 16, 16))
        assert layers.stages(net) == ["1"]
        net.insert(2, nn.Conv2d(4, 4, 3, padding=1))
    assert layers.stages(net)[-1] == "2"


def test_stages_that_hold_modules_are_no_names():
    net = body()
    object.__setattr__(net, "stages", [net[0]])
    assert layers.stages(net) == ["1"]


@pytest.mark.filterwarnings("ignore:The default weight initialization")  # of GoogLeNet and Inception
@pytest.mark.parametrize("name", list_models(torchvision.models) if ALL else SIMPLE)
def test_the_top_layer_of_every_classifier_is_the_last_with_places(name):
    """Zeroing its output changes every logit, and it has places."""
    large = sum(weights.meta["num_params"] for weights in torchvision.models.get_model_weights(name)) / 4 > 100e6
    if large:
        pytest.skip("of a family whose smaller members are tried")
    with seeded(0):
        net = get_model(name, weights=None).eval()
        for p in net.parameters():  # a head or a scale may be zero, or next to it, at first
            if p.ndim == 1 or p.std() == 0:
                p.data = p.data + 0.1 * torch.randn(p.shape)
    top = layers.stages(net)[-1]
    side = 299 if name == "inception_v3" else 224
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    seen, found = [], []

    def zero(_module, _inputs, out):
        grid = grids.grid_of(out, x)
        seen.append(grid)
        return grid.output(torch.zeros_like(grid.maps(out)), out)

    with torch.no_grad():
        before = net(x)
        with hooked([net.get_submodule(top)], zero):
            found.append(net(x))
    assert len(seen) == 1 and min(seen[0].shape) > 1, (top, seen)
    assert (before != 0).double().mean() > 0.2, "logits that a ReLU has at zero tell nothing"
    assert (found[0] != before)[before != 0].all(), top


def test_copies_are_no_views_of_what_they_copy():
    net = body()
    (*_, (_, broken)) = randomization.cascading(net, 0, X)
    state = copy.deepcopy(net.state_dict())
    for p in broken.parameters():
        p.data.zero_()
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


class Viewed(nn.Module):
    """Two strided convolutions, flattened with ``.view``."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8 * 64, 4)

    def forward(self, x):
        return self.fc(self.second(self.relu(self.first(x))).view(len(x), -1))


@pytest.mark.usefixtures("chance")
def test_a_network_that_flattens_with_view_is_redrawn_replaced_and_trained():
    with seeded(0):
        net = Viewed().eval()
    for redrawn in (randomization.cascading, randomization.independent):
        for images in (X, None):
            assert [name for name, _ in redrawn(net, images=images)] == ["fc", "second", "first"]
    layers, likeness = audit.against_random("input_gradient", [net], X, Y, runs=2)
    assert layers == ["fc", "second", "first"] and np.isfinite(likeness).all()
    surrogate = downsampling.BilinearSurrogate(net, ["input"], X).fit(X, epochs=1)
    assert set(surrogate.losses) == {"first", "second"}
    images = data.load("digits", "train", 64, size=32)
    trained = Viewed()
    trained.first = nn.Conv2d(1, 8, 3, 2, 1)
    trained.fc = nn.Linear(8 * 64, 10)
    assert training.fit(trained, images, training.Recipe(epochs=1, batch_size=32, lr=0.01), seed=0).loss


@pytest.mark.usefixtures("chance")
def test_four_layers_of_many_are_no_stages():
    with seeded(0):
        blocks = [
            nn.Sequential(nn.Conv2d(3 if k == 0 else 8, 8, 3, 2 if k % 3 == 0 else 1, 1), nn.ReLU()) for k in range(7)
        ]
    ends = ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()), ("fc", nn.Linear(8, 4))
    deep = nn.Sequential(OrderedDict([*((f"layer{k + 1}", block) for k, block in enumerate(blocks)), *ends])).eval()
    assert layers.stages(deep) == ["layer3", "layer6", "layer7"]
    last = nn.Sequential(nn.Flatten(), nn.Linear(8 * 64, 4))
    mixed = nn.Sequential(
        OrderedDict([*((f"layer{k + 1}", block) for k, block in enumerate(blocks[:3])), ("layer4", last)])
    )
    mixed[3][1] = nn.Linear(8 * 256, 4)
    assert "layer4" not in layers.stages(mixed.eval()) and attribute("gradcam", mixed, X, Y).shape == (4, 1, 32, 32)


@pytest.mark.parametrize("after", [nn.GroupNorm(4, 16), nn.InstanceNorm2d(16), nn.Mish(), nn.PReLU(), nn.Dropout2d()])
@pytest.mark.usefixtures("chance")
def test_what_follows_a_convolution_keeps_channels_where_they_are(after):
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 16, 3, (1, 4), 1), after, nn.ReLU()),
        nn.Conv2d(16, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    x = torch.randn(2, 1, 64, 256, generator=torch.Generator().manual_seed(0))
    assert attribute("input_gradient", net, x, Y[:2], layer="0").shape == (2, 16, 64, 64)


class Twice(nn.Conv2d):
    def forward(self, x):
        return super().forward(x), None


def test_paths_to_a_layer_that_gives_several_things_add_up():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.rest = (
                Twice(3, 8, 3, 2, 1),
                nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten()),
            )
            self.fc = nn.Linear(8 * 64, 4)

        def forward(self, x):
            return self.fc(self.rest(self.block(x)[0]))

    with seeded(0):
        net = Net().eval()
    maps = attribution.integrated_gradients(net, X, Y, layer="block", n_steps=64)
    logits = inference.logits(net, torch.cat([X, torch.zeros_like(X[:1])]))
    difference = (logits[:4] - logits[4]).gather(1, Y[:, None])[:, 0]
    torch.testing.assert_close(maps.flatten(1).sum(1), difference, rtol=1e-2, atol=1e-3)
    assert [conv.name for conv in downsampling.strided_convs(net, ["block"], X)] == ["rest.0"]


@pytest.mark.usefixtures("chance")
def test_one_output_has_no_softmax():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 1)).eval()
    side = torch.zeros(4, dtype=torch.int64)
    calls = (
        attribution.rise,
        attribution.probability_gradient,
        lambda f, x, y: quality.insertion(f, x, y, x[:, :1]),
        inference.log_odds,
    )
    for call in calls:
        with pytest.raises(ValueError, match="one output, whose softmax is 1 whatever the picture"):
            call(net, X, side)
        assert call(audit.networks.two_sided(net), X, side).std() > 0


def test_a_clamp_at_zero_is_a_relu_and_one_elsewhere_is_none():
    with pytest.raises(ValueError, match="1 of the 2 ReLUs are functions"):
        attribute("guided_backprop", Own(lambda body, x: body[3](body[2](body[1](body[0](x)).clamp(min=0)))), X, Y)
    attribute("guided_backprop", Own(lambda body, x: body[3](body[2](body[1](body[0](x)).clamp(min=1e-6)))), X, Y)


def test_inference_mode_is_named():
    net = body()
    with torch.inference_mode():
        made, x = body(), X.clone()
        with pytest.raises(ValueError, match=r"leave torch.inference_mode\(\)"):
            attribute("input_gradient", net, X, Y)
        inference.logits(net, X)  # as before
    for f, images in ((made, X), (net, x)):
        with pytest.raises(ValueError, match="clone images and weights that were made in it"):
            attribute("input_gradient", f, images, Y)


def test_a_layer_of_windows_is_no_map():
    class Windows(nn.Module):
        def forward(self, x):  # four windows of each picture
            return x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.windows, self.fc = nn.Conv2d(3, 8, 3, 2, 1), Windows(), nn.Linear(8 * 256, 4)

        def forward(self, x):
            return self.fc(self.windows(self.first(x)).reshape(len(x), -1))

    with seeded(0):
        net = Net().eval()
    with pytest.raises(ValueError, match="layer 'windows' sees 16 windows or tokens of 4 pictures"):
        attribute("input_gradient", net, X, Y, layer="windows")


class Same(nn.Conv2d):
    """Padded by itself, as TensorFlow does."""

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


@pytest.mark.usefixtures("chance")
def test_a_surrogate_of_a_convolution_that_pads_by_itself_has_its_size():
    net = nn.Sequential(Same(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 4)).eval()
    surrogate = downsampling.BilinearSurrogate(net, ["input"], X).fit(X, epochs=1)
    assert surrogate(X).shape == (4, 4)


@pytest.mark.usefixtures("chance")
def test_a_network_whose_forward_was_set_from_outside_has_no_two_sides():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1)).eval()
    net.forward = lambda x, run=net.forward: run(x)
    with pytest.raises(ValueError, match="the forward of Sequential is set from outside"):
        audit.networks.two_sided(net)


class Counting(nn.Module):
    """Counts its passes in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        self.passes += 1
        return self.fc(x.flatten(1))


@pytest.mark.usefixtures("chance")
def test_training_takes_what_takes_no_look_beforehand_and_no_look_is_noticed():
    images, recipe = data.load("digits", "train", 64), training.Recipe(epochs=1, batch_size=32, lr=0.01)
    net = Counting()
    assert training.fit(net, images, recipe, seed=0).loss and net.passes == 2
    odd = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 10))
    for each in (odd, torch.compile(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), backend="eager")):
        assert training.fit(each, images, recipe, seed=0).loss


@pytest.mark.usefixtures("chance")
def test_a_view_across_images_is_seen_too():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Linear(64, 4))
    net.forward = lambda x: net[2](net[1](net[0](x)).view(len(x) * 4, -1)[:, :64]).view(len(x), 4, 4).mean(1)
    assert attribute("input_gradient", net.eval(), X, Y).shape == X.shape


@pytest.mark.usefixtures("chance")
def test_a_clamp_by_a_tensor_is_none_of_our_business():
    run = Own(lambda body, x: body[3](body[2](torch.clamp(body[1](body[0](x)), min=torch.full((8, 1, 1), -1.0)))))
    assert attribute("guided_backprop", run, X, Y).shape == X.shape
