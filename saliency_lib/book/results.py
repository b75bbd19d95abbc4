"""Verdicts, galleries and runs from the figures' JSON, in Markdown that GitHub and the site show alike.

README.md, RESULTS.md and pages of the site have parts that are made here. They stand between ``<!-- name -->`` and
``<!-- end of name -->``; all else in these files is written by hand.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from saliency_lib.book import claims, lines, measured, pace, profiles, quotes, seeds
from saliency_lib.runtime.store import PROJECT, atomic

QUICK = PROJECT / "figures" / "quick"
PAPERS_DATA = sorted({path.parent for path in (PROJECT / "figures").glob("*-*/*.json")})  # by data set and network
ROWS = sorted((PROJECT / "figures").glob(f"*-*/{measured.FILE}"))  # of ensembles that were measured one by one
TEXTS = (*sorted((PROJECT / "notebooks").glob("*.ipynb")), PROJECT / "docs" / "teaching.md")  # that quote numbers
PAGES = (*TEXTS, PROJECT / "README.md", PROJECT / "RESULTS.md")
ACROSS, WIDTH = 4, 200  # pictures in a line of a gallery, and pixels across each
EMBEDDED = {  # claims that a folder judges on data that quick has as well
    "cifar10-resnet18": ("W08", "W09"), "imagenette-resnet18": ("A06", "A07", "H01"), "cmnist-resnet9": ("B01",),
}  # fmt: skip
DATA = ("dataset", "datasets")  # how parameters that name data sets end

# By the first letter of a claim: the paper, and what came out; {claim: words} stands for the value of the claim's first
# quantity whose name has these words.
PAPERS = {
    "W": "Woerl et al. 2023, initialisation noise",
    "B": "Bykov et al. 2022, NoiseGrad",
    "A": "Adebayo et al. 2018, sanity checks",
    "H": "Herdt et al. 2024, smooth deep saliency",
    "N": "Related work, where noise lives",
}
FOUND = {
    "W": "Of networks that differ in their seed alone, one gradient has a signal-to-noise ratio of {W01: mean SNR}, "
    "as the paper's 30 networks would measure it. In small networks on digits it grows as the width to the power of "
    "{W17: mean over all lines}; ReLU changes it by a factor of {W19: SNR with ReLU}, one more layer by "
    "{W18: SNR with one layer more}.",
    "B": "The share of a gradient's strongest pixels that lie on the object changes with noise on the weights "
    "(NoiseGrad) by {B02: NoiseGrad than baseline}, with noise on weights and input (FusionGrad) by "
    "{B02: FusionGrad than baseline}.",
    "A": "With all layers redrawn, the rank correlation of a CNN's gradient with the trained one's is lower by "
    "{A01: all layers redrawn, gradient, rank} than that of two CNNs that were trained alike. With the upper half "
    "redrawn, guided backpropagation still has {A03: upper half redrawn, guided backprop}, where 1 is the same map.",
    "H": "Where it falls least, of the layers before a strided convolution, the gradient's total variation still falls "
    "by {H02: surrogate} % with the surrogate, {H02: backward} % with the backward hook and {H02: forward} % with the "
    "forward hook; this hook costs {H06: lost} points of accuracy.",
    "N": "Near period two a gradient's SNR is {N01: SNR near} times that in the dip before. A low-pass changes a "
    "gradient's faithfulness by {N02: faithfulness}; guided backpropagation has {N03: SNR of guided} times the "
    "gradient's ratio of signal to noise over retraining.",
}


def figures(folder: Path) -> list[dict]:
    """What the figures of one profile say, in the order of the notebooks."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def title(notebook: str) -> str:
    """The heading of a notebook."""
    return "".join(profiles.content(notebook)["cells"][0]["source"]).splitlines()[0].removeprefix("# ")


def judged(folder: Path) -> dict[str, dict]:
    """Verdicts on all claims; ValueError names those without one."""
    found = claims.verdicts(folder)
    if missing := [claim for claim in claims.all_claims() if claim not in found]:
        raise ValueError(f"claims without a verdict in {folder}: {', '.join(missing)}; run their notebooks")
    return found


def sentences(folder: Path = QUICK) -> list[str]:
    """What came out, for each of ``PAPERS``."""
    here = judged(folder)
    return [
        re.sub(r"\{(\w+): (.+?)\}", lambda match: _value_of(here[match[1]], match[2]), FOUND[letter])
        for letter in PAPERS
    ]


def found(folder: Path = QUICK) -> str:
    """A line for each paper: what came out, and how many verdicts agree, differ and so on, here and on larger data."""
    here, rows = judged(folder).values(), []
    larger = [(data, claims.verdicts(data).items()) for data in PAPERS_DATA]
    theirs = [v for data, of in larger for claim, v in of if claim not in EMBEDDED.get(data.name, ())]
    for (letter, paper), sentence in zip(PAPERS.items(), sentences(folder)):
        of_paper = ([v for v in verdicts if v["claim"][0] == letter] for verdicts in (here, theirs))
        ours, own = (lines.counts(some, "<br>") for some in of_paper)
        rows.append([f"**{paper}**", sentence, ours, own or "not run"])
    return _table(
        ["paper", f"found at `{folder.name}`, with 95 % intervals", "its claims", "on larger data, all runs"], rows
    )


def verdicts(folder: Path = QUICK) -> str:
    """A table for each paper: claim, the paper's number, ours with intervals, verdict."""
    here = claims.verdicts(folder) if folder in PAPERS_DATA else judged(folder)
    parts, of_seeds = [], seeds.verdicts(folder)
    for letter, paper in PAPERS.items():
        if rows := [lines.row(folder, v, of_seeds.get(claim, [])) for claim, v in here.items() if claim[0] == letter]:
            parts += [f"### {paper}", _table(["claim", "paper", "here", "verdict"], rows)]
    return "\n\n".join(parts)


def gallery(folder: Path = QUICK) -> str:
    """A table of pictures, ``ACROSS`` in a line, each with its notebook, what it reproduces, and the claims decided."""
    cells = [_cell(folder, figure) for figure in figures(folder)]
    cells += [""] * (-len(cells) % ACROSS)
    return _table([""] * ACROSS, [cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)])


def runs(folder: Path) -> dict[str, dict]:
    """The provenance of each notebook's last figure, by notebook."""
    made = (figure["provenance"] for figure in figures(folder))
    return {each["notebook"]: each for each in sorted(made, key=lambda each: (each["notebook"], each["seconds"]))}


def of_each(part: Callable[[Path], str]) -> str:
    """A part for each data set and network that a paper has."""
    return "\n\n".join(f"### `{folder.name}`\n\n{part(folder)}" for folder in PAPERS_DATA)


def overview(folders: Sequence[Path] = PAPERS_DATA) -> str:
    """What was run on the papers' data: parameters that are not those of ``quick``, where, how long; what was not."""
    own, rows = runs(QUICK), []
    for folder, name, run in ((at, name, run) for at in folders for name, run in runs(at).items()):
        changed = _changed(run["parameters"], own[name]["parameters"] if name in own else {})
        data = {read.rpartition(" ")[0]: facts["source"] for read, facts in run["data"].items()}
        sizes = lines.plain(", ".join(f"{k}={v}" for k, v in changed.items() if not k.endswith(DATA)))
        threads = f"{run['threads']} thread{'s' * (run['threads'] > 1)}"
        where = f"{run['device']}, {threads}, torch {run['versions']['torch']}; {run['seconds']:.0f} s"
        read = "<br>".join(f"{d} ({data[d]})" for d in sorted(data))
        rows.append([f"`{folder.name}`", name[:2], read, sizes, where])
    reached = {claim for at in folders for claim in claims.verdicts(at)}
    missing = ", ".join(claim for claim in claims.all_claims() if claim not in reached)
    table = _table(["run", "notebook", "data", "parameters", "where"], rows)
    return f"{table}\n\n**Claims without a verdict there**: {missing or 'none'}."


def rows(_: Path = QUICK) -> str:
    """What was measured on the papers' data row by row, a table for each data set and network."""
    parts = (f"#### `{path.parent.name}`\n\n{_table(measured.HEAD, measured.lines(path))}" for path in ROWS)
    return "\n\n".join(parts) or "None yet."


def notebooks(_: Path = QUICK) -> str:
    """A line for each notebook: its heading, the papers whose claims it tests, and the minutes that it takes."""
    rows = []
    for name in profiles.notebooks():
        tested = {claim[0] for claim, row in claims.all_claims().items() if row["notebook"] == name[:2]}
        papers = ", ".join(paper.split(",")[0] for letter, paper in PAPERS.items() if letter in tested)
        rows.append([f"[{name[:2]} {title(name)}](notebooks/{name}.ipynb)", papers or "–", f"{pace.minutes([name]):g}"])
    return _table(["notebook", "claims of", "minutes"], rows)


def deviations(_: Path = QUICK) -> str:
    """What every notebook that tests claims says of its differences from the paper; ValueError if one says nothing."""
    parts, start = [], "**Differences from the paper.**"
    for two_digits in sorted({row["notebook"] for row in claims.all_claims().values()}):
        name = _notebook(two_digits)
        text = "\n\n".join("".join(cell["source"]) for cell in profiles.content(name)["cells"])
        if start not in text:
            raise ValueError(f"{name} has no paragraph {start}")
        paragraph = text.split(start, 1)[1].strip().split("\n\n", 1)[0]
        parts.append(f"### [{two_digits} {title(name)}](notebooks/{name}.ipynb)\n\n{paragraph}")
    return "\n\n".join(parts)


PARTS = {
    "found": found,
    "notebooks": notebooks,
    "verdicts": verdicts,
    "gallery": gallery,
    "deviations": deviations,
    "overview": lambda _: overview(),
    "verdicts on the papers' data": lambda _: of_each(lambda folder: verdicts(folder).replace("### ", "#### ")),
    "rows on the papers' data": rows,
    "gallery on the papers' data": lambda _: of_each(gallery),
}


def filled(text: str, folder: Path = QUICK) -> str:
    """The text with its parts made anew from the figures of one profile; KeyError for an unknown part."""
    return quotes.MADE.sub(lambda m: f"<!-- {m[1]} -->\n\n{PARTS[m[1]](folder)}\n\n<!-- end of {m[1]} -->", text)


def current(path: Path) -> str:
    """What a page or a notebook should be: its parts and the numbers that it quotes as the figures have them."""
    text = path.read_text(encoding="utf-8")
    return quotes.refreshed_notebook(text) if path.suffix == ".ipynb" else quotes.refreshed(filled(text))


def stale() -> list[Path]:
    """Pages and notebooks that are not as :func:`publish` would leave them."""
    return [path for path in PAGES if current(path) != path.read_text(encoding="utf-8")]


def publish(tell: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Bring pages and notebooks up to date with the committed figures; gives those that it wrote, and tells of quotes
    that left their intervals."""
    from saliency_lib.book import arms  # here, since pages alone need no pictures

    written = [] if arms.fresh(quotes.FIGURES) else [arms.draw(quotes.FIGURES)]
    for path in PAGES:  # the last holds paragraphs of the first
        old = path.read_text(encoding="utf-8")
        if (text := current(path)) != old:
            for jump in quotes.jumps(old, text):
                tell(f"{path.stem}: {jump}; is the sentence still true, are its keys in order?")
            with atomic(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _cell(folder: Path, figure: dict) -> str:
    """A figure in the gallery."""
    name, alt = figure["id"], lines.plain(figure["alt"])
    picture = f'{lines.place(folder, name)}<img src="figures/{folder.name}/{name}.png" width="{WIDTH}" alt="{alt}">'
    notebook = f"[{name}](notebooks/{_notebook(name)}.ipynb)"
    decided = " ".join(f"{lines.jump(folder, v['claim'])}&nbsp;{lines.SIGNS[v['verdict']]}" for v in figure["verdicts"])
    return "<br>".join(filter(None, [picture, notebook, lines.plain(figure["paper"]), decided]))


def _notebook(figure: str) -> str:
    return next(name for name in profiles.notebooks() if name[:2] == figure[:2])


def _value_of(verdict: dict, words: str) -> str:
    """The value of the first quantity whose name has these words, or that it was not measured in this run."""
    if not verdict["quantities"]:
        return "(not measured)"
    named = [q for q in verdict["quantities"] if words in q["name"]]
    if not named:
        raise ValueError(f"claim {verdict['claim']} has no quantity {words!r}")
    return claims.interval(named[0])


def _changed(parameters: dict, usual: dict) -> dict:
    """Parameters that are not the usual ones; of an ensemble ``main.epochs`` and so on, which others have from main."""
    changed, main = {}, parameters.get("main", {})
    for name, value in parameters.items():
        if isinstance(value, dict):
            before, same = usual.get(name, {}), main if name != "main" else {}
            fields = {k: v for k, v in value.items() if v != before.get(k, ...) and v != same.get(k, ...)}
            changed |= {f"{name}.{k}": v for k, v in fields.items()}
        elif name not in ("profile", "executor") and value != usual.get(name, ...):
            changed[name] = value
    return changed
