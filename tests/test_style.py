"""Habits that a reader can rely on."""

import ast
import json
import re
from importlib import import_module
from operator import attrgetter

import pytest

from saliency_lib.runtime.store import PROJECT

FILES = sorted((PROJECT / "saliency_lib").rglob("*.py"))
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("notebooks/*.ipynb")])
# The floor plan of docs/architecture.md, from the ground up: a file imports from its own room and from those before it.
FLOORS = (
    ("runtime",),
    ("augmentation", "channels", "estimates", "hooks", "models", "outputs"),
    ("inference", "ranks"),
    ("data", "recipe", "checkpoint"),
    ("training",),
    ("ensembles",),
    ("attribution",),
    ("noisegrad", "randomization", "downsampling"),
    ("dreams", "landmarks", "similarity", "spectrum", "snr"),
    ("controls", "convergence", "quality"),
    ("audit",),
    ("book",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def room(path):
    return path.relative_to(PROJECT / "saliency_lib").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_a_file_is_short_documented_and_plain(path):
    source = path.read_text()
    tree = ast.parse(source)
    if room(path) != "__init__":
        assert ast.get_docstring(tree), "says what it is"
    assert source.count("\n") <= 260
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "no bare except"
        if isinstance(node, ast.FunctionDef):
            docstring = (ast.get_docstring(node, clean=False) or "").count("\n")
            assert node.end_lineno - node.lineno - docstring <= 50, f"{node.name} is too long to read at once"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval"), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr != "cuda", f"line {node.lineno}"
            if node.func.attr in ("read_text", "write_text"):
                told = any(keyword.arg == "encoding" for keyword in node.keywords)
                assert told, f"line {node.lineno}: text is UTF-8 whatever the locale"
    for node in tree.body:
        public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        assert not public or ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_an_item_of_a_list_begins_its_line(path):
    """Else it is read, and shown, as a sentence of the item before it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    for line in text.splitlines():
        item = re.search(r"(?<!Tab)(?<!Fig)(?<!Eq)[.?!)] (- \*\*|[2-9]\. [A-Z]|[2-9]\.$)", line)
        assert line.startswith("|") or not item, line


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_a_file_imports_from_its_own_floor_or_below(path):
    if room(path) == "__init__":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("saliency_lib"):
            parts = node.module.split(".")[1:]
            for name in [parts[0]] if parts else [alias.name for alias in node.names]:
                assert name == room(path) or FLOOR[name] < FLOOR[room(path)], f"{room(path)} imports {name}"


PROMISED = [
    "data.load",
    "models.build",
    "training.Recipe",
    "training.fit",
    "ensembles.EnsembleSpec",
    "ensembles.get",
    "attribution.METHODS",
    "attribution.attribute",
    "attribution.layers.stages",
    "snr.Moments",
    "snr.snr",
    "snr.snr_debiased",
    "snr.plugin_mean",
    "snr.measure",
    "snr.members_needed",
    "similarity.spearman",
    "similarity.ssim",
    "similarity.hog",
    "quality.insertion",
    "quality.deletion",
    "quality.total_variation",
    "quality.gini",
    "quality.relevance_rank_accuracy",
    "quality.faithfulness_correlation",
    "quality.max_sensitivity",
    "noisegrad.noisegrad",
    "noisegrad.fusiongrad",
    "noisegrad.choose_sigma",
    "randomization.cascading",
    "randomization.independent",
    "randomization.layers",
    "downsampling.smooth_backward",
    "downsampling.smooth_forward",
    "downsampling.BilinearSurrogate",
    "dreams.dream",
    "audit.load",
    "audit.read",
    "audit.targets",
    "audit.normalised",
    "audit.checkerboard",
    "audit.Problems",
    "audit.Pictures",
]


@pytest.mark.parametrize("name", PROMISED)
def test_what_users_import_stays_where_it_is(name):
    module, *rest = name.split(".")
    assert attrgetter(".".join(rest))(import_module(f"saliency_lib.{module}")) is not None
