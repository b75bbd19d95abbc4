"""A picture with controls: live in JupyterLab, and on a page, where no kernel answers, by frames drawn beforehand."""

import base64
import html
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from numbers import Number
from pathlib import Path

import numpy as np
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

SCRIPT = Path(__file__).with_suffix(".js")  # for a page: gives all its explorers their controls
WIDGET = "application/vnd.jupyter.widget-view+json"
Setting = tuple[str, ...]  # the label that every control shows
Picture = tuple[str, str]  # its data as a URL, and its alternative text


def explore(
    draw: Callable[..., str],
    *,
    figsize: tuple[float, float],
    start: Mapping | None = None,
    page: Mapping[str, Sequence] | None = None,
    **controls: Sequence | Mapping,
) -> None:
    """Show a picture that is drawn anew when a control is moved.

    In JupyterLab the controls are widgets. Where ``SALIENCY_QUIET`` is set every picture of the page is drawn at once,
    as a small WebP; ``SCRIPT`` gives the page its controls, and without it the first one is shown.
    A picture is drawn once and kept. Errors of the first are raised here; those of later ones are told in their place.

    Parameters
    ----------
    draw : callable
        ``draw(figure, **values) -> str`` draws into an empty figure and returns the picture's alternative text.
    figsize : tuple of float
        Width and height in inches.
    start : dict
        Values that it starts with; the first one of a control that is not named.
    page : dict
        By control the values that it has on a page; all of a control that is not named.
    **controls
        Values for an argument of ``draw``, or a mapping of labels to values: a slider if they are numbers, else a list.

    Raises
    ------
    ValueError
        For a control without values, and for ``start`` and ``page`` with what is not offered, by name and value.
    """
    explorer = _Explorer(draw, figsize, controls)
    first = explorer.setting(start or {})
    if os.environ.get("SALIENCY_QUIET"):
        display(explorer.on_page(first, page or {}), raw=True)
    else:
        live = {"version_major": 2, "version_minor": 0, "model_id": explorer.widget(first).model_id}
        display(explorer.at_rest(first) | {WIDGET: live}, raw=True)


class _Explorer:
    """A drawing with controls, and its pictures as far as they were asked for."""

    def __init__(self, draw: Callable[..., str], figsize: tuple[float, float], controls: Mapping):
        if not controls:
            raise ValueError("an explorer takes at least one control, such as members=range(1, 9)")
        self.draw, self.figsize, self.pictures = draw, figsize, {}
        self.options = {name: _options(name, values) for name, values in controls.items()}
        self.names = [name.replace("_", " ") for name in controls]

    def label(self, name: str, value, argument: str) -> str:
        """The label of a control's value, which ``argument`` asks for."""
        if name not in self.options:
            raise ValueError(f"there is no control {name!r} for {argument}; there are {', '.join(self.options)}")
        for label, offered in self.options[name].items():
            if offered == value:
                return label
        raise ValueError(f"{argument} wants {name}={value!r}, which is not offered; one of {list(self.options[name])}")

    def setting(self, wanted: Mapping) -> Setting:
        """The label of every control for the wanted values; the first one where nothing is wanted."""
        labels = {name: self.label(name, value, "start") for name, value in wanted.items()}
        return tuple(labels.get(name, next(iter(values))) for name, values in self.options.items())

    def picture(self, setting: Setting) -> Picture:
        """The picture of a setting."""
        if setting not in self.pictures:
            values = {name: offered[label] for (name, offered), label in zip(self.options.items(), setting)}
            self.pictures[setting] = _drawn(self.draw, self.figsize, values)
        return self.pictures[setting]

    def caption(self, setting: Setting) -> str:
        """Every control and its label."""
        return ", ".join(map(" ".join, zip(self.names, setting)))

    def at_rest(self, setting: Setting) -> dict[str, str]:
        """One picture as HTML; as text what it is of."""
        caption = self.caption(setting)
        figure = f"<figure>{_image(*self.picture(setting))}<figcaption>{html.escape(caption)}</figcaption></figure>"
        return {"text/html": figure, "text/plain": caption}

    def on_page(self, first: Setting, page: Mapping[str, Sequence]) -> dict[str, str]:
        """All pictures of a page, the first one shown; the last control's values change fastest."""
        offered = {name: list(values) for name, values in self.options.items()}
        offered |= {name: [self.label(name, value, "page") for value in values] for name, values in page.items()}
        for (name, labels), label in zip(offered.items(), first):
            if label not in labels:
                raise ValueError(f"start wants {name}={label}, which page leaves out; it has {', '.join(labels)}")
        controls = [
            {"name": name, "labels": labels, "at": labels.index(label), "slider": self.slides(key)}
            for name, (key, labels), label in zip(self.names, offered.items(), first)
        ]
        frames = [self.picture(setting) for setting in product(*offered.values())]
        data = json.dumps({"controls": controls, "frames": frames}).replace("</", "<\\/")
        script = f'<script type="application/json">{data}</script>'
        markup = f'<div class="explorer">{_image(*self.picture(first))}{script}</div>'
        return {"text/html": markup, "text/plain": self.caption(first)}

    def slides(self, name: str) -> bool:
        """Whether a control is a slider: two numbers at least."""
        values = self.options[name].values()
        return len(values) > 1 and all(isinstance(value, Number) for value in values)

    def widget(self, setting: Setting):
        """Controls over a picture, an ``ipywidgets.VBox``."""
        import ipywidgets  # here, since headless runs do without it

        controls, shown = [], ipywidgets.HTML(_image(*self.picture(setting)))

        def redraw(_change) -> None:
            try:
                shown.value = _image(*self.picture(tuple(control.value for control in controls)))
            except Exception as error:
                message = f"This picture could not be drawn: {type(error).__name__}: {error}"
                shown.value = f'<p role="alert">{html.escape(message)}</p>'

        for name, (key, values), label in zip(self.names, self.options.items(), setting):
            kind = ipywidgets.SelectionSlider if self.slides(key) else ipywidgets.Dropdown
            style = {"description_width": "initial"}
            controls.append(kind(options=list(values), value=label, description=name, style=style))
            controls[-1].observe(redraw, "value")
        return ipywidgets.VBox([*controls, shown]).add_class("saliency-explorer")


def _options(name: str, values: Sequence | Mapping) -> dict:
    """A control's values by the labels that are shown for them."""
    if isinstance(values, str) or not isinstance(values, (Sequence, Mapping)):
        raise ValueError(f"the control {name!r} takes a sequence of values, or a mapping of labels, not {values!r}")
    if not values:
        raise ValueError(f"the control {name!r} has no values to choose from: {values!r}")
    pairs = values.items() if isinstance(values, Mapping) else zip(values, values)
    return {str(label): value for label, value in pairs}


def _drawn(draw: Callable[..., str], figsize: tuple[float, float], values: dict) -> Picture:
    """A picture; pyplot does not know the figure, so nothing has to be closed."""
    figure = Figure(figsize=figsize, dpi=110, layout="constrained")
    alt = draw(figure, **values)
    if not isinstance(alt, str) or not alt:
        raise ValueError(f"draw returns the picture's alternative text, not {alt!r}")
    for axes in (axes for axes in figure.axes if not axes.axison):
        axes.set(xticks=[], yticks=[])  # seen or not, ticks take half of the time
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # savefig would draw twice
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.save(buffer := io.BytesIO(), "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), alt


def _image(url: str, alt: str) -> str:
    """A picture as an ``img`` element."""
    return f'<img alt="{html.escape(alt)}" src="{url}" style="max-width: 100%">'
