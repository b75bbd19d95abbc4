"""What is drawn more than once: dots with intervals or by class, grids of maps, heat tables, diagrams, legends."""

import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from torch import Tensor

from saliency_lib.book.plotting import CLASS_COLOURS, ORANGE, map_scale, show, show_map


def interval_dot(axes: plt.Axes, x, y, colour: str, *, label: str | None = None, marker="o", fill=True, size=5) -> None:
    """A dot at (x, y), each a number or an :class:`Estimate`, whose 95 % intervals are drawn as bars.

    An interval without bounds is left out.
    """
    (x, *of_x), (y, *of_y) = (np.ravel(value).astype(float) for value in (x, y))
    for bounds, line in ((of_x, lambda ends: (ends, [y, y])), (of_y, lambda ends: ([x, x], ends))):
        if bounds and all(map(math.isfinite, bounds)):
            axes.plot(*line(bounds), color=colour, lw=2, alpha=0.45, solid_capstyle="butt")
    axes.plot(x, y, marker, color=colour, mfc=colour if fill else "white", ms=size, ls="none", label=label)


def papers_values(axes: plt.Axes, rows: Iterable[Sequence[float]], label: str = "paper", shift: float = 0.3) -> None:
    """Diamonds at a paper's values, one sequence for each row of a :func:`~plotting.forest`, ``shift`` rows below."""
    for place, values in enumerate(rows):
        values = np.ravel(values)
        axes.plot(
            values, [place + shift] * len(values), "D", ms=3, color=ORANGE, label=None if place else label, ls="none"
        )


def in_greys(values: Tensor) -> Tensor:
    """A picture (h, w, 3) of (h, w), black at zero and white at the largest value."""
    return (values / values.max())[:, :, None].expand(-1, -1, 3)


def map_grid(rows, *, titles=(), names=(), scale="map", width=7.2, fontsize=7):
    """Figure and axes of a grid of pictures, (h, w, 3), signed maps, (h, w), and ``None`` for an empty place.

    ``rows`` is a sequence of sequences, with ``names`` on their left, or has them by name. ``scale`` says which maps
    have a common colour limit: each ``map`` its own, or all of a ``row`` or of the ``grid``.
    """
    if scale not in ("map", "row", "grid"):
        raise ValueError(f"scale is one of 'map', 'row' and 'grid', not {scale!r}")
    if isinstance(rows, Mapping):
        rows, names = list(rows.values()), list(rows)
    across = max(map(len, rows))
    lines = 1 + max((title.count("\n") for title in titles), default=-1)
    letters = max((len(line) for name in names for line in name.split("\n")), default=0)
    side = (width - letters * fontsize / 125) / across - 0.03  # a letter is somewhat wider than half its height
    height = (side + 0.03) * len(rows) + lines * fontsize / 55
    fig, axes = plt.subplots(len(rows), across, figsize=(width, height), squeeze=False)
    maps = [[cell for cell in row if isinstance(cell, Tensor) and cell.ndim == 2] for row in rows]
    for place, (line, row) in enumerate(zip(axes, rows)):
        together = {"row": maps[place], "grid": sum(maps, [])}.get(scale, ())
        for ax, cell in zip(line, row):
            if isinstance(cell, Tensor) and cell.ndim == 2:
                show_map(ax, cell, map_scale(*(together or [cell])))
            elif cell is not None:
                show(ax, cell)
        for ax in line:
            ax.set_axis_off()
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=fontsize)
    for ax, name in zip(axes[:, 0], names):
        ax.text(-0.08, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=fontsize)
    return fig, axes


def heat_table(axes: plt.Axes, table: pd.DataFrame, *, text="{:.2f}", fontsize=7, **colours):
    """A table as coloured squares with its numbers on them, empty where they are not finite; returns the image.

    An index of several levels is joined by commas. ``colours`` go to ``imshow``: ``cmap``, ``vmin``, ``vmax``.
    """
    values = table.to_numpy(float)
    picture = axes.imshow(values, aspect="auto", **colours)
    for (i, j), value in np.ndenumerate(values):
        if math.isfinite(value):
            dark = sum(picture.cmap(picture.norm(value))[:3]) < 1.4
            ink = "white" if dark else "black"
            axes.text(j, i, text.format(value), ha="center", va="center", fontsize=fontsize, color=ink)
    axes.set_xticks(range(table.shape[1]), table.columns, fontsize=fontsize)
    names = [", ".join(name) if isinstance(name, tuple) else name for name in table.index]
    axes.set_yticks(range(table.shape[0]), names, fontsize=fontsize)
    axes.tick_params(length=0)
    axes.grid(False)
    return picture


def dots_by_class(axes: plt.Axes, values: np.ndarray, classes: np.ndarray) -> None:
    """A dot per image, (images,), class after class with a bar at its mean, and the mean of all as a dashed line."""
    order = np.argsort(classes, kind="stable")
    for k in np.unique(classes):
        where = np.flatnonzero(classes[order] == k)
        axes.plot(where, values[order][where], ".", color=CLASS_COLOURS[k % 10], ms=3.5, alpha=0.6)
        axes.plot(where[[0, -1]], [values[order][where].mean()] * 2, color="black", lw=2)
    axes.axhline(values.mean(), ls="--", color="black", lw=1, label=f"mean of all {values.mean():.2f}")
    axes.set(xticks=[], ylim=(0, None))


def do_not_read(axes: plt.Axes, where: Tensor) -> None:
    """Cover the pixels of a shown map, (h, w) bool, that should not be read, in grey."""
    covered = where.cpu().numpy()
    axes.imshow(np.ma.masked_where(~covered, covered), cmap=ListedColormap(["0.72"]))


def influences() -> plt.Figure:
    """What a saliency map depends on, as boxes with arrows between them; orange is intrinsic, blue drawn anew."""
    intrinsic, partly, fixed, by_chance = "#F3B999", "#F7DFA8", "0.88", "#B5DCF3"
    boxes = {  # middle and colour
        "phenomenon": (0, 4, intrinsic), "data": (1.2, 4, partly), "architecture": (1.2, 3, fixed),
        "optimizer": (1.2, 2, fixed), "initial weights": (1.2, 1, by_chance), "order of batches": (1.2, 0, by_chance),
        "trained network": (2.6, 2, "white"), "saliency map": (3.9, 2, "white"), "picture": (3.9, 4, fixed),
        "method": (3.9, 0, fixed),
    }  # fmt: skip
    arrows = [("phenomenon", "data"), *((cause, "trained network") for cause in list(boxes)[1:6])]
    arrows += [(cause, "saliency map") for cause in ("trained network", "picture", "method")]
    figure, axes = plt.subplots(figsize=(7, 2.3))
    drawn = {}
    for name, (x, y, colour) in boxes.items():
        frame = {"boxstyle": "round", "fc": colour, "ec": "0.4"}
        drawn[name] = axes.text(x, y, name, ha="center", va="center", bbox=frame)
    for start, end in arrows:
        ends = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        style = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 3, "shrinkB": 3}
        axes.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=style | ends)
    axes.update_datalim([box[:2] for box in boxes.values()])
    axes.margins(0.11, 0.15)
    axes.autoscale_view()
    axes.set_axis_off()
    return figure


def log_axis(axis: Axis, places: Sequence[float] | None = None) -> None:
    """Make ``axes.xaxis`` or ``axes.yaxis`` logarithmic, with plain numbers at ``places``, or at 1, 2 and 5 of every
    power of ten."""
    axis.axes.set(**{"xscale" if axis is axis.axes.xaxis else "yscale": "log"})
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)) if places is None else ticker.FixedLocator(places))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(ticker.NullLocator())


def legend_below(fig: plt.Figure, *axes: plt.Axes, columns: int = 3, fontsize: float = 7) -> None:
    """One legend below the figure of what all its axes (or these) label, each label once."""
    found = {}
    for ax in axes or fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            found.setdefault(label, handle)
    fig.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns, fontsize=fontsize)  # type: ignore[call-overload]


def snr_axis(axes: plt.Axes, most: float = 10, of: str = "SNR, corrected") -> None:
    """A horizontal axis of signal-to-noise ratios from 0 to ``most``: linear to 2, then logarithmic, dotted at 1."""
    axes.axvline(1, color="black", lw=0.7, ls=":")
    ticks = [tick for tick in (0, 0.5, 1, 2, 5, 10) if tick <= most]
    axes.set(xscale="symlog", xlim=(0, most), xlabel=f"{of} (linear to 2, then log)")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
