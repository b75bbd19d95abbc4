"""The parts of the site that are made from the figures' numbers: gallery, map, verdicts, deviations, minutes."""

import json
from collections import Counter
from html import escape
from pathlib import Path

import pandas as pd

from saliency_lib.book import claims, pipeline, profiles
from saliency_lib.book.claims import AGREES, CANNOT_TELL, DIFFERS, NOT_TESTABLE
from saliency_lib.book.site import books
from saliency_lib.estimates import number

PAPERS = {
    "W": "Woerl et al. 2023, initialisation noise",
    "B": "Bykov et al. 2022, NoiseGrad",
    "A": "Adebayo et al. 2018, sanity checks",
    "H": "Herdt et al. 2024, smooth deep saliency",
}
VERDICTS = (AGREES, DIFFERS, CANNOT_TELL, NOT_TESTABLE)
SIGNS = dict(zip(VERDICTS, "✓✗?–"))


def _figures(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _notebook(figure: str) -> str:
    return next(name for name in profiles.notebooks() if name[:2] == figure[:2])


def _badge(verdict: str, text: str = "") -> str:
    return f'<span class="badge {verdict.split()[0]}">{escape(text or verdict)}</span>'


def toctree() -> str:
    """Lines of a table of contents: the notebooks by number and heading."""
    return "\n".join(f"{name[:2]} {books.title(name)} <notebooks/{name}>" for name in profiles.notebooks())


def gallery(folder: Path, place: str = "figures") -> str:
    """Every figure, from ``_static/<place>``, as a picture with what it reproduces and a link to its notebook; HTML."""
    cells = [
        f'<a href="notebooks/{_notebook(f["id"])}.html"><img src="_static/{place}/{f["id"]}.png" loading="lazy" '
        f'alt="{escape(f["alt"])}"><span>{f["id"]}<br>{escape(f["paper"])}</span></a>'
        for f in _figures(folder)
    ]
    return '<div class="gallery">\n' + "\n".join(cells) + "\n</div>"


def paper_map(folder: Path) -> str:
    """A paper's figure or table, notebook, our figure, verdicts of the claims tested there: a table in Markdown."""
    signs = ", ".join(f"{_badge(v, SIGNS[v])} {v}" for v in VERDICTS)
    lines = [signs + "\n", "| in the papers | notebook: our figure | claims |", "|---|---|---|"]
    for figure in _figures(folder):
        if figure["paper"].startswith("beyond the paper"):
            continue
        judged = " ".join(
            f'<a href="verdicts.html#{v["claim"]}" title="{v["verdict"]}">'
            f'{_badge(v["verdict"], v["claim"] + " " + SIGNS[v["verdict"]])}</a>'
            for v in figure["verdicts"]
        )  # fmt: skip
        name = _notebook(figure["id"])
        picture = f'<a href="_static/figures/{figure["id"]}.png">{figure["id"][3:]}</a>'
        lines.append(f"| {figure['paper']} | [{name[:2]}](notebooks/{name}.ipynb): {picture} | {judged or '–'} |")
    return "\n".join(lines)


def _judged(folder: Path) -> dict[str, dict]:
    """Verdicts on all claims; ValueError names those without one."""
    judged = claims.verdicts(folder)
    if missing := [claim for claim in claims.all_claims() if claim not in judged]:
        raise ValueError(f"claims without a verdict in {folder}: {', '.join(missing)}; run their notebooks")
    return judged


def summary(folder: Path) -> str:
    """How many claims of each paper agree, differ, cannot be told, cannot be tested: a table in Markdown."""
    counts = Counter((claim[0], v["verdict"]) for claim, v in _judged(folder).items())
    rows = [{"paper": title} | {v: counts[paper, v] for v in VERDICTS} for paper, title in PAPERS.items()]
    table = pd.DataFrame(rows).set_index("paper")
    table.loc["**all four**"] = table.sum()
    lines = [
        "| | " + " | ".join(_badge(v, v.removesuffix(" at this size")) for v in VERDICTS) + " |",
        "|---|" + "---:|" * len(VERDICTS),
    ]
    return "\n".join(
        [*lines, *(f"| {paper} | " + " | ".join(map(str, row)) + " |" for paper, *row in table.itertuples())]
    )


def verdicts(folder: Path) -> str:
    """Every claim with the paper's number, ours with intervals, and the verdict; HTML, a heading for each paper."""
    return blocks(_judged(folder))


def blocks(verdicts: dict[str, dict], pictures: str = "") -> str:
    """The same for some claims; figures are links to their notebooks, or to ``<pictures>/<id>.png``."""
    known, paper, parts = claims.all_claims(), "", []
    for claim, judged in verdicts.items():
        if claim[0] != paper:
            paper = claim[0]
            parts.append(f"\n## {PAPERS[paper]}\n")
        row, measured = known[claim], []
        for q in judged["quantities"]:
            value = f"<b>{number(q['value'])}</b> [{number(q['low'])}, {number(q['high'])}]"
            measured.append(f"<li>{escape(q['name'])}: {value} over {escape(q['over'])}; agrees if {q['holds']}"
                            f" {_badge(q['verdict']) if len(judged['quantities']) > 1 else ''}</li>")  # fmt: skip
        place = f"{row['place']}; the paper gives {row['number']}" if row["number"] else row["place"]
        figure = judged["figure"]
        target = f"{pictures}/{figure}.png" if pictures else f"notebooks/{_notebook(figure)}.html"
        link = f'<a href="{target}">{figure}</a>'
        parts.append(
            f'<div class="claim" id="{claim}"><p>{_badge(judged["verdict"])} <b>{claim}</b> {escape(row["claim"])}</p>'
            f'<p class="place">{escape(place)}. Ours: {link}</p><ul>{"".join(measured)}</ul>'
            + (f"<p><i>{escape(judged['remark'])}</i></p>" if judged["remark"] else "")
            + "</div>"
        )
    return "\n".join(parts)


def deviations() -> str:
    """What every notebook says of its differences from its paper, in Markdown."""
    reproducing = [
        name for name in profiles.notebooks() if name[:2] in {r["notebook"] for r in claims.all_claims().values()}
    ]
    return "\n\n".join(
        f"## {name[:2]} {books.title(name)}\n\n{books.differences(name)}\n\n[Read the notebook](notebooks/{name}.ipynb)"
        for name in reproducing
    )


def minutes(results: list[pipeline.Result]) -> str:
    """What each notebook needs and how long it took in this build: a table in Markdown."""
    lines = ["| notebook | uses networks of | minutes here |", "|---|---|---:|"]
    for r in results:
        name = r.notebook
        needs = ", ".join(pipeline.needs(name)) or "–"
        lines.append(f"| [{name[:2]} {books.title(name)}](notebooks/{name}.ipynb) | {needs} | {r.seconds / 60:.1f} |")
    return "\n".join(lines)
