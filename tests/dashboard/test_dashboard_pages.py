"""Every page as Streamlit runs it, without a browser: what is said, and that nothing breaks."""

import json
import re
import struct
import tomllib
import zlib
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from tomoforge.results import Picture, Table, publish

PAGES = {
    "night": "Night",
    "run": "Runs",
    "scan": "Scan",
    "forge": "Forge",
    "models": "Models",
    "absorption": "Absorption",
    "annotate": "Annotate",
}
KINDS = ("runs", "samples", "scans", "volumes", "models", "segmentations", "absorption", "annotation_queues")


def open_page(app: Path, page: str, **address: str) -> AppTest:
    """Run one page and see that it ended as a page, not as an error."""
    at = AppTest.from_file(app, default_timeout=60)
    if page != "night":
        at.switch_page(f"stages/{page}.py")
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    assert not any("could not be drawn" in box.value for box in at.error)
    assert at.header[0].value == PAGES[page]
    return at


def said(at: AppTest) -> str:
    """All text of the page, escapes of Markdown and of addresses taken out."""
    boxes = (*at.error, *at.warning, *at.info, *at.markdown, *at.caption, *at.subheader, *at.text)
    text = "\n".join(box.value for box in boxes)
    return text.replace("\\", "").replace("\u2060", "")


def pictures(at: AppTest) -> int:
    """How many pictures the page sends."""
    return len(at.get("image")) + len(at.get("imgs"))


def test_page__decisions_on_models_and_what_is_worth_annotating(app: Path, example: Path) -> None:
    publish(
        example,
        "promotions",
        "decision-00002-012345-89abcdef",
        title="Refused model-41",
        summary={"decision": "refused", "iou_crystal_challenger": 0.91, "iou_crystal_champion": 0.94},
        warnings=["crystal changes by -3.00 points of IoU over 6 cases of the holdout set"],
        tables={"gate": Table(pd.DataFrame({"class": ["crystal"], "difference": [-0.03]}), "By class.")},
        sources={"model": "model-41"},
    )
    publish(
        example,
        "annotation_queues",
        "annotation-queue-89abcdef",
        title="What is worth annotating: 1 volume",
        summary={"queued": 1, "ranked": 1},
        tables={"queue": Table(pd.DataFrame({"position": [1], "subject": ["volume-31"]}), "First first.")},
    )
    refused = open_page(app, "models", kind="promotions")
    assert "Refused model-41" in said(refused) and "Crystal changes by -3.00 points" in said(refused)
    assert {"IoU crystal challenger", "IoU crystal champion"} <= {box.label for box in refused.metric}
    queue = open_page(app, "annotate", kind="annotation_queues")
    assert "What is worth annotating: 1 volume" in said(queue)


@pytest.mark.parametrize("page", PAGES)
def test_page__shows_the_example(app: Path, example: Path, page: str) -> None:
    at = open_page(app, page)
    assert at.subheader[0].value
    assert at.metric
    assert not at.info
    assert pictures(at) + len(at.get("vega_lite_chart")) > 0
    if page != "night":  # it shows no single result
        assert "Provenance" in " ".join(box.label for box in at.expander)


@pytest.mark.parametrize("page", PAGES)
def test_page__says_what_to_do_when_nothing_is_published(app: Path, workspace: Path, page: str) -> None:
    at = open_page(app, page)
    assert "make demo" in at.info[0].value
    assert "TOMOFORGE_WORKSPACE" in said(at)
    (workspace / "published").mkdir(parents=True)
    at = open_page(app, page)
    assert "make demo" in at.info[0].value


@pytest.mark.parametrize("page", PAGES)
def test_page__survives_what_cannot_be_read(app: Path, example: Path, page: str) -> None:
    for kind in KINDS:
        (example / kind / "half-written").mkdir()
        (example / kind / ".draft.x1").mkdir()
        newer = example / kind / "newer"
        newer.mkdir()
        (newer / "manifest.json").write_text(json.dumps({"manifest_version": 99}))
        (example / kind / "garbled").mkdir()
        (example / kind / "garbled" / "manifest.json").write_bytes(b"\xff{")
    at = open_page(app, page)
    text = said(at)
    assert "cannot be shown" in " ".join(box.label for box in at.expander)
    assert "half-written has no manifest; its publication was not finished" in text
    assert "newer has manifest version 99" in text
    assert "/garbled" in text
    assert ".draft" not in text
    assert at.metric  # the readable results are still there


def test_run_page__shows_the_newest_run_and_its_headline(app: Path, example: Path) -> None:
    at = open_page(app, "run")
    assert at.subheader[0].value == "Demo"
    assert [tile.label for tile in at.metric][:2] == ["Samples forged", "Projections"]
    assert at.dataframe[1].value["material"].tolist() == ["liquor", "loop", "crystal"]


def test_run_page__puts_the_worst_warning_of_any_part_first(app: Path, example: Path) -> None:
    at = open_page(app, "run")
    assert "Distrust this result" in at.error[0].value
    assert "utside the training domain" in at.error[0].value
    assert len(at.error) == 1
    assert len(at.warning) == 2
    kinds = [element.type for element in at.main]
    assert kinds.index("error") < kinds.index("warning") < kinds.index("metric")


def test_absorption_page__inherits_the_warning_of_its_segmentation(app: Path, example: Path) -> None:
    assert "utside the training domain" in open_page(app, "absorption").error[0].value


def test_scan_page__failed_validation_is_a_red_box(app: Path, example: Path) -> None:
    at = open_page(app, "scan", kind="scans", item="scan-22")
    assert "Validation failed" in at.error[0].value
    assert "drifted by 4.1 %" in said(at)


def test_address__opens_the_named_item(app: Path, example: Path) -> None:
    assert open_page(app, "run", run="end_to_end-1").subheader[0].value == "Demo of yesterday"
    assert "Crystal 7" in open_page(app, "scan", item="scan-22").subheader[0].value
    at = open_page(app, "forge", item="forge_sample-11")
    assert at.subheader[0].value == "Thick plate in a nylon loop"
    at = open_page(app, "scan", kind="volumes")
    assert at.subheader[0].value == "Reconstruction of the simulated scan"


@pytest.mark.parametrize("wanted", ["nothing", "../../scans/scan-21", "/etc/passwd", "![x](y)"])
def test_address__of_nothing_published_shows_the_newest_and_says_so(
    app: Path, example: Path, wanted: str
) -> None:
    at = open_page(app, "run", run=wanted)
    assert at.subheader[0].value == "Demo"
    assert "not published here" in said(at)
    assert "not published here" in said(open_page(app, "scan", item=wanted))
    assert open_page(app, "scan", kind=wanted).metric


def test_selector__writes_the_address(app: Path, example: Path) -> None:
    at = open_page(app, "run")
    at.selectbox[0].select_index(1).run()
    assert at.subheader[0].value == "Demo of yesterday"
    assert at.query_params["run"] == "end_to_end-1"
    at.selectbox[0].select_index(0).run()
    assert at.subheader[0].value == "Demo"


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "gone", "huge"])
def test_picture__damaged_is_said_and_not_sent(app: Path, example: Path, damage: str) -> None:
    file = example / "volumes" / "volume-31" / "slices.png"
    png = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
        check = struct.pack(">I", zlib.crc32(b"IHDR" + header))
        changed = {
            "cut": png[: len(png) // 2],
            "flipped": png[:200] + bytes([png[200] ^ 1]) + png[201:],
            "text": b"<svg onload=alert(1)>",
            "huge": png[:16] + header + check + png[33:],
        }
        file.write_bytes(changed[damage])
    at = open_page(app, "scan", kind="volumes")
    assert "The picture “slices” cannot be shown" in said(at)
    assert pictures(at) == 0
    assert at.metric


def test_table__damaged_is_said(app: Path, example: Path) -> None:
    (example / "models" / "model-41" / "metrics.parquet").write_bytes(b"PAR1 no")
    (example / "models" / "model-41" / "training_curve.parquet").unlink()
    text = said(open_page(app, "models"))
    assert "The table “metrics” cannot be shown: its file is damaged" in text
    assert "The table “training_curve” cannot be shown: its file is missing" in text


def test_page__tolerates_results_with_nothing_in_them(app: Path, workspace: Path) -> None:
    for kind in KINDS:
        publish(workspace / "published", kind, "bare", title="", summary={})
        summary = {"list": [1, 2.5], "none": None, "deep": {"a": {"b_kev": 1.0}}, "mu_x": 1e9}
        table = Table(pd.DataFrame({"x": [None, None]}), "")
        empty = Table(pd.DataFrame({"epoch": []}), "nothing")
        publish(
            workspace / "published",
            kind,
            "odd",
            title="odd",
            summary=summary,
            tables={"training_curve": table, "empty": empty},
            sources={"scan": "odd", "self": "odd", "what": "nowhere"},
        )
    for page in PAGES:
        open_page(app, page)
        open_page(app, page, **{"run" if page == "run" else "item": "bare"})


def test_text_from_files__is_never_markup(app: Path, workspace: Path) -> None:
    evil = "<script>alert(1)</script> ![x](http://example.org/a.png) [l](javascript:alert(1)) $x$"
    png = _tiny_png()
    for kind in KINDS:
        publish(
            workspace / "published",
            kind,
            "evil",
            title=evil,
            summary={evil: evil, "<b>n</b>": 1},
            warnings=[evil],
            pictures={"p": Picture(png, evil)},
            tables={"t": Table(pd.DataFrame({evil: [evil]}), evil)},
            sources={evil: evil},
            provenance={evil: evil},
        )
    for page in PAGES:
        at = open_page(app, page)
        assert evil in said(at)
        for box in (*at.markdown, *at.caption, *at.subheader, *at.warning, *at.error):
            assert not getattr(box.proto, "allow_html", False)
            assert not re.search(r"(?<!\\)(<script|<b>|!\[x|\[l|\]\(|\$x)", box.value), box.value


def test_pictures__beyond_the_second_wait_until_asked_for(app: Path, workspace: Path) -> None:
    many = {f"p{i}": Picture(_tiny_png(), f"picture {i}") for i in range(4)}
    publish(workspace / "published", "runs", "r", title="r", summary={}, pictures=many)
    at = open_page(app, "run")
    assert pictures(at) == 2
    assert [box.label for box in at.expander if "Picture" in box.label] == [
        "Picture: P2",
        "Picture: P3",
    ]


def test_dashboard__changes_nothing_on_disk(app: Path, example: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = sorted(example.rglob("*"))
        return {str(f): (f.stat().st_mtime_ns, f.stat().st_size) for f in files}

    before = state()
    for page in PAGES:
        open_page(app, page)
    assert state() == before


def test_page__a_fault_of_its_own_is_one_sentence_and_a_log_entry(
    app: Path, example: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("dashboard.night.within", broken)
    at = AppTest.from_file(app, default_timeout=60).run()
    assert not at.exception
    assert "could not be drawn" in at.error[-1].value
    assert "secret" not in said(at)
    assert "/secret/path" in caplog.text


def test_settings__serve_this_machine_alone_and_ask_nothing_of_the_network(app: Path) -> None:
    settings = tomllib.loads((app.parents[1] / ".streamlit" / "config.toml").read_text())
    assert settings["server"]["address"] == "127.0.0.1"
    assert settings["server"]["headless"] is True
    assert settings["server"]["fileWatcherType"] == "none"
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["client"]["showErrorDetails"] == "none"


def test_source__never_lets_text_be_html(app: Path) -> None:
    for file in app.parent.rglob("*.py"):
        text = file.read_text()
        for word in ("unsafe_allow_html", "st.html(", "components.v1", "st.write("):
            assert word not in text, (file.name, word)


def _tiny_png() -> bytes:
    """A grey PNG of 8 × 8 pixels, written by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * 8) * 8)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
