"""An audit on one page that needs no other file, and its sentences and tables as JSON."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from saliency_lib.book.plotting import Run, plain
from saliency_lib.runtime.store import atomic

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; height: auto; }
div.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
.problems { border-left: 4px solid #a84300; padding-left: 1rem; }
footer { font-size: 0.8rem; color: #555; margin-top: 3rem; }
"""


def write(
    run: Run,
    title: str,
    summary: dict[str, Sequence[str]],
    problems: Sequence[str],
    tables: dict[str, pd.DataFrame],
    figures: dict[str, str],
    settings: dict,
) -> Path:
    """Write ``report/audit.html`` and ``report/audit.json`` beside the run's figures; the path of the page.

    Parameters
    ----------
    summary : dict
        Heading to sentences; the tables and figures of a heading follow it.
    problems : list of str
        What could not be done.
    tables, figures : dict
        By heading; a figure is the name of one that the run has saved, and its numbers go into the JSON.
    settings : dict
        To be named on the page.
    """
    provenance = run.provenance()
    parts = [f"<h1>{escape(title)}</h1>"]
    if problems:
        parts.append('<div class="problems"><h2>What could not be done</h2>' + _list(problems) + "</div>")
    for heading, sentences in summary.items():
        parts.append(f"<h2>{escape(heading)}</h2>" + _list(sentences))
        if heading in figures:
            parts.append(_picture(run.folder / figures[heading]))
        if heading in tables:
            parts.append(f'<div class="table">{tables[heading].to_html(border=0)}</div>')
    told = ", ".join(f"{escape(str(k))} = {escape(str(v))}" for k, v in settings.items())
    versions = ", ".join(f"{k} {v}" for k, v in provenance["versions"].items())
    parts.append(f"<footer><p>Settings: {told}.</p><p>{escape(provenance['device'])}; {escape(versions)}.</p></footer>")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )
    content = {
        "title": title,
        "summary": {heading: list(sentences) for heading, sentences in summary.items()},
        "problems": list(problems),
        "tables": {heading: table.reset_index().to_dict("records") for heading, table in tables.items()},
        "numbers": {name: _saved(run.folder / name)["numbers"] for name in figures.values()},
        "provenance": provenance,
    }
    folder = run.folder / "report"
    with atomic(folder / "audit.html") as temporary:
        temporary.write_text(page)
    with atomic(folder / "audit.json") as temporary:
        temporary.write_text(json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return folder / "audit.html"


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _saved(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


def _picture(path: Path) -> str:
    """The picture of a saved figure with its alternative text, in the page itself."""
    alt = _saved(path)["alt"]
    data = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
    return f'<p><img src="data:image/png;base64,{data}" alt="{escape(alt)}"></p>'
