"""One look for all figures, and a figure is a picture and its numbers: ``<id>.png`` and ``<id>.json``."""

import base64
import colorsys
import html
import json
import math
import platform
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import seaborn
import torch
from IPython.display import HTML, Image, display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor

from saliency_lib.attribution import METHODS
from saliency_lib.book import captions, lines, profiles
from saliency_lib.channels import total
from saliency_lib.data.registry import READ
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.ensembles.spec import forget
from saliency_lib.ensembles.train import USED
from saliency_lib.estimates import Estimate, over_rows
from saliency_lib.runtime.store import atomic, figures_root
from saliency_lib.runtime.workers import number_of

STYLE = Path(__file__).with_name("style.mplstyle")
SIGNED = "RdBu_r"  # diverging and colour-blind-safe; white is zero
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "0.15"


class _Colours(dict):
    """Colours of methods, by name; one that is not given is made, of a hue far from those made before."""

    def __missing__(self, name: str) -> str:
        made = [known for known in METHODS if known not in self]
        if name not in made:
            raise KeyError(name)
        return matplotlib.colors.to_hex(colorsys.hsv_to_rgb(0.618 * made.index(name) % 1, 0.45, 0.8))


METHOD_COLOURS = _Colours({  # the same in every figure; one hue per family
    "input_gradient": BLUE, "probability_gradient": ORANGE, "gradient_x_input": "#4F9BD0",
    "integrated_gradients": SKY, "smoothgrad": "#003F66", "smoothgrad_ig": "#2F7E9E", "vargrad": "0.55",
    "deeplift": GREEN, "gradient_shap": "#66C2A5", "deeplift_shap": "#006B4E", "kernel_shap": "#8FBF3F",
    "lime": YELLOW, "gradcam": "#B2182B", "guided_backprop": PINK, "guided_gradcam": "#8E4585",
    "occlusion": "#A6761D", "rise": "#6B4A12", "NoiseGrad": "#7A5CFF", "FusionGrad": "#3B1F8F",
})  # fmt: skip
CLASS_COLOURS = seaborn.color_palette("colorblind", 10)
PACKAGES = ("torch", "torchvision", "captum", "numpy", "scipy", "matplotlib", "saliency-companion")


@dataclass
class Run:
    """One execution of a notebook: what its figures are stamped with."""

    notebook: str
    parameters: dict
    started: float = field(default_factory=time.monotonic)

    def spec(self, name: str, changes: dict | None = None) -> EnsembleSpec:
        """The ensemble of this name, of the notebook's seed, with ``changes`` of its fields."""
        fields = {"seed": self.parameters["seed"]} | self.parameters[name] | (changes or {})
        return profiles.spec(name, fields)

    def needs(self, met: bool, said: str) -> None:
        """Raise ValueError, with a sentence that has the values and the way out, unless parameters go together."""
        if not met:
            raise ValueError(said)

    def save(
        self,
        figure: plt.Figure,
        name: str,
        *,
        words: Sequence = (),
        numbers: dict | None = None,
        series: dict | None = None,
        verdicts: Sequence[dict] = (),
    ) -> None:
        """Write ``<name>.png`` and ``<name>.json``, show the picture and a line for each verdict, and close it.

        Parameters
        ----------
        name : str
            Under which ``data/figures.csv`` has what it reproduces and its alternative text.
        words : sequence
            What stands in the braces of that text: words, an estimate, or a mapping of numbers.
        numbers : dict
            What ``check`` compares: an :class:`Estimate` of trained networks within its interval, all else exactly.
        series : dict
            The data behind the picture, for readers.
        verdicts : sequence of dict
            From :func:`saliency_lib.book.claims.judge`.
        """
        said = captions.of(name, words)
        content = {
            "id": name, "paper": said.paper, "alt": said.alt, "numbers": numbers or {}, "verdicts": list(verdicts),
            "series": series or {}, "provenance": self.provenance(),
        }  # fmt: skip
        png = keep(figure, content, self.folder)
        plt.close(figure)
        display(Image(data=png.read_bytes(), alt=said.alt, width=round(figure.get_figwidth() * 110)))
        for line in map(lines.said, verdicts):
            display({"text/plain": line, "text/html": f'<p class="verdict">{html.escape(line)}</p>'}, raw=True)

    def save_animation(self, figures: list[plt.Figure], name: str, *, seconds: float = 0.5) -> None:
        """Write the figures as frames of a looped ``<name>.gif``, show it, and close them."""
        frames = []
        for figure in figures:
            figure.set_dpi(90)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            frames.append(PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
            plt.close(figure)
        path = self.folder / f"{name}.gif"
        with atomic(path) as temporary:
            frames[0].save(
                temporary, format="GIF", save_all=True, append_images=frames[1:], duration=round(1000 * seconds), loop=0
            )
        data, alt = base64.b64encode(path.read_bytes()).decode(), html.escape(captions.of(name).alt)
        display(HTML(f'<img src="data:image/gif;base64,{data}" alt="{alt}">'))  # HTML: not all show image/gif

    @property
    def folder(self) -> Path:
        """Where its figures go."""
        return figures_root() / self.parameters["profile"]

    def provenance(self) -> dict:
        """Notebook, parameters, versions, device, seconds so far, the data that were read and the networks in use."""
        return {
            "notebook": self.notebook,
            "profile": self.parameters["profile"],
            "seed": self.parameters.get("seed"),
            "parameters": self.parameters,
            "seconds": round(time.monotonic() - self.started, 1),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
            "threads": torch.get_num_threads(),
            "data": dict(READ),
            "networks": dict(USED),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }


RUNS: list[Run] = []  # those that were begun


def start(notebook: str, variables: dict) -> Run:
    """Set the style of figures and tables, and PyTorch's threads to ``$SALIENCY_THREADS``, and begin a run.

    ``variables`` is the notebook's ``globals()``, where its parameters are read; what they do not say of its ensembles
    is the profile's.
    """
    if threads := number_of("SALIENCY_THREADS"):
        torch.set_num_threads(threads)
    pd.set_option("display.max_colwidth", None)
    matplotlib.style.use(STYLE)
    forget()
    READ.clear()
    USED.clear()
    given = {name: variables[name] for name in profiles.parameters(notebook)}
    RUNS.append(Run(notebook, profiles.complete(notebook, given)))
    return RUNS[-1]


def as_json(value):
    """A value that JSON can hold: estimates as objects, floats with six digits, what is not finite as null.

    A pandas series or table becomes :func:`~saliency_lib.estimates.over_rows` of it.
    """
    value = over_rows(value) if isinstance(value, (pd.Series, pd.DataFrame)) else value
    if isinstance(value, Estimate):
        return {k: as_json(v) for k, v in value.in_full().items()}
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (Tensor, np.ndarray)):
        return as_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def keep(figure: plt.Figure, content: dict, folder: Path) -> Path:
    """Write a figure's picture and its JSON, named by ``content["id"]``; the picture's path."""
    png, numbers_file = (folder / f"{content['id']}{suffix}" for suffix in (".png", ".json"))
    with atomic(png) as temporary:
        figure.savefig(temporary, format="png")
    with atomic(numbers_file) as temporary:
        text = json.dumps(as_json(content), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return png


def wrapped(name: str, width: int = 9) -> str:
    """A class name on lines of about ``width`` characters."""
    return textwrap.fill(name, width)


def summed(maps: Tensor) -> Tensor:
    """Maps (..., c, h, w) summed over channels for showing: (..., h, w), signed."""
    return total(maps).squeeze(-3)


def map_scale(*maps: Tensor) -> float:
    """Common colour limit of signed maps: the 99.5th percentile of their absolute values."""
    return max(float(torch.cat([m.detach().float().abs().flatten() for m in maps]).quantile(0.995)), 1e-12)


def show_map(axes: plt.Axes, values: Tensor, scale: float, title: str = ""):
    """A signed map (h, w), diverging and centred at zero, from -scale to scale."""
    return show(axes, values.detach(), title, cmap=SIGNED, vmin=-scale, vmax=scale)


def show(axes: plt.Axes, picture, title: str = "", **options):
    """A picture, (h, w) or (h, w, 3), without axes."""
    axes.set_axis_off()
    axes.set_title(title)
    return axes.imshow(np.asarray(picture.cpu()) if isinstance(picture, Tensor) else picture, **options)


def with_interval(axes: plt.Axes, x, estimates: list[Estimate], label: str, colour: str, **options) -> None:
    """A line through the values with a band for their 95 % intervals; unbounded intervals are left out."""
    values, low, high = np.array(estimates, float).reshape(-1, 3).T
    axes.plot(x, values, color=colour, label=label, **options)
    bounded = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(
        x, np.where(bounded, low, np.nan), np.where(bounded, high, np.nan), color=colour, alpha=0.18, lw=0
    )


def forest(
    axes: plt.Axes, estimates: dict[str, Estimate], reference: float | None = None, colour=BLUE, shift=0.0, label=""
) -> None:
    """One row per name: a dot and a bar for its 95 % interval, from top to bottom; a dashed line at ``reference``.

    Unbounded intervals are left out. ``shift`` moves dots and bars down by a share of a row, for a second set beside;
    ``label`` is the set's for a legend.
    """
    for place, (value, low, high) in enumerate(estimates.values()):
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [place + shift] * 2, color=colour, lw=2, alpha=0.5)
        axes.plot(value, place + shift, "o", color=colour, label="" if place else label)
    if reference is not None:
        axes.axvline(reference, ls="--", color="0.4", lw=1)
    axes.set(yticks=range(len(estimates)), yticklabels=list(estimates), ylim=(len(estimates) - 0.5, -0.5))
