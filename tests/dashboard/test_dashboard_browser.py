"""The dashboard as a person sees it: the real server in a real browser, on this machine alone."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tomoforge.results import publish

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# address → a text that only the finished page holds
PAGES = {
    "": "What to distrust",
    "run": "Samples forged",
    "scan?kind=scans": "Propagation distance",
    "forge?kind=samples": "Thick plate in a nylon loop",
    "scan": "Distrust this result.",
    "scan?kind=volumes": "Rotation centre",
    "models": "Training curve",
    "absorption": "Largest relative difference",
}
# Opened on a page's own address, Streamlit's client looks for its server under that address first;
# the browser reports the 404 as an error although the client then finds it one level up.
PROBES = ("/_stcore/health", "/_stcore/host-config")
START_S = 60
# What stands at the end of a page, so that all of it is there.
LAST = re.compile("Provenance: how this was made|What else was made")


@pytest.fixture
def chromium() -> str:
    """A browser on this machine."""
    for name in ("chromium", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("neither chromium nor google-chrome is on PATH")


@pytest.fixture
def server(app: Path, example: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a dashboard that shows the example."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py"]
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--server.port", str(port)],
            cwd=app.parents[1],
            env={**os.environ, "HOME": str(tmp_path)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}/"
        _wait_for(address + "_stcore/health", process, tmp_path / "server.log")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def page(chromium: str, tmp_path: Path) -> Iterator["playwright_api.Page"]:
    """A page of a fresh browser that collects what it complains of in ``page.complaints``."""
    with playwright_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "browser",
            executable_path=chromium,
            headless=True,
            args=ARGUMENTS,
            viewport={"width": 1280, "height": 900},
        )
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: _note_console(page.complaints, message))
        page.on("pageerror", lambda error: page.complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: _note_request(page.complaints, request))
        yield page
        context.close()


def test_browser__every_page_is_drawn_without_complaint(
    server: str, page: "playwright_api.Page", tmp_path: Path
) -> None:
    for number, (path, text) in enumerate(PAGES.items()):
        _open(page, server + path, text)
        _see_pictures(page)
        page.screenshot(path=tmp_path / f"page-{number}.png")
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) <= 0, path  # nothing to scroll sideways for at 1280 px
        assert page.get_by_text("could not be drawn").count() == 0
    assert page.complaints == []


def test_browser__deep_link_selector_and_navigation(
    server: str, page: "playwright_api.Page", tmp_path: Path
) -> None:
    _open(page, server + "?run=end_to_end-1", "Demo of yesterday")
    assert page.get_by_role("heading", name="Demo of yesterday").count() == 1
    page.get_by_role("link", name="Models").first.click()
    page.get_by_role("heading", name="2D full-resolution segmenter").wait_for()
    page.get_by_role("link", name="Segmentation: Segmentation of the simulated scan").click()
    page.get_by_text("Distrust this result.").wait_for()
    assert "kind=segmentations" in page.url
    assert "item=segment-51" in page.url
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").first.click()
    assert download.value.suggested_filename == "segmentations-segment-51-metrics.csv"
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0] == "class,recall,iou,f1,f2,precision"
    page.screenshot(path=tmp_path / "linked.png")
    assert page.complaints == []


def test_browser__text_from_files_is_shown_and_never_run(
    server: str, example: Path, page: "playwright_api.Page", tmp_path: Path
) -> None:
    evil = (
        "<img src=x onerror=window.ran=1><script>window.ran=1</script> "
        "![x](http://192.0.2.1/x.png) [l](javascript:window.ran=1)"
    )
    publish(
        example,
        "runs",
        "evil",
        title=evil,
        summary={evil: evil, "projections": evil},
        warnings=[evil],
        run={"published_at": "2026-02-01T00:00:00+00:00"},
    )
    _open(page, server + "run", "[l](javascript:window.ran=1)")
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran === undefined")
    assert page.locator("a[href^='javascript'], a[href*='192.0.2.1']").count() == 0
    assert "<script>window.ran=1</script>" in page.inner_text("[data-testid=stMain]")
    page.screenshot(path=tmp_path / "evil.png")
    assert page.complaints == []


def _open(page: "playwright_api.Page", address: str, text: str) -> None:
    page.goto(address)
    page.get_by_text(text, exact=False).first.wait_for(timeout=START_S * 1000)
    page.get_by_text(LAST).first.wait_for(timeout=START_S * 1000)


def _see_pictures(page: "playwright_api.Page") -> None:
    loaded = "[...document.querySelectorAll('[data-testid=stImage] img')]"
    page.wait_for_function(f"{loaded}.every(i => i.complete && i.naturalWidth > 0)")


def _note_console(complaints: list[str], message: "playwright_api.ConsoleMessage") -> None:
    address = message.location.get("url", "")
    if message.type == "error" and not address.endswith(PROBES):
        complaints.append(f"console: {message.text} {address}")


def _note_request(complaints: list[str], request: "playwright_api.Request") -> None:
    if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        complaints.append(f"request to elsewhere: {request.url}")


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    pytest.fail(f"the dashboard did not start: {log.read_text()[-2000:]}")
