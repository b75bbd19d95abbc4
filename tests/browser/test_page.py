"""An explorer on a page, from the file system: its controls show the right frame, by keyboard and by choice."""

import json
import re

import pytest
from chromium import NEEDED, chromium

from saliency_lib.book import explorer

pytestmark = pytest.mark.browser


def draw(figure, n, kind):
    axes = figure.subplots()
    axes.bar([0], [n], color={"one": "red", "two": "blue"}[kind])
    axes.set_ylim(0, 3)
    return f"{n} of kind {kind}"


@NEEDED
def test_controls_flip_the_frames(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(explorer, "display", lambda data, raw: shown.append(data["text/html"]))
    explorer.explore(draw, figsize=(2, 1), n=range(3), kind=["one", "two"], start={"n": 1})
    frames = json.loads(re.search('json">(.*)</script>', shown[0]).group(1))["frames"]
    script = explorer.SCRIPT.read_text(encoding="utf-8")
    page = f"<!doctype html><meta charset=utf-8><script>{script}</script><body>{shown[0]}"
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with chromium() as (page, outside):
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto((tmp_path / "page.html").as_uri())

        def frame():
            picture = page.locator(".explorer img")
            return [picture.get_attribute("src"), picture.get_attribute("alt")]

        assert frame() == frames[2] and frame()[1] == "1 of kind one"
        slider, choice = page.get_by_label("n", exact=True), page.get_by_label("kind")
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert frame() == frames[4] and frame()[1] == "2 of kind one"
        assert slider.get_attribute("aria-valuetext") == "2" and page.locator("output").first.inner_text() == "2"
        choice.select_option("two")
        assert frame() == frames[5] and frame()[1] == "2 of kind two"
        page.keyboard.press("Home")
        slider.focus()
        page.keyboard.press("Home")
        assert frame()[1].startswith("0 of kind")
        assert page.evaluate("document.querySelector('.explorer img').naturalWidth") == 220
        assert not errors and not outside
