"""Profiles: YAML files of ensembles by name and of notebook parameters, and what parameters a notebook has."""

import ast
import json
from types import NoneType
from typing import TYPE_CHECKING, get_args, get_type_hints

import yaml

from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.runtime.store import SHARED
from saliency_lib.training import Recipe

if TYPE_CHECKING:
    import nbformat

NOTEBOOKS = SHARED / "notebooks"
OF_SPEC, OF_RECIPE = get_type_hints(EnsembleSpec), get_type_hints(Recipe)  # fields of an ensemble, and their types
KINDS = {name: get_args(kind) or (kind,) for name, kind in (OF_SPEC | OF_RECIPE).items()}
del KINDS["recipe"]
KINDS["snapshots"] = (int,)  # so many of the last epochs before the end


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
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


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
        match statement:
            case ast.Assign([ast.Name(parameter)], value):
                found[parameter] = ast.literal_eval(value)
            case _:
                raise ValueError(f"{name}: the parameters cell holds more than assignments (line {statement.lineno})")
    return found


def load(profile: str, changes: dict[str, dict] | None = None) -> dict[str, dict]:
    """All parameters of every notebook in a profile, ``{notebook: {name: value}}``; ``changes`` are of the same kind.

    Raises
    ------
    ValueError
        For an unknown profile, notebook, parameter or field, by name, and for a file that is not YAML of parameters.
    """
    if profile not in names():
        raise ValueError(f"unknown profile {profile!r}; one of {names()}")
    given = {name: values for name, values in _read(profile).items() if name != "ensembles"}
    if unknown := sorted(set(given) - set(notebooks())):
        raise ValueError(f"profile {profile} names notebooks that do not exist: {', '.join(unknown)}")
    found = {}
    for notebook in notebooks():
        values = {"profile": profile}
        for source, more in ((f"profile {profile}", given), ("--set", changes or {})):
            check(notebook, more.get(notebook, {}), source)
            values = _over(values, more.get(notebook, {}))
        found[notebook] = complete(notebook, values, profile)
    return found


def value_of(word: str):
    """A word of the command line read as YAML; ValueError, which argparse tells, if it is none."""
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError as error:
        raise ValueError(f"{word!r} is no value") from error


def _read(profile: str) -> dict[str, dict]:
    path = NOTEBOOKS / "profiles" / f"{profile}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise ValueError(f"{path.name} should hold 'notebook:' lines with indented 'parameter: value' lines below each")
    return content


def _over(old: dict, new: dict) -> dict:
    """The new values in place of the old; of mappings, which are fields of ensembles, only those that are named."""
    both = dict(old)
    for name, value in new.items():
        named = isinstance(value, dict) and isinstance(old.get(name), dict)
        both[name] = old[name] | value if named else value
    return both


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


def ensembles(profile: str) -> dict[str, dict]:
    """Fields of the ensembles by name; those that the profile does not say are those of ``quick``."""
    found: dict[str, dict] = {}
    for each in ("quick", profile):
        if each in names():
            own = _read(each).get("ensembles", {})
            found = _over(found, {name: _checked(name, given) for name, given in own.items()})
    return found


def complete(notebook: str, values: dict, profile: str | None = None) -> dict:
    """All parameters of a notebook: its own, but for ``values``, with all fields of the ensembles that it uses.

    An ensemble that names no data set in the profile is main, but for the fields that it names.
    """
    values = parameters(notebook) | values
    known = ensembles(profile or values["profile"])
    used = {name: _checked(name, values[name] or {}) for name in known if name in values}
    main = known.get("main", {}) | used.get("main", {})
    for name, own in used.items():
        values[name] = ({} if "dataset" in known[name] else main) | known[name] | own
    return values


def _checked(name: str, given: dict) -> dict:
    """Fields of an ensemble, as they are; ValueError for one that there is not, or of another type."""
    if not isinstance(given, dict):
        raise ValueError(f"{name}={given!r} should be fields of an ensemble, such as {name}.n_members=4")
    for field, value in given.items():
        if field not in KINDS:
            raise ValueError(f"{name}.{field}: ensembles have no such field; they have {', '.join(KINDS)}")
        if type(value) not in (kinds := KINDS[field]) and not (type(value) is int and float in kinds):
            wanted = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{name}.{field}={value!r} should be {wanted}")
    return given


def spec(name: str, given: dict) -> EnsembleSpec:
    """The ensemble with these fields; ``snapshots`` is how many of the last epochs before the end are kept."""
    fields, kept = dict(_checked(name, given)), given.get("snapshots", 0)
    if kept < 0:
        raise ValueError(f"{name}.snapshots={kept} should be how many of the last epochs before the end are kept")
    recipe = Recipe(**{field: fields.pop(field) for field in OF_RECIPE if field in fields})
    epochs = range(max(1, recipe.epochs - kept), max(2, recipe.epochs)) if kept else ()
    return EnsembleSpec(**fields | {"recipe": recipe, "snapshots": tuple(epochs)})
