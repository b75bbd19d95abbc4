"""A picture with controls in JupyterLab, and the same picture at rest where no kernel answers."""

import base64
import html
import io
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Number

from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDGET = "application/vnd.jupyter.widget-view+json"
Setting = tuple[str, ...]  # the label that every control shows


def explore(
    draw: Callable[..., str],
    *,
    figsize: tuple[float, float],
    still: Sequence[Mapping] | None = None,
    **controls: Sequence | Mapping,
) -> None:
    """Show a picture that is drawn anew when a control is moved; pictures at rest where ``SALIENCY_QUIET`` is set.

    A picture is drawn once and kept. Errors of the first are raised here; those of later ones are told in their place.

    Parameters
    ----------
    draw : callable
        ``draw(figure, **values) -> str`` draws into an empty figure and returns the picture's alternative text.
    figsize : tuple of float
        Width and height in inches.
    still : list of dict
        Values for the pictures at rest, the first one of a control that is not named; the first starts the explorer.
    **controls
        Values for an argument of ``draw``, or a mapping of labels to values: a slider if they are numbers, else a list.

    Raises
    ------
    ValueError
        For a control without values, or ``still`` with what is not offered, by name and value.
    """
    explorer = _Explorer(draw, figsize, controls)
    settings = [explorer.setting(wanted) for wanted in still or [{}]]
    if os.environ.get("SALIENCY_QUIET"):
        display(explorer.at_rest(settings), raw=True)
    else:
        live = {"version_major": 2, "version_minor": 0, "model_id": explorer.widget(settings[0]).model_id}
        display(explorer.at_rest(settings[:1]) | {WIDGET: live}, raw=True)


class _Explorer:
    """A drawing with controls, and its pictures as far as they were asked for."""

    def __init__(self, draw: Callable[..., str], figsize: tuple[float, float], controls: Mapping):
        if not controls:
            raise ValueError("an explorer takes at least one control, such as members=range(1, 9)")
        self.draw, self.figsize, self.pictures = draw, figsize, {}
        self.options = {name: _options(name, values) for name, values in controls.items()}
        self.names = [name.replace("_", " ") for name in controls]

    def setting(self, wanted: Mapping) -> Setting:
        """The label of every control for the wanted values; the first one where nothing is wanted."""
        found = {name: next(iter(values)) for name, values in self.options.items()}
        for name, value in wanted.items():
            if name not in self.options:
                raise ValueError(f"there is no control {name!r} for still; there are {', '.join(self.options)}")
            labels = [label for label, offered in self.options[name].items() if offered == value]
            if not labels:
                offered = list(self.options[name])
                raise ValueError(f"still wants {name}={value!r}, which is not offered; one of {offered}")
            found[name] = labels[0]
        return tuple(found.values())

    def picture(self, setting: Setting) -> str:
        """The picture of a setting, an ``img`` element."""
        if setting not in self.pictures:
            values = {name: offered[label] for (name, offered), label in zip(self.options.items(), setting)}
            self.pictures[setting] = _drawn(self.draw, self.figsize, values)
        return self.pictures[setting]

    def at_rest(self, settings: Sequence[Setting]) -> dict[str, str]:
        """Pictures of some settings with captions, as HTML; as text the captions alone."""
        hint = f"In JupyterLab (./run_all.sh lab) this picture has controls to move: {', '.join(self.names)}."
        captions = [", ".join(map(" ".join, zip(self.names, setting))) for setting in settings]
        markup = f"<p><em>{hint}</em></p>"
        for setting, caption in zip(settings, captions):
            markup += f"<figure>{self.picture(setting)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        return {"text/html": markup, "text/plain": f"{hint} {'; '.join(captions)}"}

    def widget(self, setting: Setting):
        """Controls over a picture, an ``ipywidgets.VBox``."""
        import ipywidgets  # here, since headless runs do without it

        controls, shown = [], ipywidgets.HTML(self.picture(setting))

        def redraw(_change) -> None:
            try:
                shown.value = self.picture(tuple(control.value for control in controls))
            except Exception as error:
                message = f"This picture could not be drawn: {type(error).__name__}: {error}"
                shown.value = f'<p role="alert">{html.escape(message)}</p>'

        for name, values, label in zip(self.names, self.options.values(), setting):
            numbers = len(values) > 1 and all(isinstance(value, Number) for value in values.values())
            kind = ipywidgets.SelectionSlider if numbers else ipywidgets.Dropdown  # a slider needs two values
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


def _drawn(draw: Callable[..., str], figsize: tuple[float, float], values: dict) -> str:
    """A picture as an ``img`` element; pyplot does not know the figure, so nothing has to be closed."""
    figure = Figure(figsize=figsize, dpi=110, layout="constrained")
    alt = draw(figure, **values)
    if not isinstance(alt, str) or not alt:
        raise ValueError(f"draw returns the picture's alternative text, not {alt!r}")
    for axes in (axes for axes in figure.axes if not axes.axison):
        axes.set(xticks=[], yticks=[])  # seen or not, ticks take half of the time
    FigureCanvasAgg(figure).print_png(buffer := io.BytesIO())  # savefig would draw twice
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" style="max-width: 100%">'
