"""The command line behind ``run_all.sh``."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

from joblib import cpu_count

from saliency_lib.runtime.store import DOOR, IN_CHECKOUT, PROJECT, SHARED, figures_root, results_root, store_root

COMMANDS = {
    "run": "execute the notebooks and regenerate their figures (default)",
    "check": "execute the notebooks beside the committed figures and list the numbers that moved",
    "seeds": "execute the notebooks with two other seeds, and keep what they say beside the committed figures",
    "publish": "write RESULTS.md and the README's gallery and verdicts anew, from the committed figures",
    "site": "make the HTML site from the executed notebooks; --edition student leaves the solutions out",
    "audit": "audit your own networks: --model, --checkpoints, --images; --help after it lists all options",
    "lab": "open the notebooks in JupyterLab; further arguments go to it",
    "test": "run the tests but for the slow ones and the browser's, which --all adds; more arguments go to pytest",
    "bench": "run the benchmarks and write build/speed.md; with arguments for pytest only run them",
    "lint": "check style and types of the code",
    "setup": "make the environment and stop",
    "clean": "remove what can be made again, but for trained ensembles",
}
OF_CHECKOUT = {"check", "seeds", "publish", "site", "test", "bench", "lint", "clean"}  # they need all of the project
LINT = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "saliency_lib"])
BENCH = ("pytest", "tests/benchmarks", "-o", "python_files=bench_*.py", "-q")


def say(text: str) -> None:
    """One line to the terminal, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def python(*words: str, **environment: str) -> int:
    """Run a module of this Python in the checkout, ``python -m ...``; its code."""
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=PROJECT, env=os.environ | environment, check=False).returncode


def parser() -> argparse.ArgumentParser:
    """Commands and options."""
    p = argparse.ArgumentParser(
        prog=DOOR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="How much of a saliency map is about the data, and how much is noise?",
        usage=f"{DOOR} [command] [options]",
        epilog="commands:\n" + "\n".join(f"  {name:8}{text}" for name, text in COMMANDS.items()),
    )
    add = p.add_argument
    add("command", nargs="?", default="run", choices=list(COMMANDS), help=argparse.SUPPRESS)
    add("--profile", default="quick", metavar="NAME", help="smoke, quick (default), paper-cpu (hours) or paper (a GPU)")
    add("--only", nargs="+", metavar="NN", help="some notebooks, by number: --only 01 02")
    set_help = "a parameter, or main.n_members=4 of an ensemble; figures then go to figures/custom"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=set_help)
    add("--jobs", type=int, metavar="N", help="notebooks at a time (default: as many as cores, or one on a GPU)")
    where = "where work is done: serial, processes, dask or a scheduler's tcp://host:8786 (default: each notebook's)"
    add("--executor", metavar="WHERE", help=where)
    plain = "run the notebooks' code without Jupyter: figures and numbers, no executed notebooks and no site"
    add("--no-kernel", action="store_true", help=plain)
    add("--force", action="store_true", help="execute also what is up to date")
    add("--edition", default="full", metavar="NAME", help="of the site: full (default) or student")
    add("--data-root", metavar="DIR", help="folder of the data sets (default $SALIENCY_DATA, else data/)")
    return p


def changes(words: list[str]) -> dict:
    """``NAME=VALUE`` words, values in YAML; of ``ENSEMBLE.FIELD=VALUE`` words ``{ENSEMBLE: {FIELD: VALUE}}``."""
    from saliency_lib.book.profiles import value_of

    found: dict = {}
    for word in words:
        name, equals, value = word.partition("=")
        name, _, field = name.partition(".")
        if not name or not equals:
            raise ValueError(f"--set wants NAME=VALUE, not {word!r}")
        old = found[name] if isinstance(found.get(name), dict) else {}
        found[name] = old | {field: value_of(value)} if field else value_of(value)
    return found


def run(arguments: argparse.Namespace) -> int:
    """Execute notebooks; the site follows where they are all of a profile's, as they are."""
    if not (profile := _executed(arguments, PROJECT / "build")):
        return 1
    say(f"figures and numbers: {figures_root() / profile}")
    return 0 if arguments.only or arguments.set or arguments.no_kernel or not IN_CHECKOUT else site(arguments)


def check(arguments: argparse.Namespace) -> int:
    """Regenerate figures under ``build/check`` and compare every number with the committed ones."""
    from saliency_lib.book.compare import compare

    if arguments.set:
        raise ValueError("check compares with the committed figures, so it takes no --set")
    fresh = PROJECT / "build" / "check"  # with results of its own, so that nothing is compared with itself
    os.environ |= {"SALIENCY_FIGURES": str(fresh), "SALIENCY_RESULTS": str(fresh / "results")}
    if not _executed(arguments, fresh / "notebooks"):
        return 1
    found = compare(PROJECT / "figures" / arguments.profile, fresh / arguments.profile)
    say("\n".join([*found.figures, *found.verdicts, str(found)]))
    return 0 if found.passes else 1


def seeds(arguments: argparse.Namespace) -> int:
    """Run the notebooks with other seeds, whose numbers and verdicts are kept under ``figures/<profile>/seeds``."""
    from saliency_lib.book.seeds import OTHERS, keep

    committed = figures_root() / arguments.profile
    for seed in OTHERS:
        work = PROJECT / "build" / "seeds" / str(seed)
        os.environ["SALIENCY_FIGURES"] = str(work)
        arguments.set = [f"seed={seed}"]
        if not (folder := _executed(arguments, work / "notebooks")):
            return 1
        say(f"seed {seed}: numbers of {keep(work / folder, committed, seed)} figures kept")
    return 0


def _executed(arguments: argparse.Namespace, build: Path) -> str:
    """Execute notebooks and say what became of them; the folder of their figures, or nothing if one failed."""
    from saliency_lib.book import pipeline

    if arguments.jobs is not None and arguments.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {arguments.jobs}")
    chosen = pipeline.select(arguments.only)
    values = pipeline.settings(arguments.profile, chosen, changes(arguments.set), arguments.executor)
    options = {"jobs": arguments.jobs, "force": arguments.force, "kernel": not arguments.no_kernel}
    started, before = time.monotonic(), _processor_seconds()
    done = pipeline.run(values, build, bar=sys.stderr.isatty(), announce=say, **options)
    seconds, busy = time.monotonic() - started, _processor_seconds() - before
    say(pipeline.table(done))
    say(f"{seconds:.0f} s; the cores were busy for {busy / seconds / cpu_count():.0%} of it")
    errors = [result.error for result in done if result.error]
    for error in errors:
        say(f"\n{error}")
    return "" if errors else values[chosen[0]]["profile"]


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(found.ru_utime + found.ru_stime for found in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def site(arguments: argparse.Namespace) -> int:
    """Build the HTML site of one profile and edition."""
    from saliency_lib.book.site import build

    say(f"site: {build(arguments.profile, arguments.edition) / 'index.html'}")
    return 0


def publish(_: argparse.Namespace) -> int:
    """Bring the pages that are made from committed figures up to date."""
    from saliency_lib.book import results

    say("\n".join(f"written: {path}" for path in results.publish()) or "all is up to date")
    return 0


def clean(_: argparse.Namespace) -> int:
    """Remove build products, smoke and custom figures, and kept results; say what went and what stayed."""
    made = [PROJECT / name for name in ("build", "figures/smoke", "figures/custom", "data/results")]
    for folder in made:
        if folder.is_symlink():
            say(f"kept {folder}: it is a link to {folder.resolve()}, so remove it by hand")
        elif folder.exists():
            shutil.rmtree(folder)
            say(f"removed {folder}")
    for folder, what in ((results_root(), "results"), (store_root() / "ensembles", "trained networks")):
        if folder not in made and folder.exists():
            say(f"kept {folder} ({what}): remove it by hand to make them again")
    return 0


def lint(_: argparse.Namespace) -> int:
    """1 if one of the tools has found something."""
    return max([python(*command) for command in LINT]) and 1


def setup(_: argparse.Namespace) -> int:
    """``run_all.sh`` has done it."""
    say(f"the environment is ready: {sys.prefix}")
    return 0


def test(*words: str) -> int:
    """Run the tests, a process of one thread on each core."""
    options = ["-n", str(cpu_count()), "-m", "not slow and not browser"]
    if "--all" in words:
        options[-2:] = ["-m", ""]
    rest = [word for word in words if word != "--all"]
    return python("pytest", *options, *rest, OMP_NUM_THREADS="1", SALIENCY_ALL_TESTS="1" if "--all" in words else "")


def bench(*words: str) -> int:
    """Compare times with those of other libraries, or of the bare work."""
    return python(*BENCH, *words, SALIENCY_SPEED="" if words else str(PROJECT / "build" / "speed.md"))


def lab(*words: str) -> int:
    """Start JupyterLab on loopback; figures of notebooks run by hand go to ``build/lab``."""
    words = ("--ServerApp.ip=127.0.0.1", str(SHARED / "notebooks"), *words)
    return python("jupyterlab", *words, SALIENCY_FIGURES=str(PROJECT / "build" / "lab"))


def audit(*words: str) -> int:
    """Make the page on the user's own networks; options are those of notebook 09."""
    from saliency_lib.book import report

    return report.run(words, say)


OWN_WORDS: dict[str, Callable[..., int]] = {"test": test, "bench": bench, "lab": lab, "audit": audit}
OPTIONS = {each.__name__: each for each in (run, check, seeds, publish, site, lint, setup, clean)}


def main(words: list[str]) -> int:
    """Do what the command line says; 0 for success, 1 for a failure, 2 for arguments that are off."""
    if not IN_CHECKOUT and words and words[0] in OF_CHECKOUT:
        say(f"{words[0]} needs a checkout of the project; the installed package can run, audit and lab")
        return 2
    if words and words[0] in OWN_WORDS:
        return _told(OWN_WORDS[words[0]], *words[1:])
    arguments = parser().parse_args(words)
    if arguments.data_root:
        root = os.path.abspath(os.path.expanduser(arguments.data_root))
        if not os.path.isdir(root):
            say(f"run_all.sh: --data-root {root} is not a folder")
            return 2
        os.environ["SALIENCY_DATA"] = root
    return _told(OPTIONS[arguments.command], arguments)


def _told(function: Callable[..., int], *arguments) -> int:
    """The function's code; what a user can cause becomes one sentence."""
    try:
        return function(*arguments)
    except ModuleNotFoundError as error:
        if IN_CHECKOUT:
            raise
        say(f"this needs {error.name}: pip install 'saliency-companion[notebooks]'")
        return 2
    except (ValueError, OSError) as error:
        say(f"run_all.sh: {error}")
        return 2
    except KeyboardInterrupt:
        say("stopped; what was finished is kept, and the next call goes on from there")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
