"""The commands of ``run_all.sh`` that execute notebooks or make pages of them; each gives the process's exit code."""

import argparse
import os
import sys
import time
import webbrowser
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

from saliency_lib.book import pace, pipeline, plan, results
from saliency_lib.book.compare import compare
from saliency_lib.book.profiles import value_of
from saliency_lib.book.seeds import OTHERS, keep
from saliency_lib.runtime.machine import cores
from saliency_lib.runtime.progress import say
from saliency_lib.runtime.store import IN_CHECKOUT, PROJECT, atomic, figures_root


def changes(words: list[str]) -> dict:
    """``NAME=VALUE`` words, values in YAML; of ``ENSEMBLE.FIELD=VALUE`` words ``{ENSEMBLE: {FIELD: VALUE}}``."""
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
    """Execute notebooks; the site follows where they are all of a profile's, as they are. With a budget, rows alone."""
    if arguments.budget is not None:
        say(plan.run(arguments.profile, arguments.budget, changes(arguments.set), arguments.only or (), say))
        return 0
    if not (folders := _executed(arguments, PROJECT / "build")):
        return 1
    figures = figures_root() / folders[0]
    say(f"figures and numbers: {', '.join(str(figures_root() / folder) for folder in folders)}")
    if len(folders) > 1 or arguments.only or arguments.set or arguments.no_kernel or not IN_CHECKOUT:
        return 0
    for paper, sentence in zip(results.PAPERS.values(), results.sentences(figures)):
        say(f"\n{paper}. {sentence}")
    return site(arguments)


def check(arguments: argparse.Namespace) -> int:
    """Regenerate figures under ``build/check``, compare every number with the committed ones, and sum up in a page."""
    if arguments.set:
        raise ValueError("check compares with the committed figures, so it takes no --set")
    fresh = PROJECT / "build" / "check"  # with results of its own, so that nothing is compared with itself
    os.environ |= {"SALIENCY_FIGURES": str(fresh), "SALIENCY_RESULTS": str(fresh / "results")}
    if not (folders := _executed(arguments, fresh / "notebooks")):
        return 1
    found = compare([(PROJECT / "figures" / folder, fresh / folder) for folder in folders])
    say("\n".join([*found.figures, *found.verdicts, str(found)]))
    with atomic(fresh / "summary.md") as temporary:
        temporary.write_text(found.markdown(), encoding="utf-8")
    return 0 if found.passes else 1


def seeds(arguments: argparse.Namespace) -> int:
    """Run the notebooks with other seeds, whose numbers and verdicts are kept under ``figures/<profile>/seeds``."""
    if arguments.set:
        raise ValueError("seeds runs what is committed with other seeds, so it takes no --set")
    committed = figures_root() / arguments.profile
    for seed in OTHERS:
        work = PROJECT / "build" / "seeds" / str(seed)
        os.environ["SALIENCY_FIGURES"] = str(work)
        arguments.set = [f"seed={seed}"]
        if not (folders := _executed(arguments, work / "notebooks")):
            return 1
        say(f"seed {seed}: numbers of {keep(work / folders[0], committed, seed)} figures kept")
    return 0


def _executed(arguments: argparse.Namespace, build: Path) -> list[str]:
    """Execute notebooks and say what became of them; the folders of their figures, or none if one failed."""
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {arguments.jobs}")
    chosen = pipeline.select(arguments.only)
    values = pipeline.settings(arguments.profile, chosen, changes(arguments.set), arguments.executor)
    _say_how_long(values, build, arguments)
    options = {"jobs": arguments.jobs, "force": arguments.force, "kernel": not arguments.no_kernel}
    started, before = time.monotonic(), _processor_seconds()
    done = pipeline.run(values, build, bar=sys.stderr.isatty(), announce=say, **options)
    seconds, busy = time.monotonic() - started, _processor_seconds() - before
    say(pipeline.table(done))
    say(f"{seconds:.0f} s; the cores were busy for {busy / seconds / cores():.0%} of it")
    errors = [result.error for result in done if result.error]
    for error in errors:
        say(f"\n{error}")
    return [] if errors else list(dict.fromkeys(own["profile"] for own in values.values()))


def _say_how_long(values: dict[str, dict], build: Path, arguments: argparse.Namespace) -> None:
    """What will happen, and for how long; of a whole ``quick`` after some seconds of training."""
    folders = {name: build / values[name]["profile"] for name in values}
    todo = [n for n in values if arguments.force or not pipeline.fresh(folders[n], n, values[n])]
    if todo:
        where = figures_root() / values[todo[0]]["profile"]
        say(f"{len(todo)} of {len(values)} notebooks to execute, figures to {where}; Ctrl-C stops and loses nothing")
    if len(todo) > 1 and arguments.profile == "quick":
        say(f"about {max(1, round(pace.expected(todo)))} min on this machine, less where networks are trained already")


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(found.ru_utime + found.ru_stime for found in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def site(arguments: argparse.Namespace) -> int:
    """Build the HTML site of one profile and edition."""
    from saliency_lib.book.site import build  # here, as below, since runs without Jupyter do without it

    page = build(arguments.profile, arguments.edition) / "index.html"
    say(f"\nto read: {page}")
    if arguments.open:
        webbrowser.open(page.as_uri())
    return 0


def publish(_: argparse.Namespace) -> int:
    """Bring the pages that are made from committed figures up to date."""
    say("\n".join(f"written: {path}" for path in results.publish(say)) or "all is up to date")
    return 0


def course(arguments: argparse.Namespace) -> int:
    """A folder for students."""
    from saliency_lib.book.course import write

    if not arguments.out:
        raise ValueError("class wants a new folder: --out DIR")
    say("\n".join(write(Path(arguments.out).expanduser().resolve(), arguments.profile)))
    return 0


COMMANDS = {each.__name__: each for each in (run, check, seeds, publish, site)} | {"class": course}
