"""An explorer shows the right picture, live or at rest, and leaves nothing behind."""

import base64
import json
import re
import sys

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter
from PIL import Image

from saliency_lib.book import explorer

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, one mimebundle each."""
    bundles = []
    monkeypatch.setattr(explorer, "display", lambda data, raw: bundles.append(data))
    return bundles


@pytest.fixture
def live(monkeypatch, shown):
    """Explore as in JupyterLab; gives the controls by their labels, and the picture."""
    monkeypatch.delenv("SALIENCY_QUIET")

    def start(draw, **options):
        explorer.explore(draw, figsize=(2, 1), **options)
        from ipywidgets.widgets.widget import _instances

        *controls, picture = _instances[shown[-1][VIEW]["model_id"]].children
        return {control.description: control for control in controls}, picture

    return start


class Drawing:
    """Draws a bar of height n; remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, figure, n, kind="plain"):
        self.asked.append((n, kind))
        if kind == "broken":
            raise RuntimeError("no <such> kind")
        figure.subplots().bar([0], [n])
        return f'{kind} "bar" of {n} & more <b>'


def pictures(markup):
    return re.findall(r'src="data:image/webp;base64,([^"]+)"', markup)


def on_page(markup):
    """Controls and frames."""
    data = json.loads(re.search('<script type="application/json">(.*)</script>', markup).group(1))
    return data["controls"], data["frames"]


def test_a_page_has_every_frame_and_no_widget(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # an import would fail
    draw = Drawing()
    explorer.explore(draw, figsize=(2, 1), n=range(1, 4), kind=["plain", "other"], start={"n": 3}, page={"n": [1, 3]})
    (bundle,) = shown
    assert set(bundle) == {"text/html", "text/plain"} and bundle["text/plain"] == "n 3, kind plain"
    assert sorted(draw.asked) == [(1, "other"), (1, "plain"), (3, "other"), (3, "plain")]
    markup = bundle["text/html"]
    controls, frames = on_page(markup)
    assert controls == [
        {"name": "n", "labels": ["1", "3"], "at": 1, "slider": True},
        {"name": "kind", "labels": ["plain", "other"], "at": 0, "slider": False},
    ]
    assert [alt for _, alt in frames] == [f'{k} "bar" of {n} & more <b>' for n in (1, 3) for k in ("plain", "other")]
    assert len({url for url, _ in frames}) == 2, "the kind is not drawn"
    assert pictures(markup.partition("<script")[0])[0] in frames[2][0]
    assert 'alt="plain &quot;bar&quot; of 3 &amp; more &lt;b&gt;"' in markup and "http" not in markup


def test_what_is_written_about_a_picture_cannot_end_the_script(shown):
    explorer.explore(lambda figure, n: f"</script>{n}", figsize=(2, 1), n=[1, 2])
    markup = shown[0]["text/html"]
    assert markup.count("</script>") == 1
    assert [alt for _, alt in on_page(markup)[1]] == ["</script>1", "</script>2"]


def test_a_page_starts_with_the_first_values_if_nothing_is_asked_for(shown):
    draw = Drawing()
    explorer.explore(draw, figsize=(2, 1), n=(5, 6))
    assert draw.asked[0] == (5, "plain") and "n 5" in shown[0]["text/plain"]


def test_a_picture_has_the_size_that_was_asked_for(shown, tmp_path):
    explorer.explore(Drawing(), figsize=(2, 1), n=[1])
    path = tmp_path / "picture.png"
    path.write_bytes(base64.b64decode(pictures(shown[0]["text/html"])[0]))
    with Image.open(path) as picture:
        assert picture.size == (220, 110)
        assert np.asarray(picture.convert("L")).std() > 10  # something was drawn


def test_live_it_falls_back_to_a_picture_where_there_is_no_widget(live, shown, tmp_path):
    live(Drawing(), n=range(1, 4), start={"n": 2})
    bundle = shown[0]
    assert set(bundle) == {VIEW, "text/html", "text/plain"} and len(pictures(bundle["text/html"])) == 1
    book, cell = nbformat.v4.new_notebook(), nbformat.v4.new_code_cell("explore(...)")
    cell.outputs = [nbformat.v4.new_output("display_data", bundle)]
    book.cells = [cell]
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(book)
    assert pictures(bundle["text/html"])[0] in page and "widget-view" not in page


def test_live_a_control_changes_the_picture_and_back(live):
    controls, picture = live(Drawing(), n=range(1, 4), start={"n": 2})
    slider, first = controls["n"], picture.value
    assert slider.value == "2" and slider.options == ("1", "2", "3")
    slider.value = "3"
    assert picture.value != first and "of 3" in picture.value
    slider.value = "2"
    assert picture.value == first


def test_every_picture_is_drawn_once(live):
    draw = Drawing()
    controls, _ = live(draw, n=range(1, 4), kind=["plain", "other"])
    for n in "2312312":
        controls["n"].value = n
    controls["kind"].value = "other"
    assert draw.asked == [(1, "plain"), (2, "plain"), (3, "plain"), (2, "other")]


def test_numbers_get_a_slider_and_all_else_a_list(live):
    controls, _ = live(
        lambda figure, **values: str(values),
        some_steps=(0.1, 0.25),
        one=[3],
        kind=["a", "b"],
        image={"cat": 7, "dog": 3},
        thing={"first": object(), "second": None},
    )
    kinds = {name: type(control).__name__ for name, control in controls.items()}
    assert kinds == {
        "some steps": "SelectionSlider",
        "one": "Dropdown",  # a slider with one place is an error in the browser
        "kind": "Dropdown",
        "image": "SelectionSlider",
        "thing": "Dropdown",
    }
    assert controls["image"].options == ("cat", "dog") and controls["some steps"].value == "0.1"


def test_an_error_of_the_first_picture_is_raised(live, shown):
    with pytest.raises(RuntimeError, match="no <such> kind"):
        live(Drawing(), n=[1], kind=["broken", "plain"])
    assert not shown


def test_an_error_of_a_later_picture_is_told_in_its_place(live):
    controls, picture = live(Drawing(), n=[1, 2], kind=["plain", "broken"])
    first = picture.value
    controls["kind"].value = "broken"
    assert picture.value == ('<p role="alert">This picture could not be drawn: RuntimeError: no &lt;such&gt; kind</p>')
    controls["kind"].value = "plain"
    assert picture.value == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": []}, r"the control 'n' has no values to choose from: \[\]"),
        ({"n": {}}, "the control 'n' has no values"),
        ({"n": range(0)}, r"range\(0, 0\)"),
        ({"n": 3}, "the control 'n' takes a sequence of values, or a mapping of labels, not 3"),
        ({"n": "abc"}, "not 'abc'"),
        ({}, "at least one control"),
        ({"n": [1], "start": {"m": 1}}, "there is no control 'm' for start; there are n"),
        ({"n": [1, 2], "start": {"n": 3}}, r"start wants n=3, which is not offered; one of \['1', '2'\]"),
        ({"n": [1, 2], "page": {"n": [2, 3]}}, r"page wants n=3, which is not offered; one of \['1', '2'\]"),
        ({"n": [1, 2], "page": {"n": [2]}}, "start wants n=1, which page leaves out; it has 2"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(options, message, shown):
    with pytest.raises(ValueError, match=message):
        explorer.explore(Drawing(), figsize=(2, 1), **options)
    assert not shown


def test_a_picture_needs_an_alternative_text(shown):
    with pytest.raises(ValueError, match="the picture's alternative text, not None"):
        explorer.explore(lambda figure, n: None, figsize=(2, 1), n=[1])


@pytest.mark.parametrize("quiet", [True, False])
def test_nothing_is_left_open_or_changed(quiet, shown, monkeypatch):
    if not quiet:
        monkeypatch.delenv("SALIENCY_QUIET")
    before = dict(matplotlib.rcParams), plt.get_fignums(), matplotlib.get_backend()
    explorer.explore(Drawing(), figsize=(2, 1), n=range(3))
    assert (dict(matplotlib.rcParams), plt.get_fignums(), matplotlib.get_backend()) == before
