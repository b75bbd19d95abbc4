"""What pip builds from the project works in any folder, without a checkout."""

import os
import subprocess
import sys

import pytest

from saliency_lib.runtime.store import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Run the door of an installed wheel in a folder of its own: words to the finished process."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # The sources alone, since setuptools leaves its build where it works.
    parts = ("saliency_lib/**/*.*", "notebooks/**/*.ipynb", "notebooks/**/*.yaml")
    parts += ("data/published/*.csv", "data/figures.csv", "data/readings.csv", "pyproject.toml", "README.md", "LICENSE")
    for path in (path for part in parts for path in PROJECT.glob(part)):
        copy = folder / "source" / path.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    options = ["--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*pip, "wheel", *options, "-w", folder / "made", folder / "source"], check=True)
    (wheel,) = (folder / "made").glob("*.whl")
    subprocess.run([*pip, "install", *options, "--target", folder / "site", wheel], check=True)
    work = folder / "elsewhere"
    work.mkdir()
    unset = ("SALIENCY_STORE", "SALIENCY_FIGURES", "SALIENCY_RESULTS", "SALIENCY_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in unset} | {"PYTHONPATH": str(folder / "site")}

    def run(*words):
        command = [sys.executable, "-m", "saliency_lib", *words]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)

    return run, work


@pytest.mark.parametrize("words", [("--help",), ("audit", "--help")])
def test_help_is_there(installed, words):
    done = installed[0](*words)
    assert done.returncode == 0 and "python -m saliency_lib" in done.stdout and "run_all" not in done.stdout


def test_a_notebook_runs_where_one_stands(installed):
    run, work = installed
    done = run("run", "--profile", "smoke", "--only", "01", "--no-kernel")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "figures" / "smoke" / "01_data.json").exists() and (work / "data" / "ensembles").exists()


def test_what_needs_the_whole_project_says_so(installed):
    done = installed[0]("site")
    assert done.returncode == 2 and "needs a checkout" in done.stdout
