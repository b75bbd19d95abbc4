"""The notebooks: clean sources, and each runs from top to bottom at its smallest size."""

import json
import statistics

import nbformat
import pytest

from saliency_lib.book import claims, pipeline, profiles

BOOKS = profiles.notebooks()


def code(name):
    return [cell for cell in profiles.read_notebook(name).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", BOOKS)
def test_source_is_clean(name):
    book = profiles.read_notebook(name)
    nbformat.validate(book)
    assert not any(cell.outputs or cell.execution_count for cell in code(name))
    lengths = [len(cell.source.splitlines()) for cell in code(name)]
    assert max(lengths) <= 40 and statistics.median(lengths) <= 16
    assert book.cells[0].source.startswith("# ") and "%pip" not in str(book)


@pytest.mark.parametrize("name", BOOKS)
def test_its_defaults_are_those_of_quick(name):
    assert profiles.parameters(name) == {"seed": 0} | profiles.load("quick")[name]


@pytest.mark.parametrize("profile", profiles.names())
def test_every_parameter_of_a_profile_exists(profile):
    assert set(profiles.load(profile)) == set(BOOKS)


@pytest.mark.parametrize("name", BOOKS)
def test_it_needs_only_earlier_notebooks(name):
    assert all(need < name[:2] for need in pipeline.needs(name))


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


def test_committed_numbers_come_from_the_current_parameters():
    """Figures of quick were made with the parameters that quick has now, wherever they were computed."""
    from saliency_lib.runtime.store import PROJECT

    for name, values in profiles.load("quick").items():
        for path in (PROJECT / "figures" / "quick").glob(f"{name[:2]}_*.json"):
            made = json.loads(path.read_text())["provenance"]["parameters"] | {"executor": None}
            assert made == {"seed": 0} | values | {"executor": None}, path.name
