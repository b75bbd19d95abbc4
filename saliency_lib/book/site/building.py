"""Stage pages and executed notebooks, and have Sphinx make the site; it replaces the old one only when it is whole."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from saliency_lib.book import claims, papers, pipeline, profiles
from saliency_lib.book.site import books, pages, scaling
from saliency_lib.runtime.store import PROJECT, figures_root, locked

EDITIONS = ("full", "student")
DOCS = PROJECT / "docs"


def folder(profile: str, edition: str = "full") -> Path:
    """Where the site goes: ``build/site``, with profile and edition in its name where they are not the usual ones."""
    words = ["site", *([profile] if profile != "quick" else []), *([edition] if edition != "full" else [])]
    return PROJECT / "build" / "-".join(words)


def build(
    profile: str = "quick", edition: str = "full", *, executed: Path | None = None, out: Path | None = None
) -> Path:
    """The site of one profile, from the notebooks that were executed and the figures that they made.

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
    executed = executed or pipeline.BUILD / profile
    out = out or folder(profile, edition)
    _results(profile, executed)
    with locked(out.parent / f".{out.name}.lock"):  # so that what lies there under a temporary name is of a dead run
        for left in out.parent.glob(f".{out.name}~*"):
            shutil.rmtree(left)
        _build(out, profile, executed, solutions=edition == "full")
    return out


def _results(profile: str, executed: Path) -> list[pipeline.Result]:
    """What became of the notebooks; ValueError names those that failed or are stale."""
    values = pipeline.settings(profile, pipeline.select(None), {})
    results = {name: pipeline.fresh(executed, name, parameters) for name, parameters in values.items()}
    if stale := [name[:2] for name, result in results.items() if result is None]:
        raise ValueError(
            f"the site needs notebooks that ran to their end and are up to date; {', '.join(stale)} are not: "
            f"run ./run_all.sh --profile {profile} --only {' '.join(stale)}"
        )
    return list(results.values())


def _build(out: Path, profile: str, executed: Path, *, solutions: bool) -> None:
    """Make the site beside ``out`` and put it there when it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{out.name}~", dir=out.parent) as temporary:
        source, fresh = Path(temporary) / "source", Path(temporary) / "html"
        _stage(source, executed, figures_root() / profile, _results(profile, executed), solutions=solutions)
        _results(profile, executed)  # that none was begun again meanwhile
        _sphinx(source, fresh)
        old = Path(temporary) / "old"
        if out.exists():
            out.rename(old)
        try:
            fresh.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise


def _stage(source: Path, executed: Path, figures: Path, results: list[pipeline.Result], *, solutions: bool) -> None:
    """Fill the folder that Sphinx reads."""
    shutil.copytree(DOCS, source)
    pictures = shutil.ignore_patterns("*.json", ".*")
    shutil.copytree(figures, source / "_static" / "figures", ignore=pictures)
    shutil.copytree(papers.FIGURES, source / "_static" / "papers", ignore=pictures)
    made = {
        "toctree": pages.toctree(),
        "gallery": pages.gallery(figures),
        "map": pages.paper_map(figures),
        "summary": pages.summary(figures),
        "verdicts": pages.verdicts(figures),
        "deviations": pages.deviations(),
        "minutes": pages.minutes(results),
        "scaling": scaling.table(),
        "papers": papers.overview(),
        "papers-verdicts": pages.blocks(claims.verdicts(papers.FIGURES), "_static/papers"),
        "papers-gallery": pages.gallery(papers.FIGURES, "papers"),
    }
    if not solutions:  # the page for teachers gives them away
        (source / "teaching.md").unlink()
        index = source / "index.md"
        index.write_text("".join(line for line in index.read_text().splitlines(True) if "teaching" not in line))
    for path in source.glob("*.md"):
        text = path.read_text()
        for name, content in made.items():
            text = text.replace(f"<!-- {name} -->", content)
        path.write_text(text)
    (source / "notebooks").mkdir()
    for name in profiles.notebooks():
        book = nbformat.read(executed / f"{name}.ipynb", as_version=4)
        nbformat.write(books.page(book, name, solutions=solutions), source / "notebooks" / f"{name}.ipynb")


def _sphinx(source: Path, out: Path) -> None:
    """Run Sphinx, every warning an error; ValueError gives them."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-j", "2"]
    done = subprocess.run(
        [*command, "-d", str(source.parent / "doctrees"), str(source), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError("the site could not be built:\n" + done.stderr.strip()[-4000:].replace(f"{source}/", ""))
