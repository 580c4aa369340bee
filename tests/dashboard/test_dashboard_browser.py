"""The dashboard as a person sees it: the real server in a real browser, on this machine alone."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.dashboard.conftest import STORED, stored_truth
from tomoforge.approvals import DECISIONS, Approvals
from tomoforge.label_uploads import Uploads
from tomoforge.results import Table, publish

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

OpenPage = Callable[..., "playwright_api.Page"]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZE = {"width": 1280, "height": 900}
WAIT_S = 60
VOLUME, SEGMENTATION, SAMPLE = (STORED[kind] for kind in ("volumes", "segmentations", "samples"))
LABELS_SHA256 = "c" * 64
# The server trusts this header, as behind a proxy: a browser that sends it is Ada, one that does not is nobody.
HEADER, ADA, GRACE = "X-Forwarded-User", "Ada Lovelace", "Grace Hopper"
# address → a text that only the finished page holds
PAGES = {
    "": "What to distrust",
    "run": "Samples forged",
    "scan?kind=scans&item=scan-21": "Propagation distance",
    f"scan?item={SEGMENTATION}": "Slice z",
    f"scan?item={SEGMENTATION}&view=surface": "Surfaces of",
    f"scan?item={STORED['scans']}": "The rotation axis is",
    "scan?item=segment-51": "Distrust this result.",
    "forge?kind=samples": "Thick plate in a nylon loop",
    "forge?kind=sample_sets": "Rejected samples",
    "forge?kind=fidelity": "Fidelity of the simulation",
    "models": "Training curve",
    "models?kind=models": "On the test set, per class",
    "models?kind=promotions": "Challenger less champion",
    "models?kind=comparisons": "Training sources compared",
    "absorption": "Merging statistics",
    "annotate": "Decide on the model's labels",
}
# Opened on a page's own address, Streamlit's client looks for its server under that address first;
# the browser reports the 404 as an error although the client then finds it one level up.
PROBES = ("/_stcore/health", "/_stcore/host-config")
# What stands at the end of a page, so that all of it is there.
LAST = re.compile("Provenance: how this was made|What else was made|Training curve")
# (rule of axe, part of the element's HTML or of its selector) → why we cannot mend it
KNOWN = {
    (
        "presentation-role-conflict",
        "stFileUploaderDropzone",
    ): "Streamlit's own drop zone is focusable without a "
    "role; the button in it has a name and is reached with the keyboard",
}


# --- server and browser, one of each --------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> str:
    """A browser on this machine."""
    for name in ("chromium", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("neither chromium nor google-chrome is on PATH")


@pytest.fixture(scope="module")
def shown(example_once: Path, stored_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of this file: the example, what lies in ``stored_once``, a queue with both of its volumes."""
    root = tmp_path_factory.mktemp("browser") / "workspace"
    shutil.copytree(stored_once, root)
    shutil.copytree(example_once / ".", root / "published", dirs_exist_ok=True)
    table = pd.DataFrame(
        {
            "position": [1, 2],
            "subject": [_key("volumes"), "volume-31"],
            "priority": [1.0, 0.25],
            "uncertainty": [0.412, 0.118],
            "distance": [0.9, 0.0],
            "labels": [_key("segmentations"), "segmentation-51"],
            "labels_sha256": [LABELS_SHA256, "b" * 64],
        }
    )
    publish(
        root / "published",
        "annotation_queues",
        "annotation-queue-01234567",
        title="What is worth annotating: the box",
        summary={"queued": 2},
        tables={"queue": Table(table, "The most worthwhile first.")},
    )
    return root


@pytest.fixture(scope="module")
def server(chromium: str, app: Path, shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard that shows this workspace."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("TOMOFORGE_", "STREAMLIT_"))}
    settings |= {
        "HOME": str(home),
        "TOMOFORGE_WORKSPACE": str(shown),
        "TOMOFORGE_DASHBOARD_USER_HEADER": HEADER,
    }
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py"]
    with open(home / "server.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--server.port", str(port)],
            cwd=app.parents[1],
            env=settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}/"
        _wait_for(address + "_stcore/health", process, home / "server.log")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator["playwright_api.Browser"]:
    with playwright_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, headless=True, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def profiles(browser: "playwright_api.Browser") -> dict[str | None, "playwright_api.BrowserContext"]:
    """The browser of each person: its cache lasts, so that Streamlit's scripts are loaded once."""
    return {
        person: browser.new_context(viewport=SIZE, extra_http_headers={HEADER: person} if person else {})
        for person in (None, ADA, GRACE)
    }


@pytest.fixture
def new_page(profiles: dict[str | None, "playwright_api.BrowserContext"]) -> Iterator[OpenPage]:
    """Opens pages as a person, each a session of its own; at the end none may have complained."""
    complaints: list[str] = []
    pages = []

    def make(person: str | None = None) -> "playwright_api.Page":
        page = profiles[person].new_page()
        pages.append(page)
        page.set_default_timeout(WAIT_S * 1000)
        page.on("console", lambda message: _note_console(complaints, message))
        page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: _note_request(complaints, request))
        return page

    yield make
    for page in pages:
        page.close()
    assert complaints == []


# --- every page -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_browser__every_page_is_drawn_and_accessible(
    server: str, new_page: OpenPage, tmp_path: Path, path: str
) -> None:
    page = new_page(ADA)
    _open(page, server + path, PAGES[path])
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0  # nothing to scroll sideways for at 1280 px
    assert page.get_by_text("could not be drawn").count() == 0
    assert page.get_by_text("cannot be shown").count() == 0
    for scheme, background in (("light", 255), ("dark", 23)):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "red => getComputedStyle(document.querySelector('[data-testid=stApp]'))"
            ".backgroundColor.startsWith(`rgb(${red},`)",
            arg=background,
        )
        _settle(page)
        page.screenshot(path=tmp_path / f"{scheme}.png")
        assert _violations(page) == [], scheme


def test_browser__navigation_and_a_table_taken_along(server: str, new_page: OpenPage) -> None:
    page = new_page()
    _open(page, server + "run?run=end_to_end-1", "Demo of yesterday")
    assert page.get_by_role("heading", name="Demo of yesterday").count() == 1
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Models").click()
    page.get_by_text("Training curve").first.wait_for()
    page.get_by_role("radio", name="Models (1)").click()
    page.get_by_role("link", name="Segmentation: Segmentation of the simulated scan").click()
    page.get_by_text("Distrust this result.").wait_for()
    assert "kind=segmentations" in page.url
    assert "item=segment-51" in page.url
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").first.click()
    assert download.value.suggested_filename == "segmentations-segment-51-metrics.csv"
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0] == "class,recall,iou,f1,f2,precision"


# --- Scan -----------------------------------------------------------------------------------------------


def test_browser__slices_follow_the_slider_and_the_address_opens_the_same_view(
    server: str, new_page: OpenPage
) -> None:
    page = new_page()
    _open(page, f"{server}scan?item={SEGMENTATION}", "Slice z")
    slider = page.get_by_role("slider", name="Slice z")
    assert slider.input_value() == "18"
    seen = [_slice_picture(page)]
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.get_by_text("z = 13", exact=False).first.wait_for()
    seen.append(_other_picture(page, seen))
    page.wait_for_url(re.compile(r"[?&]z=13(&|$)"))

    _choose(page, "Labels over it", "True labels, as forged")
    page.wait_for_url(re.compile(f"labels={SAMPLE}"))
    seen.append(_other_picture(page, seen))
    page.get_by_text("Contours", exact=True).click()
    page.wait_for_url(re.compile("contours=0"))
    seen.append(_other_picture(page, seen))
    assert len(set(seen)) == 4

    again = new_page()
    _open(again, page.url, "Slice z")
    assert _slice_picture(again) == seen[-1]  # named by its content
    assert again.get_by_role("slider", name="Slice z").input_value() == "13"
    contours = again.get_by_test_id("stCheckbox").filter(has_text="Contours").locator("input")
    assert not contours.is_checked()
    assert again.get_by_role("combobox", name="Labels over it").input_value() == "True labels, as forged"


def test_browser__the_keyboard_reaches_navigation_and_slider(server: str, new_page: OpenPage) -> None:
    page = new_page()
    _open(page, f"{server}scan?item={SEGMENTATION}", "Slice z")
    page.evaluate("document.activeElement.blur()")
    names = []
    for _ in range(60):
        page.keyboard.press("Tab")
        names.append(page.evaluate(FOCUSED))
        if names[-1] == "Slice z":
            break
    assert "Models" in names and "Annotate" in names
    assert names[-1] == "Slice z", names
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(r"[?&]z=19(&|$)"))
    page.keyboard.press("Home")
    page.wait_for_url(re.compile(r"[?&]z=0(&|$)"))


FOCUSED = """() => {
    const it = document.activeElement;
    const by = (it.getAttribute('aria-labelledby') || '').split(' ').map(n => document.getElementById(n));
    const words = by.filter(Boolean).map(n => n.innerText).join(' ');
    return (it.getAttribute('aria-label') || words || it.innerText || '').trim();
}"""


# --- Annotate -------------------------------------------------------------------------------------------


def test_browser__a_decision_is_recorded_and_seen(server: str, shown: Path, new_page: OpenPage) -> None:
    page = new_page(ADA)
    _open(page, server + "annotate", "Nobody has decided on these labels yet")
    page.get_by_text("You act as").wait_for()
    record = Approvals(shown / DECISIONS)

    page.get_by_role("button", name="Reject").click()
    page.get_by_text("a rejection needs a reason").wait_for()
    assert record.decisions() == []

    page.get_by_role("textbox", name="Note (a rejection needs a reason)").fill("the crystal is too small")
    page.get_by_role("button", name="Reject").click()
    page.get_by_text("Recorded as rejected").wait_for()
    page.get_by_role("button", name="Accept").click()
    page.get_by_text("Recorded as accepted").wait_for()
    page.get_by_text(f"Accepted by {ADA}").wait_for()
    made = [(d.verdict, d.who, d.reason) for d in record.decisions()]
    assert made == [("rejected", ADA, "the crystal is too small"), ("approved", ADA, "")]
    lines = (shown / DECISIONS).read_text().splitlines()
    assert [json.loads(line)["subject"] for line in lines] == [_key("segmentations")] * 2

    other = new_page(GRACE)
    _open(other, server + f"annotate?volume={_key('volumes')}", "What people decided")
    other.get_by_text(f"Accepted by {ADA}").wait_for()


def test_browser__labels_that_do_not_fit_are_refused_and_good_ones_kept(
    server: str, shown: Path, new_page: OpenPage
) -> None:
    page = new_page(ADA)
    uploads = Uploads(shown / "annotation" / "uploads")
    _open(page, server + f"annotate?volume={_key('volumes')}", "Correct them")
    chooser = page.locator("[data-testid=stFileUploader] input[type=file]")

    chooser.set_input_files(
        {"name": "bad.tif", "mimeType": "image/tiff", "buffer": _tiff(stored_truth()[:-1])}
    )
    page.get_by_text("bad.tif").first.wait_for()
    page.get_by_role("button", name="Check and hand in").click()
    page.get_by_text("Not taken (label shape)").wait_for()
    page.get_by_text("bad.tif is (35, 96, 130)").wait_for()
    assert uploads.all() == []

    chooser.set_input_files({"name": "good.tif", "mimeType": "image/tiff", "buffer": _tiff(stored_truth())})
    page.get_by_text("good.tif").first.wait_for()
    page.get_by_role("button", name="Check and hand in").click()
    page.get_by_text("fits its volume and was handed in").wait_for()
    (kept,) = uploads.waiting()
    assert (kept.volume, kept.who, kept.name) == (_key("volumes"), ADA, "good.tif")
    assert uploads.file_of(kept).read_bytes() == _tiff(stored_truth())


def test_browser__a_file_of_200_megabytes_is_refused(
    server: str, shown: Path, new_page: OpenPage, tmp_path: Path
) -> None:
    before = Uploads(shown / "annotation" / "uploads").all()
    large = tmp_path / "large.tif"
    with open(large, "wb") as file:
        file.truncate(200_000_000)
    page = new_page(ADA)
    _open(page, server + f"annotate?volume={_key('volumes')}", "Correct them")
    page.locator("[data-testid=stFileUploader] input[type=file]").set_input_files(large)
    page.get_by_text("File must be 64").first.wait_for()
    assert Uploads(shown / "annotation" / "uploads").all() == before


def test_browser__who_is_not_known_may_only_look(server: str, new_page: OpenPage) -> None:
    page = new_page()
    _open(page, server + "annotate", "Decide on the model's labels")
    for name in ("Accept", "Needs correction", "Reject"):
        assert page.get_by_role("button", name=name).is_disabled()
    assert page.locator("input[type=file]").count() == 0
    page.get_by_text(f"this request has no header {HEADER}").wait_for()
    page.get_by_text("The buttons are for people who are signed in").wait_for()


# --- hostile text; last, for it stays in the workspace --------------------------------------------------


def test_browser__text_from_files_is_shown_and_never_run(
    server: str, shown: Path, new_page: OpenPage
) -> None:
    evil = (
        "<img src=x onerror=window.ran=1><script>window.ran=1</script> "
        "![x](http://192.0.2.1/x.png) [l](javascript:window.ran=1)"
    )
    publish(
        shown / "published",
        "runs",
        "evil",
        title=evil,
        summary={evil: evil, "projections": evil},
        warnings=[evil],
    )
    page = new_page()
    _open(page, server + "run?run=evil", "[l](javascript:window.ran=1)")
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran === undefined")
    assert page.locator("a[href^='javascript'], a[href*='192.0.2.1']").count() == 0
    assert "<script>window.ran=1</script>" in page.inner_text("[data-testid=stMain]")


# --- pieces ---------------------------------------------------------------------------------------------


def _key(kind: str) -> str:
    """The artefact's key: its published identifier without the last part."""
    return STORED[kind].rsplit("-", 1)[0]


def _tiff(labels: np.ndarray) -> bytes:
    """(z, y, x) uint8 as Fiji writes it, with voxels of 2 µm."""
    buffer = io.BytesIO()
    about = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(buffer, labels, imagej=True, resolution=(0.5, 0.5), metadata=about)
    return buffer.getvalue()


def _open(page: "playwright_api.Page", address: str, text: str) -> None:
    page.goto(address)
    page.get_by_text(text, exact=False).first.wait_for()
    page.get_by_text(LAST).first.wait_for()
    _settle(page)


def _settle(page: "playwright_api.Page") -> None:
    """Wait until the script has ended and every picture is there."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    loaded = "[...document.querySelectorAll('[data-testid=stImage] img')]"
    page.wait_for_function(f"{loaded}.every(i => i.complete && i.naturalWidth > 0)")


def _choose(page: "playwright_api.Page", name: str, option: str) -> None:
    """Choose from a list with the keyboard; a run that ends meanwhile draws the list anew and closed."""
    for _ in range(20):
        _settle(page)
        page.get_by_role("combobox", name=name).focus()
        page.keyboard.press("ArrowDown")
        try:
            page.get_by_role("option", name=option).click(timeout=3000)
            return
        except playwright_api.TimeoutError:
            page.keyboard.press("Escape")
    pytest.fail(f"the list {name} did not stay open")


def _slice_picture(page: "playwright_api.Page") -> str:
    """The address of the slice's picture without the server: Streamlit names a file by its content."""
    _settle(page)
    return page.locator("img[alt^='Slice ']").first.get_attribute("src").rsplit("/", 1)[-1]


def _other_picture(page: "playwright_api.Page", seen: list[str]) -> str:
    """The slice's picture once it is none of those seen before."""
    page.wait_for_function(
        "seen => { const i = document.querySelector('img[alt^=\"Slice \"]');"
        " return i && !seen.includes(i.src.split('/').at(-1)); }",
        arg=seen,
    )
    return _slice_picture(page)


def _violations(page: "playwright_api.Page") -> list[str]:
    """What axe finds, one line an element, without what is known."""
    found = axe_api.Axe().run(page).response["violations"]
    lines = [
        (violation["id"], f"{node['target']} {node['html'][:300]}")
        for violation in found
        for node in violation["nodes"]
    ]
    return [
        f"{rule}: {text}" for rule, text in lines if not any(rule == r and part in text for r, part in KNOWN)
    ]


def _note_console(complaints: list[str], message: "playwright_api.ConsoleMessage") -> None:
    address = message.location.get("url", "")
    if message.type == "error" and not address.endswith(PROBES):
        complaints.append(f"console: {message.text} {address}")


def _note_request(complaints: list[str], request: "playwright_api.Request") -> None:
    if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        complaints.append(f"request to elsewhere: {request.url}")


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    pytest.fail(f"the dashboard did not start: {log.read_text()[-2000:]}")
