"""Explorers: a picture with controls in JupyterLab, and the same picture at rest where no kernel answers."""

import base64
import html
import io
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Number

from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def _options(name: str, values: Sequence | Mapping) -> dict:
    """A control's values by the labels that are shown for them."""
    if isinstance(values, str) or not isinstance(values, (Sequence, Mapping)):
        raise ValueError(f"the control {name!r} takes a sequence of values, or a mapping of labels, not {values!r}")
    if not values:
        raise ValueError(f"the control {name!r} has no values to choose from: {values!r}")
    pairs = values.items() if isinstance(values, Mapping) else zip(values, values)
    return {str(label): value for label, value in pairs}


def _setting(options: dict[str, dict], wanted: Mapping) -> tuple[str, ...]:
    """The label of every control for the wanted values; the first one where nothing is wanted."""
    found = {name: next(iter(values)) for name, values in options.items()}
    for name, value in wanted.items():
        if name not in options:
            raise ValueError(f"there is no control {name!r} for still; there are {', '.join(options)}")
        if value not in options[name].values():
            raise ValueError(f"still wants {name}={value!r}, which is not offered; one of {list(options[name])}")
        found[name] = next(label for label, offered in options[name].items() if offered == value)
    return tuple(found.values())


def _drawn(draw: Callable, figsize: tuple[float, float], values: dict) -> str:
    """The picture of some values, an ``img`` element; pyplot does not know the figure, so nothing has to be closed."""
    figure = Figure(figsize=figsize, dpi=110, layout="constrained")
    alt = draw(figure, **values)
    if not isinstance(alt, str) or not alt:
        raise ValueError(f"draw returns the picture's alternative text, not {alt!r}")
    for axes in (axes for axes in figure.axes if not axes.axison):
        axes.set(xticks=[], yticks=[])  # seen or not, ticks take half of the time
    FigureCanvasAgg(figure).print_png(buffer := io.BytesIO())  # savefig would draw twice
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" style="max-width: 100%">'


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
    options = {name: _options(name, values) for name, values in controls.items()}
    if not options:
        raise ValueError("an explorer takes at least one control, such as members=range(1, 9)")
    settings = [_setting(options, wanted) for wanted in still or [{}]]
    words, pictures = [name.replace("_", " ") for name in options], {}

    def picture(setting: tuple[str, ...]) -> str:
        if setting not in pictures:
            values = {name: options[name][label] for name, label in zip(options, setting)}
            pictures[setting] = _drawn(draw, figsize, values)
        return pictures[setting]

    def at_rest(settings: list[tuple[str, ...]]) -> dict[str, str]:
        hint = f"In JupyterLab (./run_all.sh lab) this picture has controls to move: {', '.join(words)}."
        captions = [", ".join(map(" ".join, zip(words, setting))) for setting in settings]
        markup = f"<p><em>{hint}</em></p>"
        for setting, caption in zip(settings, captions):
            markup += f"<figure>{picture(setting)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        return {"text/html": markup, "text/plain": f"{hint} {'; '.join(captions)}"}

    if os.environ.get("SALIENCY_QUIET"):
        display(at_rest(settings), raw=True)
        return
    import ipywidgets  # here, since headless runs do without it

    parts, shown = [], ipywidgets.HTML(picture(settings[0]))
    for word, values, label in zip(words, options.values(), settings[0]):
        numbers = len(values) > 1 and all(isinstance(value, Number) for value in values.values())
        kind = ipywidgets.SelectionSlider if numbers else ipywidgets.Dropdown  # a slider needs two values
        parts.append(kind(options=list(values), value=label, description=word, style={"description_width": "initial"}))

    def answer(_change) -> None:
        try:
            shown.value = picture(tuple(part.value for part in parts))
        except Exception as error:
            message = f"This picture could not be drawn: {type(error).__name__}: {error}"
            shown.value = f'<p role="alert">{html.escape(message)}</p>'

    for part in parts:
        part.observe(answer, "value")
    box = ipywidgets.VBox([*parts, shown]).add_class("saliency-explorer")
    live = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    display(at_rest(settings[:1]) | {"application/vnd.jupyter.widget-view+json": live}, raw=True)
