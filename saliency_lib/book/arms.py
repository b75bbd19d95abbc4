"""Why ResNet18 on CIFAR-10 is calmer here than in Tab. 1a of Woerl et al.: the rows of ``rows.csv``, drawn.

Every arm is measured by three numbers together; one that explains the difference reaches the paper's three.
"""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from saliency_lib.book import plan
from saliency_lib.book.drawing import interval_dot
from saliency_lib.book.measured import FILE, OF_ROWS, corrected, of_paper, read
from saliency_lib.book.plotting import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, STYLE, YELLOW, Run, forest, keep
from saliency_lib.estimates import Estimate

FOLDER, NAME = "cifar10-resnet18", OF_ROWS[0]
TITLES = {"input_gradient": "gradient", "gradcam top": "GradCAM top", "gradcam mid": "GradCAM mid"}
COLOURS = (BLUE, GREEN, PINK, YELLOW, SKY, BLACK, "0.55")  # of the arms
ALT = (
    "Three panels of corrected SNR over training accuracy for gradient, GradCAM top and GradCAM mid, a line for each "
    "arm with a dot for each epoch that was measured, and a dashed line at the paper's value; below, for "
    "networks after 8 epochs, a dot with its interval for each way to ask, and for LIME each number of segments."
)


def fresh(figures: Path) -> bool:
    """Whether the figure shows the rows that there are."""
    measured, path = read(figures / FOLDER / FILE), figures / FOLDER / f"{NAME}.json"
    shown = json.loads(path.read_text(encoding="utf-8"))["series"]["rows"] if path.exists() else []
    return shown == measured


def draw(figures: Path) -> Path:
    """Draw ``03_why_cifar`` from the rows that there are, in the folder of its data set and network; its path."""
    measured = read(figures / FOLDER / FILE)
    usual = [row for row in measured if not row["asked"] and row["method"] in TITLES]
    asked = [row for row in measured if row["arm"] == plan.AS_BEFORE]
    matplotlib.style.use(STYLE)
    fig, axes = plt.subplots(2, 4, figsize=(9.2, 4.8), height_ratios=[1.25, 1])
    for ax, below, (method, title) in zip(axes[0], axes[1], TITLES.items()):
        papers = _papers(measured, method)
        ax.axhline(papers, color=ORANGE, ls="--", lw=1)
        ax.set_title(title, fontsize=8)
        _over_accuracy(ax, [row for row in usual if row["method"] == method])
        ways = {row["asked"] or "as usual": corrected(row) for row in asked if row["method"] == method}
        _ways(below, ways, papers, f"{title}, 8 epochs")
    for below in axes[1, 1:3]:
        below.set_yticklabels([])
    axes[0, 0].set_ylabel("SNR, corrected")
    _legend(axes[0, 3], axes[0, 0])
    limes = {row["method"].removeprefix("lime "): corrected(row) for row in asked if row["method"].startswith("lime")}
    _ways(axes[1, 3], limes, _papers(measured, "lime"), "LIME, 8 epochs")
    axes[1, 3].yaxis.tick_right()
    content = {
        "id": NAME, "paper": "Tab. 1a, why ours differ", "alt": ALT, "numbers": numbers(measured), "verdicts": [],
        "series": {"rows": measured}, "provenance": _provenance(measured),
    }  # fmt: skip
    png = keep(fig, content, figures / FOLDER)
    plt.close(fig)
    return png


def numbers(measured: Sequence[dict[str, str]]) -> dict:
    """The rows' corrected SNR by arm, epoch, and method with the way it was asked; and the paper's three."""
    found: dict = {}
    for row in measured:
        way = ", ".join(filter(None, (row["method"], row["asked"])))
        found.setdefault(row["arm"], {}).setdefault(f"epoch {row['epoch']}", {})[way] = corrected(row)
    return found | {"paper": {method: _papers(measured, method) for method in TITLES}}


def _provenance(measured: Sequence[dict[str, str]]) -> dict:
    """That of the drawing, with what the rows say of their data, networks and versions."""
    drawn = Run("03_compare_methods", {"profile": FOLDER}).provenance()
    of_rows = {name: sorted({row[name] for row in measured}) for name in ("data", "device", "torch")}
    networks = {row["network"]: int(row["members"]) for row in measured}
    return drawn | {"from": FILE, "rows": of_rows | {"networks": networks}}


def _papers(measured: Sequence[dict[str, str]], method: str) -> float:
    """The paper's number beside a method's rows, corrected as they are."""
    row = next((row for row in measured if row["method"].startswith(method)), {"method": method})
    return of_paper(row | {"network": f"{FOLDER}-"}) or math.nan


def _over_accuracy(axes: plt.Axes, of_method: Sequence[dict[str, str]]) -> None:
    """A line for each arm, from its first epoch to its last."""
    for colour, arm in zip(itertools.cycle(COLOURS), dict.fromkeys(row["arm"] for row in of_method)):
        some = sorted((row for row in of_method if row["arm"] == arm), key=lambda row: int(row["epoch"]))
        right = [float(row["training accuracy"]) for row in some]
        for k, (x, row) in enumerate(zip(right, some)):
            interval_dot(axes, x, corrected(row), colour, label=None if k else arm, size=4)
            axes.annotate(row["epoch"], (x, corrected(row).value), (3, 3), textcoords="offset points", fontsize=6)
        axes.plot(right, [corrected(row).value for row in some], color=colour, lw=1)
    axes.set(xlabel="training accuracy", xlim=(None, 1.06), ylim=(0, None))


def _ways(axes: plt.Axes, ways: dict[str, Estimate], papers: float, title: str) -> None:
    """A dot for each way to ask, and a line at the paper's value."""
    axes.axvline(papers, color=ORANGE, ls="--", lw=1)
    axes.set_title(title, fontsize=7)
    if ways:
        forest(axes, ways)
    axes.set(xlabel="SNR, corrected", xlim=(0, None))


def _legend(axes: plt.Axes, of: plt.Axes) -> None:
    """The arms' colours, and what the numbers at the dots and the dashed lines are."""
    axes.set_axis_off()
    handles, labels = of.get_legend_handles_labels()
    handles.append(plt.Line2D([], [], color=ORANGE, ls="--", lw=1))
    axes.legend(
        handles, [*labels, "paper"], loc="upper left", title="arm (numbers: epochs)", fontsize=7, title_fontsize=7
    )
