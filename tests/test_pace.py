"""How long a run will take."""

import pytest

from saliency_lib.book import pace, profiles


def test_minutes_are_those_of_the_notebooks_and_what_is_left_shrinks():
    every = profiles.notebooks()
    assert pace.minutes(every) > pace.minutes(every[:3]) > pace.minutes([]) == 0
    first, second, *rest = every
    later = pace.left(600, [first, second], rest[:1], rest[1:])
    assert 0 < pace.left(600, [first, second, *rest[:-1]], [], rest[-1:]) < later
    assert pace.left(10, [], [], every) == 0 == pace.left(600, every, [], [])


def test_a_slower_machine_takes_longer(monkeypatch):
    times = []
    for speed in (pace.REFERENCE, pace.REFERENCE / 3):
        monkeypatch.setattr(pace, "images_a_second", lambda speed=speed: speed)
        times.append(pace.expected(profiles.notebooks()))
    assert times[1] / times[0] == pytest.approx(3)
    assert times[0] * pace.cores() == pytest.approx(pace.minutes(profiles.notebooks()))


def test_training_is_timed_and_leaves_threads_as_they_are():
    import torch

    before = torch.get_num_threads()
    assert pace.images_a_second(64) > 0 and torch.get_num_threads() == before
