"""Profiles: YAML files of notebook parameters, and what parameters a notebook has."""

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from saliency_lib.runtime.store import PROJECT

if TYPE_CHECKING:
    import nbformat

NOTEBOOKS = PROJECT / "notebooks"


def names() -> list[str]:
    """Profiles that there are, by file name."""
    return sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml"))


def notebooks() -> list[str]:
    """Notebooks by number, ``01_train_ensembles`` and so on."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def read_notebook(name: str) -> "nbformat.NotebookNode":
    """The source of a notebook."""
    import nbformat  # takes seconds, which not every notebook's first cell should

    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def content(name: str) -> dict:
    """A notebook as its file has it, read without Jupyter: a cell's source is a list of lines."""
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())


def parameters(name: str) -> dict:
    """Names and default values in a notebook's one cell tagged ``parameters``, which holds literals only.

    Raises
    ------
    ValueError
        If there is not exactly one such cell, or a value is not a literal.
    """
    tagged = [cell for cell in content(name)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{name} has {len(tagged)} cells tagged 'parameters'; exactly one is needed")
    found = {}
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        if not isinstance(statement, ast.Assign):
            raise ValueError(f"{name}: the parameters cell holds more than assignments (line {statement.lineno})")
        found[statement.targets[0].id] = ast.literal_eval(statement.value)
    return found


def load(profile: str) -> dict[str, dict]:
    """Parameters of every notebook in a profile, ``{notebook: {name: value}}``.

    Raises
    ------
    ValueError
        For an unknown profile, notebook or parameter, by name, and for a file that is not YAML of parameters.
    """
    if profile not in names():
        raise ValueError(f"unknown profile {profile!r}; one of {names()}")
    content = _read(NOTEBOOKS / "profiles" / f"{profile}.yaml")
    unknown = sorted(set(content) - set(notebooks()))
    if unknown:
        raise ValueError(f"profile {profile} names notebooks that do not exist: {', '.join(unknown)}")
    for notebook, values in content.items():
        check(notebook, values, f"profile {profile}")
    return {notebook: {"profile": profile, **content.get(notebook, {})} for notebook in notebooks()}


def _read(path: Path) -> dict[str, dict]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise ValueError(f"{path.name} should hold 'notebook:' lines with indented 'parameter: value' lines below each")
    return content


def check(notebook: str, values: dict, source: str) -> None:
    """Raise ValueError for the first value that is not a parameter of the notebook, or of another type than its own."""
    own = parameters(notebook)
    for name, value in values.items():
        if name not in own:
            raise ValueError(f"{source}: {notebook} has no parameter {name!r}; it has {', '.join(own)}")
        default = own[name]
        number = isinstance(default, float) and type(value) is int
        if default is not None and value is not None and type(value) is not type(default) and not number:
            raise ValueError(
                f"{source}: {name}={value!r} of {notebook} should be {type(default).__name__}, "
                f"like its default {default!r}"
            )
