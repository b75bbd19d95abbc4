"""The parts of the README that are made from the figures: the gallery and the table of verdicts."""

import json
from pathlib import Path

from saliency_lib.book import claims, papers, profiles
from saliency_lib.runtime.store import PROJECT, atomic

ACROSS = 4  # figures in a line of the gallery
FIGURES = PROJECT / "figures" / "quick"


def gallery(folder: Path = FIGURES) -> str:
    """A table of pictures in Markdown, a line of ``ACROSS`` at a time: what each reproduces, and its notebook."""
    notebooks = {name[:2]: name for name in profiles.notebooks()}
    cells = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        alt = content["alt"].replace('"', "'").replace("|", "/")
        picture = f'<img src="figures/quick/{path.stem}.png" width="210" alt="{alt}">'
        cells.append(f"{picture}<br>`{path.stem}`<br>{content['paper']}<br>[notebook](notebooks/"
                     f"{notebooks[path.stem[:2]]}.ipynb)")  # fmt: skip
    lines = [cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)]
    rows = ["| " + " | ".join(line + [""] * (ACROSS - len(line))) + " |" for line in lines]
    return "\n".join(["|" + " |" * ACROSS, "|" + "---|" * ACROSS, *rows])


def filled(text: str) -> str:
    """The README's text with everything between its markers made anew."""
    made = {
        "gallery": gallery(),
        "verdicts": claims.markdown(FIGURES),
        "papers": f"{papers.overview()}\n\n{claims.markdown(papers.FIGURES)}",
    }
    for name, content in made.items():
        begin, end = f"<!-- {name}: written by ./run_all.sh -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def write() -> None:
    """Bring the README up to date."""
    path = PROJECT / "README.md"
    old = path.read_text()
    if (new := filled(old)) != old:
        with atomic(path) as temporary:
            temporary.write_text(new)
