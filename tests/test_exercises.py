"""Every solution is right by its check, wrong answers get a hint, and no hint gives the answer away."""

import ast
import json
import re

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from saliency_lib.book import exercises, plotting, profiles
from saliency_lib.book.answers import edges, initialisation, stand_ins, weights_and_layers  # registers them
from saliency_lib.similarity import spearman

assert edges and initialisation and stand_ins and weights_and_layers
ANSWERS = exercises.ANSWERS


def estimate(value):
    return {"value": value, "low": value, "high": value}


NUMBERS = {  # of a run
    "01_training_curves": {"mean accuracy": {"main": estimate(0.93)}},
    "01_agreement": {"share of images on which two members disagree": estimate(0.07)},
    "01_accuracy_spread": {"all members right": estimate(0.82)},
    "05_logits": {"logit": {"one network": {"own": estimate(20.0), "unseen": estimate(14.0)}}},
    "06_sigma": {"sigma": estimate(0.2)},
    "07_rank_correlation": {"rank correlation": {"cnn, digits": {"guided backprop": {"half redrawn": estimate(0.9)}}}},
    "11_surrogate": {"nearer than one gradient": {"8 x NoiseGrad": estimate(0.03), "2 x retrained": estimate(0.1)}},
    "12_spectrum": {"peak": {"trained": estimate(2.7)}},
}
PREDICTED = {"01-1": 0.82, "05-1": 0.7, "06-2": 0.2, "07-3": 0.9, "11-1": 1.3, "12-1": 2.7}


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch):
    """A run whose figures have these numbers."""
    monkeypatch.setenv("SALIENCY_FIGURES", str(tmp_path))
    (tmp_path / "quick").mkdir()
    for name, numbers in NUMBERS.items():
        (tmp_path / "quick" / f"{name}.json").write_text(json.dumps({"numbers": numbers}))
    parameters = {"profile": "quick", "dataset": "digits", "main": {"n_members": 16}, "n_gradients": [1, 8]}
    made = plotting.Run("x", parameters)
    monkeypatch.setattr(plotting, "RUNS", [made])


def cells(name, tag):
    """Sources of a notebook's cells with a tag that have a check."""
    book = profiles.read_notebook(name)
    return [c.source for c in book.cells if tag in c.metadata.get("tags", []) and 'check("' in c.source]


def told(source):
    """What the checks of a cell say, by exercise."""
    said = {}

    def check(name, answer=None):
        name, _, words = exercises.check(name, answer).rstrip(".").partition(": ")
        said[name] = words

    names = {
        "np": np,
        "torch": torch,
        "F": nn.functional,
        "nets": [None] * 16,
        "dataset": "digits",
        "n_gradients": [1, 8],
    }
    exec(source.replace("import check", "import check as _"), names | {"check": check, "measured": exercises.measured})
    assert ast.unparse(ast.parse(source).body[-1]).startswith("check("), "what a cell ends with is shown"
    return said


@pytest.mark.parametrize("name", profiles.notebooks())
def test_solutions_are_right_and_what_stands_there_first_is_not(name):
    asked, solved = {}, {}
    for source in cells(name, "exercise"):
        asked |= told(source)
    for source in cells(name, "solution"):
        solved |= told(source)
    number = name[:2]
    assert asked.keys() == solved.keys() == {e for e in ANSWERS if e.startswith(number)} and len(asked) >= 3
    assert set(solved.values()) == {exercises.RIGHT}
    assert exercises.RIGHT not in asked.values()
    assert sum("None" in hint for hint in asked.values()) < len(asked), "one at least has a line to change"


def wrong(name):
    """Two answers that are wrong for any exercise, and what is no answer."""
    return [lambda *given: torch.tensor(-7.7), lambda *given: torch.zeros(2, 9), "a word", lambda: None, -1e9, 1e9]


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_wrong_answers_get_a_sentence(name):
    for answer in wrong(name):
        assert ANSWERS[name](answer) not in ("", exercises.RIGHT), answer


@pytest.mark.parametrize("name", sorted(PREDICTED))
def test_a_prediction_need_only_be_near(name):
    value = PREDICTED[name]
    assert ANSWERS[name](value) == ""
    assert ANSWERS[name](value * 1.02) == "" and ANSWERS[name](value * 2) == "too large"


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_hints_do_not_give_numbers_away(name):
    hints = {ANSWERS[name](answer) for answer in wrong(name)}
    assert not re.search(r"\d\.\d", " ".join(hints))


def test_slips_are_named():
    plugin = exercises.check("02-2", lambda plugin, n: plugin)
    assert repr(plugin) == "02-2: that is the plug-in value; subtract what noise adds."
    assert exercises.check("02-1", 1 / 16) == "02-1: that would be its square, a ratio of powers."
    assert exercises.check("06-1", lambda net, sigma: net) == "06-1: every single weight has a factor of its own."
    no_floor = exercises.check("02-2", lambda plugin, n: (plugin**2 - 1 / n) ** 0.5)
    assert no_floor == "02-2: your function gives a complex number: it takes a root of what can be negative."
    weakest = exercises.check(
        "06-3", lambda m, mask: mask.flatten()[(-m).flatten().topk(mask.sum()).indices].float().mean()
    )
    assert weakest == "06-3: those are the weakest pixels."


def test_half_of_the_pixels_black_is_what_many_draws_give():
    picture = torch.ones(400, 1, 16, 16)
    picture[..., :8] = 0
    alike = spearman(*(picture * exercises.noise(*picture.shape, seed=k) for k in (0, 1)), absolute=True)
    assert ANSWERS["10-3"](alike.mean()) == "" and ANSWERS["10-3"](3 * 0.5 / 1.75) == ""


def test_noise_on_weights_must_leave_the_network_alone():
    def in_place(net, sigma):
        net.weight.mul_(1 + sigma * torch.randn_like(net.weight))
        return net

    assert "changes the network" in ANSWERS["06-1"](in_place)


def test_an_exercise_that_there_is_not_and_a_figure_that_is_not_drawn(tmp_path):
    with pytest.raises(ValueError, match="no exercise '02-9'; there are 01-1, 01-2"):
        exercises.check("02-9", 1)
    (tmp_path / "quick" / "06_sigma.json").unlink()
    with pytest.raises(ValueError, match="the figure 06_sigma is not drawn yet"):
        exercises.check("06-2", 0.1)
    assert exercises.check("06-2") == "06-2: put your answer in place of None."


def test_students_get_the_exercises_and_not_the_solutions():
    from saliency_lib.book import site

    for name in profiles.notebooks():
        book = profiles.read_notebook(name)
        student = site.shown(nbformat.from_dict(book), name, solutions=False)
        text = "\n".join(cell.source for cell in student.cells)
        assert text.count('check("') == len(cells(name, "exercise")) >= 3
