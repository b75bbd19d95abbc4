"""Numbers that a text quotes with their intervals, written anew from the figures.

A part of a text ends with a comment that names what it quotes, a line each, in the order in which they stand:

    <!-- quotes
    02_gradients: SNR.mean
    percent of 01_accuracy_spread: accuracy
    -->

A figure of another folder than the usual one stands with it, ``cifar10-resnet18/02_controls``.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache

from saliency_lib.book.compare import ESTIMATE, flatten
from saliency_lib.runtime.store import PROJECT

FIGURES = PROJECT / "figures"
NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"
QUOTE = re.compile(rf"{NUMBER}(\s*%?\s*\[){NUMBER}(\s*%?,\s*){NUMBER}")
KEYS = re.compile(r"<!-- quotes\n(.*?)-->", re.S)
# What publish makes as a whole, from the same numbers.
MADE = re.compile(r"<!-- (?!end of |quotes)([^>\n]+) -->.*?<!-- end of \1 -->", re.S)
LINES = re.compile(r'\\n",\s+"')  # between two lines of a cell
FORMS: dict[str, Callable[[float], float]] = {
    "minus ": lambda x: -x,
    "percent of ": lambda x: 100 * x,
    "one over ": lambda x: 1 / x,
    "": lambda x: x,
}


@cache
def estimates(figure: str) -> dict[str, dict]:
    """What has an interval in a figure's JSON, by name: numbers, series, and ``W01: quantity`` of verdicts."""
    path = FIGURES / f"{figure if '/' in figure else f'quick/{figure}'}.json"
    if not path.exists():
        raise ValueError(f"a text quotes the figure {figure!r}, which there is not")
    made = json.loads(path.read_text(encoding="utf-8"))
    leaves = flatten(made.get("series", {})) | flatten(made["numbers"])
    leaves |= {f"{v['claim']}: {q['name']}": q for v in made["verdicts"] for q in v["quantities"]}
    return {key: e for key, e in leaves.items() if isinstance(e, dict) and set(e) >= ESTIMATE and e["low"] is not None}


def found(key: str) -> list[float]:
    """Value and ends of what a line of the comment names."""
    form = next(form for form in FORMS if key.startswith(form))
    figure, _, name = key.removeprefix(form).partition(": ")
    known = estimates(figure)
    if name not in known:
        raise ValueError(f"a text quotes {name!r}, which is not in the figure {figure}")
    value, *ends = (FORMS[form](known[name][side]) for side in ("value", "low", "high"))
    return [value, *sorted(ends)]


def like(old: str, value: float) -> str:
    """A number with as many decimals as an old one; no negative zero."""
    new = f"{value:,.{len(old.partition('.')[2])}f}"
    return new if float(new.replace(",", "")) else new.removeprefix("-")


def quotes(text: str) -> Iterator[re.Match]:
    """Numbers with intervals in a text, but for what publish makes as a whole."""
    made = [match.span() for match in MADE.finditer(text)]
    for match in QUOTE.finditer(text):
        if not any(start <= match.start() < end for start, end in made):
            yield match


def refreshed(text: str) -> str:
    """The text with its quotes as the figures have them, with as many digits as before.

    Raises
    ------
    ValueError
        For quotes that are not as many as the lines of the comment, and for what no figure has.
    """
    keys: list[str] = []
    for block in KEYS.finditer(text):
        keys += block[1].split("\n")[:-1]
        if (count := sum(match.end() <= block.start() for match in quotes(text))) != len(keys):
            raise ValueError(
                f"{count} numbers have intervals up to the comment that ends with {keys[-1]!r}, not {len(keys)}"
            )
    here = list(quotes(text))
    if len(here) != len(keys):
        raise ValueError(f"no comment says where {here[len(keys)][0]} ... comes from")
    for match, key in reversed(list(zip(here, keys))):
        numbers = [like(old, value) for old, value in zip(match.group(1, 3, 5), found(key))]
        new = "".join((numbers[0], match[2], numbers[1], match[4], numbers[2]))
        text = text[: match.start()] + new + text[match.end() :]
    return text


def jumps(old: str, new: str) -> Iterator[str]:
    """Quotes that left their old interval when a page or a notebook was refreshed."""
    for before, now in zip(*(quotes(LINES.sub("\n", text)) for text in (old, new))):
        value, low, high = (float(part.replace(",", "")) for part in (now[1], before[3], before[5]))
        if not low <= value <= high:
            yield f"{' '.join(before[0].split())}] became {' '.join(now[0].split())}]"


def refreshed_notebook(text: str) -> str:
    """A notebook's JSON with the quotes of its Markdown cells refreshed."""
    book = json.loads(text)
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = refreshed("".join(cell["source"])).splitlines(True)
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"
