"""How a verdict looks as a line of a table, in Markdown that GitHub and the site show alike."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from saliency_lib.book import claims
from saliency_lib.book.claims import AGREES, CANNOT_TELL, DIFFERS, IDENTITY, NOT_TESTABLE, SECOND, TO_RUN, number

WORDS = {
    AGREES: "agree",
    DIFFERS: "differ",
    CANNOT_TELL: "open",
    IDENTITY: "hold by construction",
    NOT_TESTABLE: "not testable",
    TO_RUN: "to be run again",
}
SIGNS = {AGREES: "✓", DIFFERS: "✗", CANNOT_TELL: "?", IDENTITY: "=", NOT_TESTABLE: "–", TO_RUN: "↻"}
UNFOLDED = 4  # quantities that a claim shows at once
MANY = 1000  # beyond which a number needed says no more than that


def row(folder: Path, verdict: dict, of_seeds: Sequence[str]) -> list[str]:
    """A claim as a line of a table; many quantities are folded under how many of them agree."""
    name, what, quantities = verdict["claim"], verdict["verdict"], verdict["quantities"]
    claim = claims.all_claims()[name]
    here = "<br>".join(_measured(q, signed=len(quantities) > 1) for q in quantities)
    if len(quantities) > UNFOLDED:
        here = f"<details><summary>{len(quantities)} quantities: {counts(quantities, ', ')}</summary>{here}</details>"
    if verdict["remark"]:
        here += "<br>" * bool(here) + f"<i>{plain(verdict['remark'])}</i>"
    head = f"{place(folder, name)}**{name}** {plain(claim['claim'])}"
    source = f"({claim['place']}; {jump(folder, verdict['figure'])})"
    badge = f'<span class="badge {what.split()[0]}">{SIGNS[what]} {what}</span>'
    if other := verdict.get("second reading"):
        badge += f"<br>{SIGNS[other]} by a second reading"
    if len(of_seeds) > 1:
        badge += f"<br>the same with {of_seeds[1:].count(what)} of {len(of_seeds) - 1} other seeds"
    return [f"{head}<br>{source}", claim["number"] or "–", here, badge]


def said(verdict: dict) -> str:
    """A verdict in a line, for under its figure."""
    what, claim = verdict["verdict"], claims.all_claims()[verdict["claim"]]["claim"]
    quantities = [q for q in verdict["quantities"] if q["reading"] != SECOND]
    if len(quantities) == 1:
        found = f"{claims.interval(quantities[0])}, agrees if {quantities[0]['holds']}"
    else:
        found = f"{len(quantities)} quantities: {counts(quantities, ', ')}" if quantities else verdict["remark"]
        if what in (DIFFERS, CANNOT_TELL) and (deciding := [q for q in quantities if q["verdict"] == what]):
            name, holds = deciding[0]["name"], deciding[0]["holds"]
            found += f"; {name}: {claims.interval(deciding[0])}, agrees if {holds}"
    if other := verdict.get("second reading"):
        found += f"; by a second reading {SIGNS[other]} {other}"
    if quantities and verdict["remark"]:
        found += f"; {verdict['remark']}"
    return f"{SIGNS[what]} {verdict['claim']} {what}: {claim} ({found})"


def _measured(quantity: dict, *, signed: bool) -> str:
    """A quantity with its interval and range, after the sign of its verdict if it is one of several."""
    value, interval = claims.interval(quantity).split(" ", 1)
    name = plain(quantity["name"]) + f" ({SECOND} reading)" * (quantity["reading"] == SECOND)
    units = f"{quantity['n']} {quantity['unit']}" if quantity.get("n") else quantity["unit"]
    needed = int(float(number(quantity.get("needed", 0))))
    many = f"some {needed:,}" if needed <= MANY else f"more than {MANY:,}"
    settled = f"; {many} would settle it" if needed else ""
    over = f" over {units}" if quantity["value"] is not None else ", not measurable here"
    text = f"{name}: **{value}** {interval}{over}; agrees if {quantity['holds']}{settled}"
    return f"{SIGNS[_verdict(quantity)]} {text}" if signed else text


def _verdict(of: dict) -> str:
    """That of a claim or a quantity; a quantity that holds by construction does not count as agreement."""
    return IDENTITY if of.get("reading") == IDENTITY and of["verdict"] == AGREES else of["verdict"]


def counts(verdicts: Iterable[dict], between: str) -> str:
    """How many verdicts there are of each kind, in words."""
    of = Counter(_verdict(verdict) for verdict in verdicts)
    return between.join(f"{of[verdict]} {word}" for verdict, word in WORDS.items() if of[verdict])


def place(folder: Path, name: str) -> str:
    """A place to jump to."""
    return f'<a id="{folder.name}-{name}"></a>'


def jump(folder: Path, name: str) -> str:
    """A link to it."""
    return f'<a href="#{folder.name}-{name}">{name}</a>'


def plain(text: str) -> str:
    """Text as a cell of a table and as HTML holds it."""
    return escape(text, quote=False).replace('"', "&quot;").replace("|", "&#124;").replace("*", "&#42;")
