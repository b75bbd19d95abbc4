"""A training that is interrupted ends with the weights of one that is not."""

import pytest
import torch
from torch import nn

from saliency_lib import checkpoint, data, training
from saliency_lib.checkpoint import Checkpoint
from saliency_lib.models import build
from saliency_lib.runtime.seeds import seeded

TRAIN = data.load("digits", "train", n=96)


def networks(n):
    with seeded(0):
        return [build("convnet-w8-d2-max", 10, 1, size=8) for _ in range(n)]


class Killed(Exception):
    pass


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("schedule", ["adam_onecycle", "sgd_step"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_it_goes_on_where_it_was(members, schedule, bfloat16, often, tmp_path, monkeypatch):
    recipe = training.Recipe(
        schedule=schedule, epochs=5, batch_size=32, lr=0.01, augment="flip_crop", bfloat16=bfloat16, device="cpu"
    )
    options = dict(seeds=list(range(members)), snapshots=(2, 4), val=TRAIN)
    whole = networks(members)
    expected = training.fit_together(whole, TRAIN, recipe, **options)
    path, epoch, calls = tmp_path / "state.pt", training._epoch, []

    def dying(*arguments):
        calls.append(0)
        trained = epoch(*arguments)
        if len(calls) > 3:
            raise Killed
        return trained

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "_epoch", dying)
        training.fit_together(networks(members), TRAIN, recipe, **options, checkpoint=path)
    assert path.exists()
    epochs = []
    batches = training._batches
    monkeypatch.setattr(training, "_batches", lambda *rest: epochs.append(0) or batches(*rest))
    again = networks(members)
    found = training.fit_together(again, TRAIN, recipe, **options, checkpoint=path)
    assert len(epochs) == 2, "the first three were not trained again"
    for a, b in zip(whole, again):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    for a, b in zip(expected, found):
        assert (a.loss, a.train_accuracy, a.val_accuracy) == (b.loss, b.train_accuracy, b.val_accuracy)
        assert all(torch.equal(a.snapshots[e][k], b.snapshots[e][k]) for e in (2, 4) for k in a.snapshots[e])
    assert not path.exists()


@pytest.mark.parametrize("members", [1, 3])
def test_a_training_that_was_stopped_after_its_last_epoch_gives_what_it_trained(members, often, tmp_path, monkeypatch):
    recipe = training.Recipe(epochs=2, batch_size=32, lr=0.01, device="cpu")
    whole, path = networks(members), tmp_path / "state.pt"
    seeds = list(range(members))
    expected = training.fit_together(whole, TRAIN, recipe, seeds, val=TRAIN)
    monkeypatch.setattr(Checkpoint, "remove", lambda state: None)  # as if it was killed before
    training.fit_together(networks(members), TRAIN, recipe, seeds, val=TRAIN, checkpoint=path)
    again = networks(members)
    found = training.fit_together(again, TRAIN, recipe, seeds, val=TRAIN, checkpoint=path)
    for a, b, old, new in zip(whole, again, expected, found):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
        assert old.val_accuracy == new.val_accuracy and not b.training


def test_dropout_goes_on_too(often, tmp_path):
    layer = nn.Flatten()
    with seeded(3):
        state = Checkpoint(tmp_path / "x", [layer], [], [])
        torch.rand(5)
        state.save(1)
        after = torch.rand(3)
    with seeded(4):
        assert Checkpoint(tmp_path / "x", [layer], [], []).load() == 1
        assert torch.equal(torch.rand(3), after)


def test_what_cannot_be_read_counts_as_nothing_and_short_trainings_write_nothing(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"half a file")
    assert Checkpoint(path, [nn.Flatten()], [], []).load() == 0
    path.unlink()
    Checkpoint(path, [nn.Flatten()], [], []).save(1)
    assert not path.exists()
    nowhere = Checkpoint(None, [], [], [])
    nowhere.save(1)
    nowhere.remove()
    assert nowhere.load() == 0


@pytest.mark.usefixtures("chance")
def test_a_full_disk_stops_no_training(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 1024 vs 918")

    monkeypatch.setattr(checkpoint, "EVERY", 0)
    monkeypatch.setattr(torch, "save", full)
    state = Checkpoint(tmp_path / "state.pt", [nn.Linear(1, 1)], [], [])
    state.save(1)
    assert not list(tmp_path.iterdir()) and state.load() == 0


@pytest.mark.usefixtures("chance")
def test_a_state_without_the_snapshots_that_are_asked_for_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0)
    history = training.History(snapshots={1: {}})
    state = Checkpoint(tmp_path / "state.pt", [nn.Linear(1, 1)], [], [history])
    state.save(2)
    assert state.load() == state.load([1]) == state.load([1, 3]) == 2 and state.load([1, 2]) == 0
