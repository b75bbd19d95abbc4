"""A headless Chromium for the tests of this folder."""

import importlib.util
import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run")  # fmt: skip
NEEDED = pytest.mark.skipif(
    not (CHROMIUM and importlib.util.find_spec("playwright")),
    reason=f"needs playwright, and one of {', '.join(NAMES)} or CHROMIUM set",
)


@contextmanager
def chromium():
    """A page of a headless Chromium, and the addresses outside this machine that it asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page, outside = browser.new_page(viewport={"width": 1300, "height": 1000}), []
        local = ("http://127.0.0.1", "ws://127.0.0.1", "file:", "data:", "blob:", "about:")
        page.on("request", lambda request: request.url.startswith(local) or outside.append(request.url))
        try:
            yield page, outside
        finally:
            browser.close()
