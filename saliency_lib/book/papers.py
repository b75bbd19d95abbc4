"""What was run on the papers' own data, by which command, and what was not reached, in Markdown."""

import json
from pathlib import Path

from saliency_lib.book import claims, profiles
from saliency_lib.runtime.store import PROJECT

FIGURES = PROJECT / "figures" / "paper"


def runs(folder: Path = FIGURES) -> list[dict]:
    """Provenance of each notebook's last figure there, in the order of the notebooks."""
    found: dict[str, dict] = {}
    for path in sorted(folder.glob("*.json")):
        made = json.loads(path.read_text())["provenance"]
        name = made["notebook"]
        found[name] = max(found.get(name, made), made, key=lambda made: made["seconds"])
    return list(found.values())


def profile_of(made: dict) -> str | None:
    """The profile that has the parameters of a provenance, wherever it was computed; None if none has any more."""
    name, elsewhere = made["notebook"], {"executor": ""}  # which says where, not what
    for profile in profiles.names():
        if profiles.parameters(name) | profiles.load(profile)[name] | elsewhere == made["parameters"] | elsewhere:
            return profile
    return None


def _datasets(values: dict) -> list[str]:
    named = [values[name] for name in values if name.endswith("dataset")] + values.get("more_datasets", [])
    return sorted(set(named))


def _changed(made: dict) -> dict:
    """The parameters that are not the notebook's defaults, but for where it ran."""
    own = profiles.parameters(made["notebook"])
    return {k: v for k, v in made["parameters"].items() if k not in ("profile", "executor") and v != own[k]}


def overview(folder: Path = FIGURES) -> str:
    """A table of the runs, and a sentence on what was not reached."""
    made = {run["notebook"]: run for run in runs(folder)}
    lines = ["| notebook | data | made by | where |", "|---|---|---|---|"]
    for name, run in made.items():
        changed = _changed(run)
        sizes = ", ".join(f"{k}={v}" for k, v in changed.items() if not k.endswith(("dataset", "datasets")))
        profile = profile_of(run)
        command = f"`./run_all.sh --profile {profile} --only {name[:2]}`" if profile else "no profile any more"
        threads = f"{run['threads']} thread{'s' * (run['threads'] > 1)}"
        where = f"{run['device']}, {threads}, torch {run['versions']['torch']}; {run['seconds']:.0f} s"
        lines.append(f"| {name[:2]} | {', '.join(_datasets(changed))} | {command}: {sizes} | {where} |")
    wanted = sorted({row["notebook"] for row in claims.all_claims().values()})
    missing = [name for name in profiles.notebooks() if name[:2] in wanted and name not in made]
    paper = profiles.load("paper")
    of_sets = [f"{name[:2]} ({', '.join(_datasets(paper[name]))})" for name in missing]
    return "\n".join([*lines, "", f"**Not reached**: {'; '.join(of_sets) or 'nothing'}."])
