"""``check("02-1", answer)`` tells a student whether an answer is right, or what is off, and not the answer.

An answer is a number, or a function that is tried on a few inputs. What is right comes from a closed form, from the
library, or from the figures of the run, so that it holds at every size and seed.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saliency_lib.book import plotting
from saliency_lib.book.compare import flatten

RIGHT = "right"
ANSWERS: dict[str, Callable[[Any], str]] = {}  # by exercise: what is off with an answer, empty if nothing is


def exercise(name: str):
    """Register what is off with an answer to an exercise."""

    def register(judge: Callable[[Any], str]) -> Callable[[Any], str]:
        ANSWERS[name] = judge
        return judge

    return register


class Told(str):
    """A sentence that a notebook shows as it is."""

    __slots__ = ()
    __repr__ = str.__str__


def check(name: str, answer=None) -> Told:
    """What is to be said of an answer, for the end of a cell.

    Parameters
    ----------
    name : str
        Of the exercise, such as ``"02-1"``.
    answer : float or callable, optional
        None stands for an answer that is still to come.

    Raises
    ------
    ValueError
        For an exercise that there is not.
    """
    from saliency_lib.book import answers  # noqa: F401  registers them

    if name not in ANSWERS:
        raise ValueError(f"there is no exercise {name!r}; there are {', '.join(sorted(ANSWERS))}")
    told = "put your answer in place of None" if answer is None else ANSWERS[name](answer) or RIGHT
    return Told(f"{name}: {told}.")


def measured(figure: str, *path: str) -> float:
    """A value of this run: of a figure, by the names on the way to it.

    Raises
    ------
    ValueError
        Where the run has not drawn that figure yet.
    """
    file = plotting.RUNS[-1].folder / f"{figure}.json"
    if not file.exists():
        raise ValueError(f"the figure {figure} is not drawn yet; run the notebook up to its cell first")
    found: Any = flatten(json.loads(file.read_text(encoding="utf-8"))["numbers"])[".".join(path)]
    return found["value"] if isinstance(found, dict) else found


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers, to try functions on."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def number(answer, right: float, slips: Mapping[str, float], within: float | None = None) -> str:
    """What is off with a number: a known slip, or the side on which it lies. ``within`` is a distance; default 2 %."""
    try:
        value = float(answer)
    except (TypeError, ValueError):
        return f"a number is asked for, not {type(answer).__name__}"

    def near(other: float) -> bool:
        return math.isclose(value, other, rel_tol=0.02, abs_tol=1e-6)

    if near(right) if within is None else abs(value - right) <= within:
        return ""
    for hint, slip in slips.items():
        if near(slip):
            return hint
    return "too large" if value > right else "too small"


def function(answer, right: Callable, inputs: Sequence[tuple], slips: Mapping[str, Callable]) -> str:
    """What is off with a function: it fails, gives another shape, is a known slip, or something else."""
    if not callable(answer):
        return f"a function is asked for, not {type(answer).__name__}"
    try:
        given = [torch.as_tensor(answer(*each)) for each in inputs]
    except Exception as error:  # a student's function may raise anything
        return f"your function raises {type(error).__name__}: {error}"
    if any(each.is_complex() for each in given):
        return "your function gives a complex number: it takes a root of what can be negative"
    given = [each.double() for each in given]

    def like(other: Callable) -> bool:
        wanted = [torch.as_tensor(other(*each)).double() for each in inputs]
        return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(given, wanted))

    if like(right):
        return ""
    for hint, slip in slips.items():
        if like(slip):
            return hint
    for each, got in zip(inputs, given):
        if got.shape != (wanted := torch.as_tensor(right(*each)).shape):
            return f"your function gives {tuple(got.shape)}, and {tuple(wanted)} is asked for"
    return "your function gives other values"
