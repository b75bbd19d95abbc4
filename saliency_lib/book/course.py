"""A folder for a course: notebooks without solutions, the networks that they need, and nothing else to be made."""

import json
import re
import shutil
from pathlib import Path

import nbformat

from saliency_lib.book import profiles
from saliency_lib.book.quotes import FIGURES
from saliency_lib.ensembles.files import folder_of_key, sums
from saliency_lib.runtime.store import CLASSROOM, figures_root, writing

READY = ("02", "03", "05", "07", "09")  # notebooks whose networks are given along
PICTURE = re.compile(r"\]\(\.\./figures/quick/([\w.]+)\)")
README = """# How much of a saliency map is noise?

Install `saliency-companion[notebooks]`, start `jupyter lab` in this folder and open `notebooks/`. {ready} find their
networks here ({size:.0f} MB, checksums in `{sums}`); the others train theirs and say at their top how long that takes.
"""


def write(out: Path, profile: str) -> list[str]:
    """Fill a new folder; what is in it, in a line each.

    Raises
    ------
    ValueError
        Where the folder is there, or the networks are not: they are those that the last run of the notebooks used.
    """
    if out.exists():
        raise ValueError(f"{out} is there already; give another folder with --out, or remove it")
    keys = networks(figures_root() / profile)
    if missing := [key for key in keys if not folder_of_key(key).exists()]:
        chosen = " ".join(READY)
        raise ValueError(
            f"{len(missing)} of {len(keys)} ensembles are not on this machine, such as {missing[0]}; train them with "
            f"./run_all.sh --profile {profile} --only {chosen}"
        )
    with writing(out / CLASSROOM):
        for key in keys:
            shutil.copytree(folder_of_key(key), out / "data" / "ensembles" / key, ignore=shutil.ignore_patterns(".*"))
        checked = sums(out)
        (out / CLASSROOM).write_text(json.dumps(checked, indent=1) + "\n", encoding="utf-8")
    size = sum((out / name).stat().st_size for name in checked) / 1e6
    (out / "notebooks").mkdir()
    for name in profiles.notebooks():
        book = student(profiles.read_notebook(name))
        nbformat.validate(book)
        nbformat.write(book, out / "notebooks" / f"{name}.ipynb")
        _pictures(book, out / "figures")
    names = ", ".join(READY[:-1]) + f" and {READY[-1]}"
    (out / "README.md").write_text(README.format(ready=names, size=size, sums=CLASSROOM), encoding="utf-8")
    return [
        f"notebooks: {len(profiles.notebooks())}, without solutions",
        f"networks: {len(checked)} files, {size:.0f} MB",
        f"course: {out}",
    ]


def networks(figures: Path) -> list[str]:
    """Keys of the ensembles that the figures of the ready notebooks were made with."""
    found: set[str] = set()
    for path in figures.glob("*.json"):
        if path.name[:2] in READY:
            found |= set(json.loads(path.read_text(encoding="utf-8"))["provenance"].get("networks", {}))
    if not found:
        raise ValueError(f"{figures} does not say which networks were used; run ./run_all.sh first")
    return sorted(found)


def student(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook without solutions, its checked exercises marked for nbgrader, each worth a point, graded by hand."""
    book.cells = [cell for cell in book.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in book.cells:
        if "exercise" in cell.metadata.get("tags", []):
            (name,) = re.findall(r'check\("([\w-]+)"', cell.source)
            marks = {"grade": True, "solution": True, "locked": False, "task": False, "points": 1, "schema_version": 3}
            cell.metadata["nbgrader"] = marks | {"grade_id": f"exercise-{name}", "cell_type": "code"}
    return book


def _pictures(book: nbformat.NotebookNode, out: Path) -> None:
    """Copy the committed figures that a notebook shows before it has run."""
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    for name in PICTURE.findall(text):
        (out / "quick").mkdir(parents=True, exist_ok=True)
        shutil.copy(FIGURES / "quick" / name, out / "quick")
