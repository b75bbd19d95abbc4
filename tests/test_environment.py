"""The three lists of dependencies agree, and the project names its sources."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from saliency_lib.runtime.store import PROJECT

CONDA_NAMES = {"pytorch": "torch"}


def declared():
    """Requirements of pyproject.toml by name, those for tests too, as the installed package has them."""
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = map(Requirement, sum(extras.values(), project["dependencies"]))
    return {r.name: r.specifier for r in found if r.name != project["name"]}, project


def locked():
    """Pins that apply here, by name."""
    pins = {}
    for line in (PROJECT / "requirements.lock").read_text().splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            pins[requirement.name] = str(requirement.specifier).removeprefix("==")
    return pins


def test_lock_pins_everything_declared_within_its_bounds():
    pins = locked()
    for name, bounds in declared()[0].items():
        assert pins[name] in bounds, name
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    assert all(re.match(r"[a-z0-9-]+==\S+( ; .+)?$", line) for line in lines), "pins only, no addresses"


def test_lock_is_complete_since_nothing_else_is_installed():
    """But for the OpenCV with windows, in whose place stands the one without, which needs no graphics libraries."""
    pins = {canonicalize_name(name): pin for name, pin in locked().items()}
    missing = set()
    for name in pins:
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue  # of another platform
        needed = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
        missing |= {canonicalize_name(r.name) for r in needed}
        assert all(pins[r.name] in r.specifier for r in needed if r.name in pins), f"what {name} needs"
    assert missing - set(pins) == {"opencv-python"} and "opencv-python-headless" in pins


def test_conda_environment_has_the_same_bounds():
    content = yaml.safe_load((PROJECT / "environment.yml").read_text())
    words = [d for d in content["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in content["dependencies"] if isinstance(d, dict))
    assert "-e ." in pip, "installs the package itself"
    found = {
        CONDA_NAMES.get(r.name, r.name): r.specifier for r in map(Requirement, words + [w for w in pip if w[0] != "-"])
    }
    bounds, project = declared()
    assert str(found.pop("python")) == project["requires-python"]
    found.pop("pip")
    assert found == bounds


def test_the_environment_in_use_satisfies_the_declaration():
    from importlib.metadata import version

    for name, bounds in declared()[0].items():
        assert version(name) in bounds, name
    assert requires("saliency-companion") and sys.version_info >= (3, 11)


def test_the_library_alone_needs_neither_sphinx_nor_jupyterlab():
    core = {Requirement(line).name for line in declared()[1]["dependencies"]}
    assert not core & {"sphinx", "docutils", "myst-nb", "jupyterlab", "ipykernel", "papermill", "distributed", "timm"}
    code = "import sys, saliency_lib.snr, saliency_lib.attribution, saliency_lib.audit; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    slow = {"sphinx", "jupyterlab", "papermill", "nbformat", "captum", "seaborn", "distributed", "timm", "transformers"}
    assert not slow & set(loaded)


def test_a_wheel_carries_every_package():
    import tomllib

    told = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(PROJECT).parts) for path in PROJECT.glob("saliency_lib/**/__init__.py")}
    assert {name for name in told if ".share." not in name} == there


def test_citation_names_the_four_papers():
    content = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert content["cff-version"] and content["license"] == "MIT"
    assert [r["year"] for r in content["references"]] == [2023, 2022, 2018, 2024]
    assert "MIT License" in (PROJECT / "LICENSE").read_text()


@pytest.mark.parametrize("module", ["captum", "lucent", "papermill", "ipywidgets", "seaborn", "skimage", "jupyterlab"])
def test_packages_of_later_notebooks_import(module):
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], check=False).returncode == 0
