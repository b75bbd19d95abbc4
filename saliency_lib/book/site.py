"""The site: README, results, executed notebooks and the library's pages as HTML that needs no network."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

from saliency_lib.book import pipeline, profiles, results
from saliency_lib.runtime.store import PROJECT, figures_root, locked

EDITIONS = ("full", "student")
DOCS = PROJECT / "docs"
# Pages outside of docs/, and their names on the site.
PAGES = {"README.md": "index.md", "RESULTS.md": "results.md", "CONTRIBUTING.md": "contributing.md"}
MAIN_FIGURE = re.compile(r"!\[[^]]*\]\(figures/\w+/02_gradients\.png\)")
HINT = (
    "Move *members* to the right, and the maps of more networks are averaged. The picture on the right is the ratio of "
    "their mean and their spread, grey where noise alone gives as much; one network has no spread."
)
CONTENTS = """
```{toctree}
:hidden:
:caption: Notebooks
:numbered: 1
:glob:
notebooks/*
```

```{toctree}
:hidden:
:caption: About
results
teaching
ways_in
glossary
networks
speed
scaling
architecture
api
contributing
```
"""


def folder(profile: str, edition: str = "full") -> Path:
    """Where the site goes: ``build/site``, with profile and edition in its name where they are not the usual ones."""
    words = ["site", *([profile] if profile != "quick" else []), *([edition] if edition != "full" else [])]
    return PROJECT / "build" / "-".join(words)


def build(
    profile: str = "quick", edition: str = "full", *, executed: Path | None = None, out: Path | None = None
) -> Path:
    """The site of one profile, from the notebooks that were executed and the figures that they made.

    It is made beside the old one, and takes its place when it is whole.

    Parameters
    ----------
    profile : str
        Whose notebooks and figures.
    edition : str
        ``"full"``, or ``"student"``: without the cells tagged ``solution``.
    executed, out : Path
        Folders of the executed notebooks and of the site; by default those below ``build/``.

    Returns
    -------
    Path
        The folder of the site; its ``index.html`` is the start page.

    Raises
    ------
    ValueError
        For an unknown edition, notebooks that failed or are older than their sources, a claim without a verdict, or a
        page that Sphinx warns of, such as one with a broken link.
    """
    if edition not in EDITIONS:
        raise ValueError(f"unknown edition {edition!r}; one of {', '.join(EDITIONS)}")
    executed, out = executed or pipeline.BUILD / profile, out or folder(profile, edition)
    require(profile, executed)
    with locked(out.parent / f".{out.name}.lock"):  # so that what lies there under a temporary name is of a dead run
        for left in out.parent.glob(f".{out.name}~*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}~", dir=out.parent) as temporary:
            source, fresh, old = (Path(temporary) / name for name in ("source", "html", "old"))
            stage(source, executed, figures_root() / profile, solutions=edition == "full")
            require(profile, executed)  # that none was begun again meanwhile
            sphinx(source, fresh)
            if out.exists():
                out.rename(old)
            try:
                fresh.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    return out


def require(profile: str, executed: Path) -> None:
    """ValueError names the notebooks that failed or are stale."""
    values = pipeline.settings(profile, pipeline.select(None), {})
    if stale := [name[:2] for name, own in values.items() if pipeline.fresh(executed, name, own) is None]:
        raise ValueError(
            f"the site needs notebooks that ran to their end and are up to date; {', '.join(stale)} are not: "
            f"run ./run_all.sh --profile {profile} --only {' '.join(stale)}"
        )


def stage(source: Path, executed: Path, figures: Path, *, solutions: bool) -> None:
    """Fill the folder that Sphinx reads: pages with the numbers of ``figures``, pictures, notebooks for readers."""
    shutil.copytree(DOCS, source)
    shutil.copy(PROJECT / "CITATION.cff", source)
    for folder in {figures, *results.PAPERS_DATA}:
        shutil.copytree(folder, source / "figures" / folder.name, ignore=shutil.ignore_patterns("*.json", ".*"))
    for name, page in PAGES.items():
        shutil.copy(PROJECT / name, source / page)
    contents = CONTENTS
    if not solutions:  # the page for teachers gives them away
        (source / "teaching.md").unlink()
        contents = contents.replace("teaching\n", "")
    for path in source.glob("*.md"):
        text = results.filled(path.read_text(encoding="utf-8"), figures)
        text = text.replace("figures/quick/", f"figures/{figures.name}/")
        if not solutions:
            text = "".join(line for line in text.splitlines(True) if "teaching.md" not in line)
        for there, here in {"../": "", "docs/": "", **PAGES}.items():
            text = text.replace(f"]({there}", f"]({here}")
        if path.name == "index.md":
            text = MAIN_FIGURE.sub(lambda found: explorer(executed) or found[0], text) + contents
        path.write_text(text, encoding="utf-8")
    (source / "notebooks").mkdir()
    for name in profiles.notebooks():
        book = nbformat.read(executed / f"{name}.ipynb", as_version=4)
        page = shown(book, name, solutions=solutions)
        for cell in (cell for cell in page.cells if cell.cell_type == "markdown"):
            cell.source = cell.source.replace("figures/quick/", f"figures/{figures.name}/")
        nbformat.write(page, source / "notebooks" / f"{name}.ipynb")


def explorer(executed: Path) -> str:
    """Notebook 02's explorer for the start page, which opens with it; empty where it has none."""
    book = nbformat.read(executed / "02_gradient_snr.ipynb", as_version=4)
    for output in (output for cell in book.cells for output in cell.get("outputs", [])):
        markup = output.get("data", {}).get("text/html", "")
        if 'class="explorer"' in markup:
            return f"````{{raw}} html\n{markup}\n````\n\n{HINT}"
    return ""


def shown(book: nbformat.NotebookNode, name: str, *, solutions: bool = True) -> nbformat.NotebookNode:
    """A copy of an executed notebook for readers, with its text as it stands in the source now.

    Solutions go if they are not wanted, the cell that installs the library goes, and so do the parameters that
    papermill put in where they repeat the notebook's own. Solutions, the appendix and the code of cells that draw a
    figure are folded; pictures keep their alternative text and width.
    """
    injected = book.metadata.get("papermill", {}).get("parameters", {})
    repeated = profiles.complete(name, injected) == profiles.complete(name, {})
    page = nbformat.from_dict({**book, "cells": []})
    for cell in _with_text_of(profiles.read_notebook(name), book):
        tags = list(cell.metadata.get("tags", []))
        unwanted = {"install"} | ({"solution"} if not solutions else set())
        if unwanted & set(tags) or ("injected-parameters" in tags and repeated):
            continue
        if cell.cell_type == "code":
            folded = ["hide-cell"] * bool({"solution", "appendix"} & set(tags))
            folded += ["hide-input"] * cell.source.startswith("# This cell draws")
            cell = nbformat.from_dict({**cell, "metadata": {"tags": tags + folded}})
            pictures = [o.metadata["image/png"] for o in cell.outputs if "image/png" in o.get("metadata", {})]
            if len(pictures) == 1:
                image = {"alt": pictures[0]["alt"], "width": f"{pictures[0]['width']}px", "class": "picture"}
                cell.metadata["mystnb"] = {"image": image}
        page.cells.append(cell)
    return page


def _with_text_of(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    """Markdown of the one and code of the other, which was executed with the same code in the same order."""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    for cell in source.cells:
        yield cell if cell.cell_type != "code" else code.pop(0)
        while code and "injected-parameters" in code[0].metadata.get("tags", []):
            yield code.pop(0)


def sphinx(source: Path, out: Path) -> None:
    """Run Sphinx, every warning an error; ValueError gives them."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-j", "2"]
    done = subprocess.run(
        [*command, "-d", str(source.parent / "doctrees"), str(source), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError("the site could not be built:\n" + done.stderr.strip()[-4000:].replace(f"{source}/", ""))
