"""Pictures of the dashboard for the README: its own server on the workspace, seen by a browser that runs unseen."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

from tomoforge.results import Published, list_published

WIDTH, HEIGHT = 1280, 900
_WAIT_S = 120
_ROOT = Path(__file__).resolve().parents[1]
# Below Streamlit's own bar.
_TO_THE_TOP = "e => { e.style.scrollMarginTop = '70px'; e.scrollIntoView({block: 'start'}); }"
_PROVENANCE = "Provenance: how this was made"


def dashboard_pictures(workspace: Path) -> Mapping[str, bytes]:
    """File name → PNG of the pages Night, Scan and Absorption for what is in a workspace, WIDTH × HEIGHT pixels.

    Raises RuntimeError if there is no Chromium, or nothing published that they could show.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("no chromium on PATH: apt-get install chromium")
    published = workspace / "published"
    segmentation = {"kind": "segmentations", "item": _newest(published, "segmentations")}
    correction = {"item": _newest(published, "absorption")}
    # Address, what the page shows last, and the text that comes to the top of the picture.
    shots = {
        "dashboard_night.png": ("?hours=720", "What else was made", None),
        "dashboard_scan.png": (f"scan?{urlencode(segmentation)}", _PROVENANCE, "Surface in 3-D"),
        "dashboard_absorption.png": (
            f"absorption?{urlencode(correction)}",
            _PROVENANCE,
            "What the correction",
        ),
    }
    with _served(workspace) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(_WAIT_S * 1000)
        pictures = {name: _shot(page, address + path, last, top) for name, (path, last, top) in shots.items()}
        browser.close()
    return pictures


def _shot(page: Page, address: str, last: str, top: str | None) -> bytes:
    page.goto(address)
    page.get_by_text(last).first.wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    loaded = "[...document.querySelectorAll('[data-testid=stImage] img')]"
    page.wait_for_function(f"{loaded}.every(i => i.complete && i.naturalWidth > 0)")
    if top is not None:
        page.get_by_text(top).first.evaluate(_TO_THE_TOP)
    page.wait_for_timeout(1500)  # charts are drawn after the script has ended
    return page.screenshot()


def _newest(published: Path, kind: str) -> str:
    for entry in list_published(published, kind):
        if isinstance(entry, Published):
            return entry.identifier
    raise RuntimeError(f"no {kind} were published in {published}: make demo makes them")


@contextmanager
def _served(workspace: Path) -> Iterator[str]:
    """The address of a dashboard on this machine that shows a workspace."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.port", str(port)]
    with tempfile.TemporaryDirectory() as home:
        settings = {**os.environ, "HOME": home, "TOMOFORGE_WORKSPACE": str(workspace)}
        process = subprocess.Popen(
            command, cwd=_ROOT, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            address = f"http://127.0.0.1:{port}/"
            _wait_for(address + "_stcore/health", process)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(address: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the dashboard did not start: make dashboard says why")
