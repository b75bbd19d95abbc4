"""What texts quote is what figures say: every number with an interval stands in the figures' JSON."""

import json
import re
from collections.abc import Iterator

import pytest

from saliency_lib.book.results import PAPERS_DATA, QUICK
from saliency_lib.runtime.store import PROJECT

NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"
QUOTE = re.compile(rf"{NUMBER}(?:\s*%)?\s*\[{NUMBER}(?:\s*%)?,\s*{NUMBER}")
MADE = re.compile(r"<!-- (?!end of )([^>]+) -->.*?<!-- end of \1 -->", re.S)  # by publish, from the same numbers
FORMS = {
    "as it is": lambda x: x,
    "the other way round": lambda x: -x,
    "in percent": lambda x: 100 * x,
    "percent less": lambda x: -100 * x,
    "percent more than one": lambda x: 100 * (x - 1),
    "percent less than one": lambda x: 100 * (1 - x),
    "inverse": lambda x: 1 / x if x else float("inf"),
}
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
TEXTS = [*NOTEBOOKS, PROJECT / "README.md", PROJECT / "docs" / "teaching.md"]


def text_of(path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return " ".join(MADE.sub("", text).split())


def estimates(value) -> Iterator[tuple]:
    """All estimates anywhere in a figure's JSON."""
    if isinstance(value, dict) and value.keys() >= {"value", "low", "high"}:
        yield value["value"], value["low"], value["high"]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from estimates(item)


def known() -> dict[str, list]:
    found: dict[str, list] = {}
    for path in [*QUICK.glob("*.json"), *PAPERS_DATA.glob("*.json")]:
        all_ = estimates(json.loads(path.read_text(encoding="utf-8")))
        found.setdefault(path.stem[:2], []).extend(e for e in all_ if None not in e)
    return found


def rounds_to(quoted: str, value: float) -> bool:
    digits = len(quoted.partition(".")[2])
    return abs(float(quoted.replace(",", "")) - value) <= 0.51 * 10**-digits


def stands(quote: tuple[str, str, str], pool: list) -> bool:
    for form in FORMS.values():
        for value, low, high in pool:
            ends = sorted((form(low), form(high)))
            if all(map(rounds_to, quote, (form(value), *ends))):
                return True
    return False


KNOWN = known()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_quoted_intervals_are_those_of_the_figures(path):
    pool = KNOWN.get(path.name[:2], []) if path in NOTEBOOKS else sum(KNOWN.values(), [])
    wrong = [quote[0] for quote in QUOTE.finditer(text_of(path)) if not stands(quote.groups(), pool)]
    assert not wrong, f"{path.name} quotes what no figure says: {wrong}"


def test_a_wrong_quote_is_found():
    pool = [(0.123, 0.1, 0.146)]
    for right in ("0.123 [0.100, 0.146]", "12 % [10 %, 15 %]", "-0.12 [-0.15, -0.10]"):
        assert stands(QUOTE.search(right).groups(), pool), right
    for wrong in ("0.124 [0.100, 0.146]", "0.12 [0.10, 0.16]", "12 [11, 15]"):
        assert not stands(QUOTE.search(wrong).groups(), pool), wrong
