"""``./run_all.sh audit``: notebook 09 executed on a user's own networks and exported as a page."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat

from saliency_lib.book import captions, page, profiles, script
from saliency_lib.runtime.store import DOOR, atomic

NOTEBOOK = "09_audit_models"


def run(words: Sequence[str], say: Callable[[str], None]) -> int:
    """Execute the notebook with options that are its parameters, and export it; 1 if it failed, else 0."""
    p = argparse.ArgumentParser(prog=f"{DOOR} audit", description=f"Parameters of {NOTEBOOK}.")
    cell = next(c.source for c in profiles.read_notebook(NOTEBOOK).cells if "parameters" in c.metadata.get("tags", []))
    comments = dict(re.findall(r"^(\w+) = .*?# (.*)$", cell, re.MULTILINE))
    p.add_argument("--out", default=Path("build", "audit"), metavar="DIR", help="for report and figures (build/audit)")
    for name, default in profiles.parameters(NOTEBOOK).items():
        if name not in ("profile", "main", "executor"):  # of the networks that it audits without options
            words_or_paths = name in ("model", "checkpoints", "images", "layer") or isinstance(default, str)
            several = isinstance(default, list) or name in ("mean", "std", "checkpoints", "size")
            p.add_argument(f"--{name.replace('_', '-')}", nargs="+" if several else None, metavar="VALUE",
                           type=str if words_or_paths else profiles.value_of, default=argparse.SUPPRESS,
                           help=f"{comments.get(name, name)} (default: {default})".replace("%", "%%"))  # fmt: skip
    values = vars(p.parse_args(words))
    out = Path(values.pop("out")).expanduser().resolve()
    if len(values.get("size") or ()) == 1:
        (values["size"],) = values["size"]
    if "images" in values:
        values["images"] = os.path.abspath(os.path.expanduser(values["images"]))
    if "checkpoints" in values:  # several where the shell has filled in a pattern
        values["checkpoints"] = [os.path.abspath(os.path.expanduser(path)) for path in values["checkpoints"]]
    profiles.check(NOTEBOOK, values, "audit")
    values = profiles.load("quick")[NOTEBOOK] | {"profile": out.name} | values
    os.environ |= {"SALIENCY_FIGURES": str(out.parent), "SALIENCY_QUIET": "1"}
    report, source = out / "report" / "audit.html", out / "notebook" / "source.ipynb"
    report.unlink(missing_ok=True)
    book = profiles.read_notebook(NOTEBOOK)
    book.cells = [
        cell for cell in book.cells if not {"solution", "lesson", "install"} & set(cell.metadata.get("tags", []))
    ]
    with atomic(source) as temporary:
        nbformat.write(book, temporary)
    for name in captions.table():  # its figures, and no file of another name
        for suffix in (".png", ".json") if name.startswith(NOTEBOOK[:2]) else ():
            (out / f"{name}{suffix}").unlink(missing_ok=True)
    executed = out / "notebook" / f"{NOTEBOOK}.ipynb"
    if error := script.in_kernel(source, values, executed, cwd=Path.cwd(), bar=sys.stderr.isatty()):
        say("audit: " + error.split("\n\n")[0].partition(": ")[2])
        return 1
    for cell in nbformat.read(executed, as_version=4).cells:
        if "sentences" in cell.metadata.get("tags", []):
            say("\n".join(output.data["text/plain"] + "\n" for output in cell.outputs))
    page.write(executed, "How much of these maps is noise?", report)
    say(f"report: {report}")
    return 0
