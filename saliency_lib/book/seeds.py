"""The same notebooks with other networks: what other seeds say of each claim, kept as numbers without pictures."""

import json
from pathlib import Path

from saliency_lib.book import claims
from saliency_lib.runtime.store import atomic

OTHERS = (1, 2)  # beside the figures' own, 0


def folder_of(figures: Path, seed: int) -> Path:
    """Where a seed's numbers lie beside the figures of a profile."""
    return figures / "seeds" / str(seed)


def keep(made: Path, figures: Path, seed: int) -> int:
    """Copy numbers and verdicts out of the figures' JSON in ``made``; how many figures there were."""
    paths = sorted(made.glob("*.json"))
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: content[name] for name in ("id", "numbers", "verdicts", "provenance")}
        with atomic(folder_of(figures, seed) / path.name) as temporary:
            temporary.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(paths)


def verdicts(figures: Path) -> dict[str, list[str]]:
    """The verdicts of all seeds on each claim, the figures' own first; empty where no other seed was run."""
    runs = [claims.verdicts(at) for at in (figures, *(folder_of(figures, seed) for seed in OTHERS)) if at.is_dir()]
    if len(runs) < 2:
        return {}
    return {claim: [run[claim]["verdict"] for run in runs if claim in run] for claim in runs[0]}
