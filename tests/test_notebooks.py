"""The notebooks: clean sources, and each runs from top to bottom at its smallest size."""

import ast
import json
import statistics
from types import SimpleNamespace

import nbformat
import pytest

from saliency_lib.book import captions, claims, pipeline, plotting, profiles
from saliency_lib.book.compare import compare
from saliency_lib.book.results import PAPERS_DATA
from saliency_lib.runtime.store import PROJECT

BOOKS = profiles.notebooks()


def code(name):
    return [cell for cell in profiles.read_notebook(name).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", BOOKS)
def test_source_is_clean(name):
    book = profiles.read_notebook(name)
    nbformat.validate(book)
    assert not any(cell.outputs or cell.execution_count for cell in code(name))
    assert book.cells[0].source.startswith("# ") and "%pip" not in str(book)


@pytest.mark.parametrize("name", BOOKS)
def test_a_reader_can_take_it_in(name):
    """A spine of 25 short cells and an appendix of 10, one function a cell, columns that the site shows whole."""
    kinds: dict[str, list[str]] = {"spine": [], "appendix": [], "exercise": []}
    for cell in code(name):
        tags = set(cell.metadata.get("tags", []))
        if "install" in tags:
            continue
        kind = "appendix" if "appendix" in tags else "exercise" if tags & {"exercise", "solution"} else "spine"
        kinds[kind].append(cell.source)
        defined = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)]
        assert len(defined) <= 1, cell.source
        assert "parameters" in tags or len(cell.source.splitlines()) <= 20, cell.source
        assert max(map(len, cell.source.splitlines())) <= 88, cell.source
    for line in (line for cell in profiles.read_notebook(name).cells for line in cell.source.splitlines()):
        assert len(line) <= 125 or line.startswith(("|", "![", "minus ")), line  # tables, pictures, keys of quotes
    read = [*kinds["spine"], *kinds["appendix"]]
    functions = sum(source.count("def ") for source in read)
    assert statistics.median(len(source.splitlines()) for source in read) <= 9
    assert len(kinds["spine"]) <= 25 and len(kinds["appendix"]) <= 10 and functions <= 12


def test_every_figure_has_its_caption():
    """A line of data/figures.csv with a brace for each of the words that the notebook gives, and no line more."""
    saved = {}
    for call in (node for name in BOOKS for cell in code(name) for node in ast.walk(ast.parse(cell.source))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("run.save", "run.save_animation"):
            words = [len(given.value.elts) for given in call.keywords if given.arg == "words"]
            saved[call.args[1].value] = max([saved.get(call.args[1].value, 0), *words])
    assert {name: said.alt.count("{}") for name, said in captions.table().items()} == saved
    assert all(len(said.alt) >= 40 and said.alt.endswith(".") for said in captions.table().values())


def test_every_notebook_installs_the_library_where_it_is_missing(monkeypatch):
    cells = [[cell.source for cell in code(name) if "install" in cell.metadata.get("tags", [])] for name in BOOKS]
    (source,) = {source for (source,) in cells}
    called = []
    shell = SimpleNamespace(run_line_magic=lambda *words: called.append(words))
    exec(source, {"get_ipython": lambda: shell})
    assert not called, "it is here"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(source, {"get_ipython": lambda: shell})
    assert called == [("pip", 'install -q "saliency-companion[notebooks]"')]


@pytest.mark.parametrize("name", BOOKS)
def test_by_hand_it_is_what_quick_runs(name):
    assert plotting.start(name, profiles.parameters(name)).parameters == profiles.load("quick")[name]


@pytest.mark.parametrize("profile", profiles.names())
def test_what_a_profile_puts_into_a_notebook_is_complete(profile):
    """So that neither the notebook's defaults nor another profile of the figures' folder add anything."""
    for name, values in profiles.load(profile).items():
        assert plotting.start(name, values).parameters == values


@pytest.mark.notebook
def test_all_run_at_smoke_and_make_their_figures(smoke):
    folder, results = smoke
    assert [r.status for r in results] == ["executed"] * len(BOOKS), "\n".join(r.error for r in results)
    print(f"\nsmoke of all notebooks: {sum(r.seconds for r in results):.0f} s")
    wanted = {row["figure"] for row in claims.all_claims().values() if row["notebook"] in {b[:2] for b in BOOKS}}
    made = {figure for r in results for figure in r.figures}
    assert wanted <= made
    for figure in made:
        assert (folder / "smoke" / f"{figure}.png").stat().st_size > 5000
        assert json.loads((folder / "smoke" / f"{figure}.json").read_text())["provenance"]["profile"] == "smoke"
    judged = claims.verdicts(folder / "smoke")
    assert {c for c, row in claims.all_claims().items() if row["figure"] in made} == set(judged)
    for result in results:
        book = nbformat.read(folder / "build" / "smoke" / f"{result.notebook}.ipynb", as_version=4)
        outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
        errors = [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert not errors, "\n".join([result.notebook, *(o.get("text", o.get("evalue")) for o in errors)])


@pytest.mark.slow
def test_other_networks_move_no_number(smoke):
    """By another seed: what chance has a part in carries an interval, and what has none is a closed form."""
    folder, _ = smoke
    values = pipeline.settings("smoke", BOOKS, {"seed": 1})
    results = pipeline.run(values, folder / "other", jobs=2)
    assert [r.status for r in results] == ["executed"] * len(BOOKS), "\n".join(r.error for r in results)
    found = compare([(folder / "smoke", folder / "custom")])
    assert found.passes, "\n".join(found.figures)
    assert found.counts["estimates"] > 1000


@pytest.mark.parametrize("folder", ["quick", *(folder.name for folder in PAPERS_DATA)])
def test_committed_numbers_come_from_the_current_parameters(folder):
    """Figures were made with the parameters that a profile has now, wherever they were computed.

    Those on the papers' data take hours: parameters that came later are not among theirs.
    """
    of_papers = set(profiles.names()) - {"quick", "smoke"}
    known = [profiles.load(name) for name in (["quick"] if folder == "quick" else sorted(of_papers))]
    paths = sorted((PROJECT / "figures" / folder).glob("*.json"))
    assert paths
    for path in paths:
        made = json.loads(path.read_text())["provenance"]
        own, name = made["parameters"], made["notebook"]
        left_out = {"executor"} | ({"profile"} if folder != "quick" else set())
        names = (own.keys() if folder != "quick" else own.keys() | known[0][name].keys()) - left_out
        assert any(all(own[n] == profile[name].get(n) for n in names) for profile in known), path.name
