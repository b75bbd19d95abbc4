"""Containers, workflows and metadata say what the project does."""

import json
import re

import nbformat
import pytest
import yaml

from saliency_lib import __main__ as cli
from saliency_lib.runtime.store import PROJECT

WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


def steps(path):
    """All steps of a workflow's jobs; YAML reads its key ``on`` as True."""
    content = yaml.safe_load(path.read_text())
    assert set(content) <= {"name", True, "permissions", "jobs"} and content[True]
    for job in content["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"] <= 360
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_the_form_of_one_and_runs_our_commands(path):
    for step in steps(path):
        assert ("uses" in step) != ("run" in step), step
        assert set(step) <= {"name", "id", "if", "uses", "with", "run", "env"}
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
        for word in re.findall(r"\./run_all\.sh ?([a-z]*)", step.get("run", "")):
            assert word in {"", *cli.COMMANDS}


def test_there_are_two_workflows():
    assert [path.stem for path in WORKFLOWS] == ["figures", "tests"]


def test_the_container_starts_the_lab_for_a_user_who_is_not_root():
    lines = (PROJECT / ".devcontainer" / "Dockerfile").read_text().splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and line[0] not in "# "]
    assert [w for w, _ in words].index("USER") < [w for w, _ in words].index("COPY")
    command = json.loads(dict(words)["CMD"])
    assert command[:2] == ["./run_all.sh", "lab"] and not any("token" in word for word in command)


def test_a_development_container_has_the_fields_of_one():
    content = json.loads((PROJECT / ".devcontainer" / "devcontainer.json").read_text())
    build = {name: (PROJECT / ".devcontainer" / path).resolve() for name, path in content["build"].items()}
    assert build == {"dockerfile": PROJECT / ".devcontainer" / "Dockerfile", "context": PROJECT}
    assert not (PROJECT / "Dockerfile").exists(), "Binder would build it in place of environment.yml"
    known = {"name", "build", "containerUser", "remoteUser", "postCreateCommand", "forwardPorts", "customizations"}
    assert set(content) == known


def test_archive_and_citation_agree():
    content = json.loads((PROJECT / ".zenodo.json").read_text())
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert content["title"] == cited["title"] and content["license"] == cited["license"]
    assert f"## {cited['version']}" in (PROJECT / "CHANGELOG.md").read_text()


def test_a_workflows_summary_says_what_moved():
    from collections import Counter

    from saliency_lib.book.compare import Comparison

    calm = Comparison([], [], Counter(exact=3), 0).markdown()
    assert calm.startswith("**Nothing moved.**") and "###" not in calm
    moved = Comparison(["a: 1 of 2 moved"], ["W01: agrees became differs"], Counter(exact=3), 1).markdown()
    assert "- a: 1 of 2 moved" in moved and "- W01" in moved and "**Numbers moved.**" in moved


def test_a_folder_for_a_course_has_networks_and_no_solutions(smoke, tmp_path, monkeypatch):
    import hashlib
    import subprocess
    import sys

    monkeypatch.setenv("SALIENCY_FIGURES", str(smoke[0]))
    out = tmp_path / "course"
    assert cli.main(["class", "--profile", "smoke", "--out", str(out)]) == 0
    checked = json.loads((out / "saliency-networks.json").read_text())
    assert checked
    for name, digest in checked.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    books = [nbformat.read(path, as_version=4) for path in sorted((out / "notebooks").glob("*.ipynb"))]
    cells = [cell for book in books for cell in book.cells]
    assert not any("solution" in cell.metadata.get("tags", []) for cell in cells)
    graded = [cell.metadata["nbgrader"]["grade_id"] for cell in cells if "nbgrader" in cell.metadata]
    assert len(graded) == len(set(graded)) >= 3 * len(books)
    told = "import sys; from saliency_lib.runtime.store import *; print(store_root(), figures_root())"
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=out / "notebooks", env={"PYTHONPATH": str(PROJECT)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(out / "data"), str(out / "figures")]
    assert cli.main(["class", "--profile", "smoke", "--out", str(out)]) == 2
