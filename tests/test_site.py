"""The site is whole, needs no network, and is not built from what is stale."""

import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from docutils.utils.math import MathError

from saliency_lib.attribution import METHODS
from saliency_lib.book import profiles, site
from saliency_lib.book.mathml import mathml
from saliency_lib.runtime.store import PROJECT

QUICK = PROJECT / "figures" / "quick"


def test_formulas_become_mathml():
    short, braced = mathml(r"\tfrac14 \sum_k g_k", as_block=True), mathml(r"\tfrac{1}{4} \sum_k g_k", as_block=True)
    fraction = re.search(r"(?s)<mfrac.*?</mfrac>", short)[0]
    assert short == braced and re.findall(r"<mn>(\d)</mn>", fraction) == ["1", "4"] and "∑" not in fraction
    assert 'display="block"' in short and 'display="block"' not in mathml("x")
    with pytest.raises((MathError, SyntaxError)):
        mathml(r"\nonsense{x}")


def test_every_formula_of_the_notebooks_can_be_shown():
    for name in profiles.notebooks():
        for cell in profiles.read_notebook(name).cells:
            if cell.cell_type == "markdown":
                for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", cell.source, re.S):
                    assert "<math" in mathml(block or inline, as_block=bool(block))


def executed(name, parameters):
    """A notebook as if papermill had run it: the injected cell, a picture."""
    book = profiles.read_notebook(name)
    book.metadata["papermill"] = {"parameters": parameters}
    injected = nbformat.v4.new_code_cell("profile = 'x'", metadata={"tags": ["injected-parameters"]})
    book.cells.insert(3, injected)
    drawn = next(c for c in book.cells if c.cell_type == "code" and c.source.startswith("# This cell draws"))
    metadata = {"image/png": {"alt": "dots", "width": 300}}
    drawn.outputs = [nbformat.v4.new_output("display_data", {"image/png": "aGVsbG8="}, metadata=metadata)]
    return book, drawn


def tags(book):
    return [tag for cell in book.cells for tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("name", profiles.notebooks())
def test_a_page_folds_what_draws_and_leaves_out_what_is_asked(name):
    book, drawn = executed(name, {"profile": "quick"})
    page = site.shown(book, name)
    assert tags(page).count("hide-input") >= 1 and "injected-parameters" not in tags(page)
    assert tags(page).count("solution") == tags(book).count("solution") >= 1
    (picture,) = [c.metadata["mystnb"]["image"] for c in page.cells if "mystnb" in c.metadata]
    assert picture["alt"] == "dots" and picture["width"] == "300px"
    assert "solution" not in tags(site.shown(book, name, solutions=False))
    assert "mystnb" not in drawn.metadata, "the executed notebook stays as it is"
    nbformat.validate(page)
    other, _ = executed(name, {"profile": "quick", "seed": 7})
    assert "injected-parameters" in tags(site.shown(other, name)), "what differs from the notebook's own is shown"


def test_notebooks_that_failed_or_are_stale_fail_the_build(tmp_path):
    with pytest.raises(ValueError, match="up to date; 01, 02.* are not: run ./run_all.sh --profile smoke --only 01 02"):
        site.build("smoke", executed=tmp_path, out=tmp_path / "site")
    with pytest.raises(ValueError, match="unknown edition 'lecturer'; one of full, student"):
        site.build("smoke", "lecturer")


def test_a_page_that_sphinx_warns_of_fails_the_build(tmp_path):
    shutil.copytree(site.DOCS / "_static", tmp_path / "source" / "_static")
    shutil.copy(site.DOCS / "conf.py", tmp_path / "source")
    (tmp_path / "source" / "index.md").write_text("# Title\n\n[nowhere](nowhere.md) and $\\nonsense{x}$\n")
    with pytest.raises(ValueError, match=r"(?s)index.md:3.*nowhere") as caught:
        site.sphinx(tmp_path / "source", tmp_path / "html")
    assert "cannot be shown" in str(caught.value) and str(tmp_path) not in str(caught.value).split("index.md")[0]


@pytest.mark.notebook
def test_the_student_edition_leaves_no_solution_and_nothing_for_teachers(smoke, tmp_path):
    folder, _ = smoke
    site.stage(tmp_path / "source", folder / "build" / "smoke", folder / "smoke", solutions=False)
    for path in (tmp_path / "source" / "notebooks").iterdir():
        assert "solution" not in tags(nbformat.read(path, as_version=4)), path.name
    assert not (tmp_path / "source" / "teaching.md").exists()
    assert not any("teaching" in path.read_text() for path in (tmp_path / "source").glob("*.md"))


class Links(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, text):
        super().__init__()
        self.found, self.places, self.silent = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.places |= {values.get("id"), values.get("name")}
        if tag == "img" and not values.get("alt"):
            self.silent.append(values.get("src"))
        for key in ("href", "src"):
            if key in values and not (tag == "a" and re.match(r"https?:|mailto:", values[key])):
                self.found.append(values[key])


@pytest.mark.notebook
def test_the_site_has_no_broken_link_and_needs_no_network(smoke_site):
    out = smoke_site
    parsed = {path: Links(path.read_text()) for path in out.rglob("*.html") if "_static" not in path.parts}
    assert len(parsed) >= len(profiles.notebooks()) + 5
    methods = (out / "api" / "saliency_lib.attribution.html").read_text()
    assert all(f'.{name}"' in methods for name in METHODS), "the library's page has every method"
    for path, page in parsed.items():
        assert not page.silent, f"{path.name} has pictures without a text: {page.silent[:3]}"
        for link in page.found:
            target, place = urldefrag(link)
            if target.startswith("data:"):
                continue
            assert not re.match(r"\w+:|//", target), f"{path.name} asks the network for {link}"
            file = (path.parent / unquote(target).split("?")[0]).resolve() if target else path
            assert file.exists(), f"{path.name} refers to {link}, which is not there"
            if place and file in parsed:
                assert unquote(place) in parsed[file].places, f"{path.name} refers to {link}, a place that is not there"
    for path in (*out.rglob("*.css"), *out.rglob("*.js")):
        assert not re.search(r"""(url\(|@import\s|import\(|from\s*["'])\s*["']?https?:""", path.read_text()), path.name
    text = "".join(path.read_text() for path in parsed)
    assert "<math" in text and "tex-chtml" not in text and "require.js" not in text
    assert not list(out.parent.glob(".site~*")), "nothing is left of the build"


def test_the_library_page_names_every_room():
    named = set(re.findall(r"~saliency_lib\.(\w+)", (site.DOCS / "api.md").read_text()))
    rooms = {path.stem for path in (PROJECT / "saliency_lib").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert named == rooms - {"__init__", "__main__", "__pycache__"}


def test_teachers_get_every_notebook_and_three_questions_each():
    text = (site.DOCS / "teaching.md").read_text()
    for name in profiles.notebooks():
        part = re.search(rf"(?ms)^## {name[:2]} .*?(?=^## |\Z)", text)[0]
        questions = part.split("**Discussion**")[1].split("**Exercises**")[0]
        assert len(re.findall(r"(?m)^ *\d\. ", questions)) == 3, name
    for figure in re.findall(r"`(\d\d_\w+)`", text):
        assert (QUICK / f"{figure}.png").exists(), figure
