"""The training loop: repeatable, complete, honest about failure."""

import csv
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saliency_lib import augmentation, data, inference, models, recipe, training
from saliency_lib.models.stacked import Stacked
from saliency_lib.runtime.seeds import seeded
from saliency_lib.training import Recipe

TINY = "convnet-w4-d1-max"


def digits(n=200):
    return data.load("digits", "train", n=n)


def fresh(seed=0, name=TINY):
    with seeded(seed):
        return models.build(name, 10, 1, size=8)


def fitted(recipe, seed=0, train=None, **options):
    model = fresh()
    history = training.fit(model, train or digits(), recipe, seed, **options)
    return model, history


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=2, lr=0.01),
        Recipe("sgd_step", epochs=2, lr=0.01),
        Recipe(epochs=2, lr=0.01, augment="flip_crop"),
        Recipe(epochs=2, lr=0.01, augment="resized_crop"),
    ],
)
def test_same_seed_same_weights_other_seed_other_weights(recipe):
    one, two, other = (weights(fitted(recipe, seed)[0]) for seed in (3, 3, 4))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_dropout_follows_the_seed_too():
    def run(seed):
        with seeded(0):
            model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        training.fit(model, digits(), Recipe(epochs=1, lr=0.01), seed)
        return weights(model)

    with seeded(5):
        first = run(1)
    with seeded(6):
        assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))


def test_an_epoch_shows_every_image_once_in_batches_of_nearly_equal_size():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 10)

        def forward(self, x):
            if self.training:
                seen.append(x[:, 0, 0, 0].detach().clone())
            return self.layer(x[:, 0, 0, :1])

    train = digits(130)
    with seeded(0):
        spy = Spy()
    train.images[:, 0, 0, 0] = torch.arange(130, dtype=torch.uint8)
    training.fit(spy, train, Recipe(epochs=2, batch_size=64, lr=0.01), seed=0)
    assert [len(batch) for batch in seen] == [44, 43, 43] * 2
    expected = train.inputs()[:, 0, 0, 0].sort().values
    for epoch in (seen[:3], seen[3:]):
        torch.testing.assert_close(torch.cat(epoch).sort().values, expected)
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:])), "each epoch has its own order"


def test_sgd_steps_halve_the_rate_after_half_and_five_sixths():
    model = fresh()
    optimizer, schedule = training._optimizer(model, Recipe("sgd_step", epochs=30, lr=0.01), steps=300)
    rates = []
    for _ in range(300):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == rates[149] == 0.01 and rates[150] == rates[249] == 0.005 and rates[250] == rates[299] == 0.0025


def test_one_cycle_peaks_at_the_given_rate():
    optimizer, schedule = training._optimizer(fresh(), Recipe(epochs=1, lr=0.02), steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.02, rel=1e-3) and min(rates) > 0


def test_permuted_labels_are_a_permutation_and_are_what_is_learnt():
    train = digits(48)
    labels = training.permuted(train.labels, seed=1)
    assert torch.equal(labels.sort().values, train.labels.sort().values) and not torch.equal(labels, train.labels)
    with seeded(0):
        model = models.build("convnet-w32-d1-none", 10, 1, size=8)
    history = training.fit(model, train, Recipe(epochs=80, batch_size=48, lr=0.02, label_seed=1), seed=0)
    predicted = inference.logits(model, train.inputs()).argmax(1)
    assert (predicted == labels).float().mean() > 0.95 and history.train_accuracy[-1] > 0.95
    assert (predicted == train.labels).float().mean() < 0.5


def test_flip_crop_moves_and_mirrors_pixels_and_changes_none():
    images = torch.arange(4 * 3 * 16 * 16).remainder(251).to(torch.uint8).view(4, 3, 16, 16)
    out = augmentation.flip_crop(images, torch.Generator().manual_seed(0))
    assert out.shape == images.shape and out.dtype == torch.uint8
    for before, after in zip(images, out):
        middle = before[:, 4:12, 4:12]
        windows = [
            image[:, r : r + 8, c : c + 8] for image in (after, after.flip(2)) for r in range(9) for c in range(9)
        ]
        assert any(torch.equal(middle, window) for window in windows)
    assert not torch.equal(out, images)


def test_resized_crop_enlarges_a_part_of_each_picture():
    """Of pictures whose values are their pixels' places, what comes out says which part was taken."""
    side, n = 32, 400
    down, across = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    images = torch.stack([across, down, torch.zeros_like(down)]).float().expand(n, 3, side, side)
    out = augmentation.resized_crop(images, torch.Generator().manual_seed(0))
    assert out.shape == images.shape and out.dtype == images.dtype
    taken = [out[:, k].diff(dim=2 - k)[:, 8:-8, 8:-8].flatten(1).median(1).values for k in (0, 1)]
    width, height = map(torch.abs, taken)  # of the part, relative to the picture: enlarged, pixels move by less
    assert 0.4 < (taken[0] < 0).float().mean() < 0.6 and (taken[1] > 0).all(), "mirrored from left to right alone"
    assert (width <= 1 + 1e-4).all() and (width * height).min() > 0.34 and (width * height).max() > 0.9
    assert (width / height).max() < 4 / 3 + 1e-3 and (width / height).min() > 3 / 4 - 1e-3
    assert (width * height).min() < 0.4 and (width / height).max() > 1.25 and (width / height).min() < 0.8
    for k in (0, 1):
        first, last = out[:, k].flatten(1).min(1).values, out[:, k].flatten(1).max(1).values
        assert ((first < 1) & (last < 25)).any() and ((first > 6) & (last > 30)).any(), "parts from edge to edge"
    assert out[:, 0].min() >= 0 and out[:, 1].max() <= side - 1, "nothing from outside the picture"
    rounded = augmentation.resized_crop(images.to(torch.uint8), torch.Generator().manual_seed(0))
    assert rounded.dtype == torch.uint8 and (rounded - out).abs().max() <= 0.5 + 1e-4


def test_snapshots_and_history():
    val = data.load("digits", "val")
    model, history = fitted(Recipe(epochs=3, lr=0.01), snapshots=(1, 3), val=val)
    assert sorted(history.snapshots) == [1, 3] and len(history.val_accuracy) == 3
    assert all(torch.equal(v, history.snapshots[3][k]) for k, v in model.state_dict().items())
    assert not torch.equal(history.snapshots[1]["0.weight"], history.snapshots[3]["0.weight"])
    assert history.val_accuracy[-1] == pytest.approx(inference.accuracy(model, val.inputs(), val.labels))
    assert not model.training and history.seconds > 0


def test_a_loss_that_is_not_finite_stops_with_its_epoch():
    with pytest.raises(FloatingPointError, match=r"loss of epoch 1 is (nan|inf): lower the learning rate \(1e\+30\)"):
        fitted(Recipe("sgd_step", epochs=3, lr=1e30))


def test_bfloat16_and_channels_last_are_options_of_the_recipe(monkeypatch):
    monkeypatch.delenv("SALIENCY_PRECISION", raising=False)
    assert Recipe(device="cuda").bfloat16 and not Recipe(device="cuda", bfloat16=False).bfloat16
    recipes = [Recipe("sgd_step", epochs=1, lr=0.01, device="cpu", bfloat16=b) for b in (True, False)]
    half, full = (fitted(recipe)[0] for recipe in recipes)
    assert half[0].weight.dtype == torch.float32 and not torch.equal(weights(half), weights(full))
    moved = (weights(full) - weights(fresh())).norm()
    assert (weights(half) - weights(full)).norm() < 0.1 * moved


@pytest.mark.parametrize("able", ["avx512_bf16", "amx_bf16", "avx2"])
def test_a_cpu_trains_in_bfloat16_if_it_computes_in_it(able, monkeypatch):
    """What it can is asked of PyTorch; nothing is timed, so that a machine always gives the same weights."""
    monkeypatch.delenv("SALIENCY_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {able: True})
    assert Recipe(device="cpu").bfloat16 == (able != "avx2") and Recipe(device="cpu").channels_last
    monkeypatch.setenv("SALIENCY_PRECISION", "float32")
    assert not Recipe(device="cpu").bfloat16 and not Recipe(device="cuda").bfloat16
    assert Recipe(device="cpu", bfloat16=True).bfloat16, "what a recipe says goes before"
    monkeypatch.setenv("SALIENCY_PRECISION", "half")
    with pytest.raises(ValueError, match="SALIENCY_PRECISION='half' is unknown"):
        Recipe()


def test_validation_is_measured_where_weights_are_kept_and_at_the_end(monkeypatch):
    seen, val = [], data.load("digits", "val", n=50)
    monkeypatch.setattr(training, "accuracy", lambda model, x, labels: seen.append(len(x)) or 0.5)
    _, history = fitted(Recipe(epochs=4, lr=0.01), snapshots=(2,), val=val)
    assert seen == [50, 50] and history.val_accuracy == [None, 0.5, None, 0.5]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"schedule": "sgd"}, "unknown schedule"),
        ({"augment": "mixup"}, "unknown augment"),
        ({"device": "tpu"}, "unknown device"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_bad_recipes_get_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**options)


def test_fit_asks_for_a_rate():
    with pytest.raises(ValueError, match="no learning rate"):
        fitted(Recipe())


def test_rates_are_the_best_of_the_stated_sweep():
    with (Path(__file__).parent / "benchmarks" / "learning_rates.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["accuracy"] != "diverged"]
    for network, rate in recipe.MAX_LR.items():
        source = "vgg11" if network.startswith("vgg") else network  # swept once for all three
        swept = {float(r["rate"]): float(r["accuracy"]) for r in rows if r["network"].split("-")[0] == source}
        assert len(swept) >= 3 and swept[rate] == max(swept.values()), network
    assert training.max_lr("resnet18") == training.max_lr("resnet_small") == 0.01


STACKABLE = [
    ("convnet-w4-d1-none", "none", {}),
    ("convnet-w3-d2-max", "relu", {"channels_last": False}),
    ("convnet-w4-d3-avg", "tanh", {"augment": "flip_crop"}),
    ("convnet-w4-d2-max", "softplus", {"schedule": "sgd_step"}),
    # without Adam, which makes steps of the rounding of its many gradients next to zero: 3e-5 of the norm on a CPU
    ("mlp", "relu", {"label_seed": 4, "schedule": "sgd_step"}),
]


JOINT = Path(__file__).parent / "benchmarks" / "joint_training.csv"


def measured(device="cpu"):
    with JOINT.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["device"] == device and row["executor"] == "processes"]


@pytest.mark.parametrize("size", [8, 28])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("pool", ["none", "max", "avg"])
@pytest.mark.parametrize("width", [4, 8, 16, 32, 64])
def test_the_way_that_is_fixed_is_about_the_fastest_that_was_measured(size, depth, pool, width):
    fixed = training.fastest(f"convnet-w{width}-d{depth}-{pool}", size, "cpu")
    way = ("stacked" if fixed["together"] > 1 else "loop", "channels_last" if fixed["channels_last"] else "contiguous")
    cell = [str(size), str(depth), pool, str(width)]
    here = [row for row in measured() if [row[k] for k in ("size", "depth", "pool", "width")] == cell]
    times = {(row["way"], row["layout"]): float(row["ms"]) for row in here}
    assert len(times) == 4 and times[way] <= 1.25 * min(times.values())


def test_side_by_side_pays_by_a_fifth_in_bfloat16_too_wherever_it_is_chosen():
    times, chosen = {}, 0
    for row in measured("cpu-bf16"):
        cell = (f"convnet-w{row['width']}-d{row['depth']}-{row['pool']}", int(row["size"]))
        ways = times.setdefault(cell, {})
        ways[row["way"]] = min(float(row["ms"]), ways.get(row["way"], math.inf))
    assert len(times) == 90
    for cell, ways in times.items():
        if training.fastest(*cell, "cpu")["together"] > 1:
            chosen += 1
            assert ways["loop"] >= 1.2 * ways["stacked"], cell
    assert chosen == 27


def test_nothing_is_fixed_for_a_device_that_was_not_measured():
    assert training.fastest("convnet-w4-d1-max", 8, "cuda") == {"device": "cuda"}
    assert training.fastest("convnet-w4-d1-max", 8)["device"] == training.default_device()
    with pytest.raises(ValueError, match="only convnets were measured, such as convnet-w16-d2-max, not 'resnet18'"):
        training.fastest("resnet18", 32)


@pytest.mark.parametrize("name,activation,options", STACKABLE)
def test_side_by_side_gives_the_weights_of_one_after_the_other(name, activation, options):
    def networks():
        made = []
        for i in range(3):
            with seeded(i):
                made.append(models.build(name, 10, 1, activation=activation, size=8))
        return made

    recipe, val = Recipe(epochs=2, lr=3e-3, batch_size=48, **options), data.load("digits", "val", n=60)
    alone, together, seeds = networks(), networks(), [11, 12, 13]
    one = [training.fit(m, digits(), recipe, seed, (1,), val) for m, seed in zip(alone, seeds)]
    joint = training.fit_together(together, digits(), recipe, seeds, (1,), val)
    for a, b, x, y in zip(alone, together, one, joint):
        assert a.state_dict().keys() == b.state_dict().keys() and not b.training
        for key, value in a.state_dict().items():
            # by norm: where a gradient is next to zero, Adam turns its rounding into a step
            assert (b.state_dict()[key] - value).norm() <= 1e-5 * value.norm()
            assert (y.snapshots[1][key] - x.snapshots[1][key]).norm() <= 1e-5 * value.norm()
        assert y.loss == pytest.approx(x.loss, rel=1e-4)
        assert y.train_accuracy == pytest.approx(x.train_accuracy, abs=0.011)
        assert y.val_accuracy == pytest.approx(x.val_accuracy, abs=0.02)
    assert not torch.allclose(weights(together[0]), weights(together[1]))


ODD = [{"padding_mode": "reflect"}, {"padding_mode": "circular", "bias": False}, {"stride": 2, "dilation": 2}]


@pytest.mark.parametrize("options", ODD, ids=str)
def test_layers_with_options_are_stacked_as_they_are(options):
    nets, features = [], 16 if "stride" in options else 64
    for seed in range(3):
        with seeded(seed):
            conv, linear = nn.Conv2d(1, 4, 3, padding=1, **options), nn.Linear(features, 10, bias=False)
        nets.append(nn.Sequential(conv, nn.ReLU(inplace=True), nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), linear))
    x = torch.randn(5, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    together = Stacked(nets)(x.flatten(1, 2))
    torch.testing.assert_close(together, torch.stack([net(x[:, i]) for i, net in enumerate(nets)]))


class Own(nn.Sequential):
    """Does something else than its layers one after the other."""

    def forward(self, x):
        return 2 * super().forward(x)


class OwnConv(nn.Conv2d):
    """A convolution that standardises its weights, say."""


def plain(*modules):
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(64, 10))


REFUSED = {
    "a Own cannot be stacked": lambda i: Own(nn.Flatten(), nn.Linear(64, 10)),
    "a ResNetSmall cannot be stacked": lambda i: models.build("resnet_small", 10),
    "a BatchNorm2d cannot be stacked": lambda i: plain(nn.BatchNorm2d(1)),
    "a OwnConv cannot be stacked": lambda i: plain(OwnConv(1, 1, 1)),
    "different architectures": lambda i: plain(*[nn.Conv2d(1, 1, 1)] * i),
    "flatten once and end in a linear layer": lambda i: nn.Sequential(nn.Conv2d(1, 10, 8)),
    "frozen parameters": lambda i: plain(nn.Conv2d(1, 1, 1)).requires_grad_(False),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_network_that_cannot_be_stacked_is_refused(message):
    with seeded(0):
        nets = [REFUSED[message](i) for i in range(2)]
    with pytest.raises(ValueError, match=f"{message}.*together=1"):
        Stacked(nets)


def test_every_network_needs_a_seed():
    with pytest.raises(ValueError, match="there are 2 networks, 1 seeds"):
        training.fit_together([fresh(), fresh()], digits(), Recipe(epochs=1, lr=0.01), [0])


def test_flip_crop_mirrors_half_of_the_pictures_and_shifts_by_up_to_an_eighth_either_way():
    down, across = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    images = torch.stack([across, down]).to(torch.uint8).expand(400, 2, 16, 16)
    out = augmentation.flip_crop(images, torch.Generator().manual_seed(0)).long()
    mirrored = out[:, 0, 8, 8] < out[:, 0, 8, 7]
    assert 0.4 < mirrored.float().mean() < 0.6
    assert set((out[:, 1, 8, 8] - 8).tolist()) == {-2, -1, 0, 1, 2}
    assert set((out[~mirrored][:, 0, 8, 8] - 8).tolist()) == {-2, -1, 0, 1, 2}


def test_the_loss_of_an_epoch_is_its_mean_over_images():
    train = digits(130)
    model, history = fitted(Recipe(epochs=1, batch_size=64, lr=1e-9), train=train)
    loss = F.cross_entropy(model(train.inputs()), train.labels).item()
    assert history.loss[0] == pytest.approx(loss, rel=1e-3)


def test_momentum_and_weight_decay_are_the_recipes():
    for schedule in ("sgd_step", "adam_onecycle"):
        recipe = Recipe(schedule, lr=0.01, momentum=0.8, weight_decay=0.1)
        (group,) = training._optimizer(fresh(), recipe, steps=10)[0].param_groups
        assert group["weight_decay"] == 0.1 and group.get("momentum", 0.8) == 0.8
