"""Notebook 02's explorer in JupyterLab, in a real browser: run all cells, move the slider, and come back."""

import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from chromium import NEEDED, chromium

from saliency_lib.book import profiles
from saliency_lib.runtime.store import PROJECT

pytestmark = pytest.mark.browser
BOOK = "02_gradient_snr"
DONE = "ALL" + "-DONE"  # in two parts, so that the cell's source does not hold it
EXPLORER = ".saliency-explorer"
MINUTES = 8  # for all cells; a slow machine trains its networks in one
SERVER = """
import os, signal, threading
def follow():
    os.read(0, 1)  # ends when the test's process does, however it does
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=follow, daemon=True).start()
from jupyterlab.labapp import main
main()
"""
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells are in the page, in view or not
}


@pytest.fixture
def notebook(tmp_path):
    """A folder with a copy of the notebook at its smallest size, and a last cell that says that it was reached."""
    book = profiles.read_notebook(BOOK)
    values = profiles.parameters(BOOK) | profiles.load("smoke")[BOOK]
    (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    book.cells.append(nbformat.v4.new_code_cell("print('ALL' + '-DONE')"))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(book, folder / f"{BOOK}.ipynb")
    return folder


@contextmanager
def jupyterlab(notebooks, folder):
    """A server on loopback with settings of its own; it ends with this process. Gives its address and its token."""
    for name, text in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    environment = {k: v for k, v in os.environ.items() if k != "SALIENCY_QUIET" and not k.startswith("JUPYTER")}
    environment |= {f"JUPYTER_{name}": str(folder / place) for name, place in places.items()} | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_TOKEN": token,
        "SALIENCY_FIGURES": str(folder / "figures"),
    }
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root"]
    command = [sys.executable, "-c", SERVER, *options, f"--ServerApp.root_dir={notebooks}"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}", token, server
    finally:
        server.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        server.kill()
        server.wait()


def until(true, seconds, what, every=0.05):
    """The first true answer; fails with ``what`` after some seconds."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < end, f"after {seconds} s: {what}"
        time.sleep(every)
    return answer


def answers(address, server):
    """Whether the server answers; fails if it has ended."""
    assert server.poll() is None, "JupyterLab did not start"
    with suppress(URLError, ConnectionError), urlopen(f"{address}/api", timeout=5) as reply:
        return reply.status == 200
    return False


def run_all_cells(page, address, token):
    """Open the notebook, run it through the menu, and wait for its last cell."""
    page.goto(f"{address}/lab/tree/{BOOK}.ipynb?token={token}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)

    def ready():  # the page says idle before there is a kernel
        kernels = [s["kernel"] for s in page.request.get(f"{address}/api/sessions?token={token}").json()]
        return [k for k in kernels if k and k["execution_state"] == "idle" and k["connections"] > 0]

    until(ready, 120, "no kernel is idle and connected", every=0.5)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    error = page.locator(".jp-OutputArea-output", has_text="Traceback (most recent call last)")
    done = page.locator(".jp-OutputArea-output", has_text=DONE)
    done.or_(error).first.wait_for(timeout=MINUTES * 60_000)
    assert error.count() == 0, error.first.inner_text()


def picture(page):
    """Source of the explorer's picture, or what is said in its place; empty while there is nothing to see."""
    return page.evaluate(
        f"""() => {{
            const [picture, words] = ["img", "[role=alert]"].map(e => document.querySelector(`{EXPLORER} ${{e}}`))
            return words ? words.innerText : picture && picture.naturalWidth ? picture.src : ""
        }}"""
    )


def at_rest(page, label, seconds=1.0):
    """The picture once it has not changed for a second and shows what the control says."""
    last, since = picture(page), time.monotonic()
    end = since + 60
    while time.monotonic() < since + seconds:
        assert time.monotonic() < end, "the picture does not come to rest"
        time.sleep(0.05)
        if (now := picture(page)) != last:
            last, since = now, time.monotonic()
    told = page.locator(f"{EXPLORER} [role=alert]")
    assert told.count() == 0, told.first.inner_text()
    assert last and label in page.locator(f"{EXPLORER} img").get_attribute("alt")
    return last


@NEEDED
def test_the_slider_of_notebook_02_redraws_the_picture_and_comes_back(notebook, tmp_path):
    shots = PROJECT / "build" / "browser"
    shots.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with jupyterlab(notebook, tmp_path) as (address, token, server), chromium() as (page, outside):
        until(lambda: answers(address, server), 120, "JupyterLab does not answer", every=0.5)
        try:
            run_all_cells(page, address, token)
            ran = time.monotonic() - started
            row = page.locator(f"{EXPLORER} .widget-inline-hbox", has_text="members")
            row.scroll_into_view_if_needed()
            handle, readout = row.locator(".noUi-handle"), row.locator(".widget-readout")
            before = at_rest(page, "1 of 3 members")
            handle.focus()

            def press(key, old):
                """Press a key and wait until another picture shows; the seconds that it took."""
                begun = time.monotonic()
                page.keyboard.press(key)
                until(lambda: picture(page) not in (old, ""), 30, f"{key} does not change the picture", every=0.01)
                return time.monotonic() - begun

            seconds = {"a picture that is drawn anew": press("End", before)}
            last = at_rest(page, "3 of 3 members")
            assert readout.inner_text() == "3"
            seconds["one that was drawn before"] = press("Home", last)
            assert at_rest(page, "1 of 3 members") == before and readout.inner_text() == "1"
            press("End", before)
            assert at_rest(page, "3 of 3 members") == last and readout.inner_text() == "3"
        finally:
            page.screenshot(path=shots / "explorer.png")
    told = ", ".join(f"{what} {value:.2f} s" for what, value in seconds.items())
    print(f"\nall cells after {ran:.0f} s; the explorer shows {told}; in all {time.monotonic() - started:.0f} s")
    assert not outside, f"the page asked for {outside[:3]}"
