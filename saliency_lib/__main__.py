"""The command line behind ``run_all.sh``."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from saliency_lib.runtime.machine import cores
from saliency_lib.runtime.progress import say
from saliency_lib.runtime.store import DOOR, IN_CHECKOUT, PROJECT, SHARED, results_root, store_root

COMMANDS = {
    "run": "execute the notebooks and regenerate their figures (default)",
    "check": "execute the notebooks beside the committed figures and list the numbers that moved",
    "seeds": "execute the notebooks with two other seeds, and keep what they say beside the committed figures",
    "publish": "bring RESULTS.md, the README's tables, quoted numbers and 03_why_cifar up to date with the figures",
    "site": "make the HTML site from the executed notebooks; --edition student leaves the solutions out",
    "audit": "audit your own networks: --model, --checkpoints, --images; --help after it lists all options",
    "class": "write a folder for a course to --out: notebooks without solutions, and networks for 02, 03, 05, 07, 09",
    "lab": "open the notebooks in JupyterLab; further arguments go to it",
    "test": "run the tests but for the slow ones and the browser's, which --all adds; more arguments go to pytest",
    "bench": "run the benchmarks and write build/speed.md; with arguments for pytest only run them",
    "lint": "check style and types of the code",
    "setup": "make the environment and stop",
    "clean": "remove what can be made again, but for trained ensembles",
}
OF_CHECKOUT = set(COMMANDS) - {"run", "audit", "lab", "setup"}  # they need all of the project
LINT = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "saliency_lib"])
BENCH = ("pytest", "tests/benchmarks", "-o", "python_files=bench_*.py", "-q")


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
    sizes = "smoke, quick (default), paper-cpu (hours), imagenette-cpu (a night) or paper (a GPU)"
    add("--profile", default="quick", metavar="NAME", help=sizes)
    add("--only", nargs="+", metavar="NN", help="some notebooks, by number: --only 01 02")
    set_help = "a parameter, or main.n_members=4 of an ensemble; figures then go to figures/custom"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=set_help)
    add("--jobs", type=int, metavar="N", help="notebooks at a time (default: as many as cores, or one on a GPU)")
    where = "where work is done: serial, processes, dask or a scheduler's tcp://host:8786 (default: each notebook's)"
    add("--executor", metavar="WHERE", help=where)
    plain = "run the notebooks' code without Jupyter: figures and numbers, no executed notebooks and no site"
    add("--no-kernel", action="store_true", help=plain)
    add("--force", action="store_true", help="execute also what is up to date")
    lent = "seconds for rows of the papers' tables; a later call goes on (--profile paper or paper-cpu)"
    add("--budget", type=float, metavar="SECONDS", help=lent)
    add("--out", metavar="DIR", help="of class: a new folder")
    add("--edition", default="full", metavar="NAME", help="of the site: full (default) or student")
    add("--open", action="store_true", help="open the site in the browser at the end")
    add("--data-root", metavar="DIR", help="folder of the data sets (default $SALIENCY_DATA, else data/)")
    return p


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
    return int(any([python(*command) for command in LINT]))


def setup(_: argparse.Namespace) -> int:
    """``run_all.sh`` has done it."""
    say(f"the environment is ready: {sys.prefix}")
    return 0


def test(*words: str) -> int:
    """Run the tests, a process of one thread on each core."""
    every, rest = "--all" in words, [word for word in words if word != "--all"]
    which = ("-n", str(cores()), "-m", "" if every else "not slow and not browser")
    return python("pytest", *which, *rest, OMP_NUM_THREADS="1", SALIENCY_ALL_TESTS="1" if every else "")


def bench(*words: str) -> int:
    """Compare times with those of other libraries, or of the bare work."""
    return python(*BENCH, *words, SALIENCY_SPEED="" if words else str(PROJECT / "build" / "speed.md"))


def lab(*words: str) -> int:
    """Start JupyterLab on loopback; figures of notebooks run by hand go to ``build/lab``."""
    loopback = () if any(word.startswith("--ServerApp.ip=") for word in words) else ("--ServerApp.ip=127.0.0.1",)
    words = (*loopback, str(SHARED / "notebooks"), *words)
    return python("jupyterlab", *words, SALIENCY_FIGURES=str(PROJECT / "build" / "lab"))


def audit(*words: str) -> int:
    """Make the page on the user's own networks; options are those of notebook 09."""
    from saliency_lib.book import report

    return report.run(words, say)


OWN_WORDS: dict[str, Callable[..., int]] = {"test": test, "bench": bench, "lab": lab, "audit": audit}
OPTIONS = {each.__name__: each for each in (lint, setup, clean)}  # all others are in book/commands.py


def main(words: list[str]) -> int:
    """Do what the command line says; 0 for success, 1 for a failure, 2 for arguments that are off."""
    own = words[0] if words and words[0] in OWN_WORDS else ""
    arguments = argparse.Namespace(command=own) if own else parser().parse_args(words)
    if not IN_CHECKOUT and arguments.command in OF_CHECKOUT:
        say(f"{arguments.command} needs a checkout of the project; the installed package can run, audit and lab")
        return 2
    if own:
        return _told(OWN_WORDS[own], *words[1:])
    if arguments.command in OWN_WORDS:
        say(f"{DOOR}: {arguments.command} has options of its own, which follow it: {DOOR} {arguments.command} ...")
        return 2
    if arguments.data_root:
        root = os.path.abspath(os.path.expanduser(arguments.data_root))
        if not os.path.isdir(root):
            say(f"{DOOR}: --data-root {root} is not a folder")
            return 2
        os.environ["SALIENCY_DATA"] = root
    return _told(OPTIONS.get(arguments.command, _of_the_book), arguments)


def _of_the_book(arguments: argparse.Namespace) -> int:
    """A command that needs notebooks, whose imports take a while."""
    from saliency_lib.book import commands

    return commands.COMMANDS[arguments.command](arguments)


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
        say(f"{DOOR}: {error}")
        return 2
    except KeyboardInterrupt:
        say("stopped; of a run what was finished is kept, and the next call goes on from there")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
