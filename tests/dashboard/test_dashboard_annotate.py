"""The page Annotate: what people decide is on the record, what they hand in is checked, and nothing else is written."""

import gzip
import io
import multiprocessing
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from streamlit.testing.v1 import AppTest

from dashboard import annotate_view, decisions
from dashboard.access import LOCAL_SETTING, Person
from dashboard.annotation_queue import Queued
from dashboard.bundle import MOST_BYTES, plan_bundle, write_bundle
from tests.dashboard.test_dashboard_pages import open_page, pictures, said
from tomoforge.approvals import DECISIONS, Approvals
from tomoforge.label_check import check_label_file
from tomoforge.label_files import LabelFileError
from tomoforge.label_uploads import Uploads
from tomoforge.results import Table, publish
from tomoforge.volumes import write_labels, write_volume

VOLUME, LABELS = "volume-" + "1a" * 10, "segmentation-" + "2b" * 10
OTHER = "volume-" + "3c" * 10
CONTENT = "c" * 64
SHAPE, VOXEL = (24, 20, 16), 2e-6
ADA, GRACE = Person("Ada", "local"), Person("Grace", "local")


def drawn() -> np.ndarray:
    """(z, y, x) uint8, of no symmetry: a crystal in liquor in a corner of the volume."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:16, 3:17, 1:11] = 1
    labels[4:12, 5:10, 2:6] = 3
    labels[16:19, 3:17, 5:7] = 2
    return labels


@pytest.fixture
def queue(workspace: Path) -> Path:
    """A workspace with two volumes in the queue, of which one lies there."""
    labels = drawn()
    grey = np.array([0, 3000, 5000, 9000], np.float32)[labels]
    for kind, key, part in (("volumes", VOLUME, "volume"), ("labels", LABELS, "labels")):
        folder = workspace / kind / key
        folder.mkdir(parents=True)
        (folder / "provenance.json").write_text("{}")
        place = folder / f"{part}.ome.zarr"
        write_volume(place, grey, VOXEL) if part == "volume" else write_labels(place, labels, VOXEL)
    write_volume(
        workspace / "labels" / LABELS / "uncertainty.ome.zarr", (labels == 3) * np.float32(0.5), VOXEL
    )
    table = pd.DataFrame(
        {
            "position": [1, 2],
            "subject": [VOLUME, OTHER],
            "priority": [1.0, 0.2],
            "uncertainty": [0.4, 0.1],
            "distance": [0.9, 0.0],
            "labels": [LABELS, "segmentation-" + "4d" * 10],
            "labels_sha256": [CONTENT, "d" * 64],
            "opened_by": ["napari a b", "napari c d"],
        }
    )
    publish(
        workspace / "published",
        "annotation_queues",
        "annotation-queue-12345678",
        title="What is worth annotating: 2 volumes",
        summary={"queued": 2},
        tables={"queue": Table(table, "The most worthwhile first.")},
    )
    return workspace


@pytest.fixture
def signed_in(queue: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That workspace, looked at by Ada."""
    monkeypatch.setenv(LOCAL_SETTING, "Ada")
    return queue


def press(at: AppTest, text: str, note: str = "") -> AppTest:
    if note:
        at.text_area[0].set_value(note)
    (button,) = [b for b in at.button if b.label == text]
    button.click().run()
    assert not at.exception
    assert not any("could not be drawn" in box.value for box in at.error)
    return at


def told(at: AppTest) -> str:
    """What ``said`` gives, and the boxes of what went well."""
    return said(at) + "\n".join(box.value.replace("\\", "") for box in at.success)


def record_of(workspace: Path) -> Approvals:
    return Approvals(workspace / DECISIONS)


# --- what it shows --------------------------------------------------------------------------------------


def test_annotate__shows_the_queue_with_its_slices(app: Path, example: Path) -> None:
    at = open_page(app, "annotate")
    assert pictures(at) == 1
    assert "2 volumes wait for a decision" in said(at)
    assert at.dataframe[0].value["state"].tolist() == ["open", "open"]
    assert "Nobody has decided on these labels yet" in said(at)


def test_annotate__address_opens_a_volume_and_knows_no_path(app: Path, queue: Path) -> None:
    assert f"2. {OTHER}" in said(open_page(app, "annotate", volume=OTHER))
    for evil in ("../../etc/passwd", "/etc/passwd", "<script>alert(1)</script>", f"{VOLUME}/../{OTHER}"):
        at = open_page(app, "annotate", volume=evil, item=evil)
        assert "is not in this queue" in said(at) and "not published here" in said(at)
        assert f"1. {VOLUME}" in said(at)


def test_annotate__is_read_only_for_those_who_are_not_known(app: Path, queue: Path, monkeypatch) -> None:
    monkeypatch.delenv(LOCAL_SETTING, raising=False)
    at = open_page(app, "annotate")
    buttons = [b for b in at.button if b.label in ("Accept", "Reject", "Needs correction")]
    assert len(buttons) == 3 and all(button.disabled for button in buttons)
    assert not at.file_uploader
    assert "no sign-in is set up" in said(at)
    queued = Queued(VOLUME, LABELS, CONTENT, (), (), {})
    annotate_view._decide("approved", queued, "note")  # as a client of one's own making could ask for
    assert not (queue / "annotation").exists()


def test_annotate__a_queue_that_names_no_labels_cannot_be_decided_on(app: Path, signed_in: Path) -> None:
    old = pd.DataFrame(
        {"position": [1], "subject": [VOLUME], "priority": [1.0], "uncertainty": [0.4], "distance": [0.9]}
    )
    publish(
        signed_in / "published",
        "annotation_queues",
        "annotation-queue-9",
        title="old",
        summary={"queued": 1},
        tables={"queue": Table(old, "First first.")},
    )
    at = open_page(app, "annotate", item="annotation-queue-9")
    assert all(b.disabled for b in at.button if b.label in ("Accept", "Reject", "Needs correction"))
    assert "rank_annotations" in said(at)


def test_annotate__an_empty_queue_says_so(app: Path, workspace: Path) -> None:
    columns = ["position", "subject", "priority", "uncertainty", "distance"]
    publish(
        workspace / "published",
        "annotation_queues",
        "empty",
        title="Nothing",
        summary={"queued": 0},
        tables={"queue": Table(pd.DataFrame(columns=columns), "First first.")},
    )
    assert "Nothing waits for a person" in open_page(app, "annotate").success[0].value


# --- decide ---------------------------------------------------------------------------------------------


def test_annotate__a_decision_is_recorded_under_the_persons_name(app: Path, signed_in: Path) -> None:
    at = press(open_page(app, "annotate"), "Accept", "loop is thin, but right")
    (made,) = record_of(signed_in).decisions()
    assert (made.verdict, made.who, made.reason) == ("approved", "Ada", "loop is thin, but right")
    assert (made.subject, made.checksum) == (LABELS, CONTENT)
    assert "Accepted** by Ada" in told(at) and "Recorded as accepted" in told(at)
    assert at.dataframe[0].value["state"].tolist() == ["accepted (Ada)", "open"]
    assert at.query_params["volume"] in (VOLUME, [VOLUME])
    assert at.text_area[0].value in ("", None)
    assert f"1. {VOLUME}" in said(at)


def test_annotate__a_rejection_needs_a_reason(app: Path, signed_in: Path) -> None:
    at = press(open_page(app, "annotate"), "Reject", "  ")
    assert "a rejection needs a reason" in at.error[0].value
    assert record_of(signed_in).decisions() == []
    at = press(at, "Reject", "half a crystal")
    assert record_of(signed_in).decisions()[0].reason == "half a crystal"
    at = press(at, "Needs correction")
    assert [d.verdict for d in record_of(signed_in).decisions()] == ["rejected", "needs correction"]
    assert "1 volume waits for a decision, 1 for corrected labels" in said(at)
    assert "Rejected by Ada" in said(at) and "then sent to be corrected by Ada" in said(at)
    assert "opinions differ" not in at.dataframe[0].value["state"][0]  # one person who thought again


def test_annotate__names_and_notes_are_never_markup(app: Path, signed_in: Path, monkeypatch) -> None:
    evil = "<script>alert(1)</script> ![x](http://example.org/a.png) [l](javascript:alert(1)) $x$"
    monkeypatch.setenv(LOCAL_SETTING, evil)
    at = press(open_page(app, "annotate"), "Reject", evil)
    assert record_of(signed_in).decisions()[0].who == evil
    assert said(at).count(evil) >= 3
    for box in (*at.markdown, *at.caption, *at.subheader, *at.warning, *at.error, *at.success):
        assert not getattr(box.proto, "allow_html", False)
        assert not any(mark in box.value for mark in (" ![x](", " [l](", "<script>", " $x$"))


def test_record__two_who_decide_at_once_are_both_kept_and_told(app: Path, signed_in: Path) -> None:
    at = open_page(app, "annotate")  # Ada looks
    decisions.record("rejected", LABELS, CONTENT, GRACE, "the loop is missing", seen=0)
    at = press(at, "Accept")
    assert [(d.verdict, d.who) for d in record_of(signed_in).decisions()] == [
        ("rejected", "Grace"),
        ("approved", "Ada"),
    ]
    assert "Somebody else decided while you looked: rejected by Grace" in said(at)
    assert "Rejected by Grace" in said(at) and "then approved by Ada" in said(at)
    assert "opinions differ" in at.dataframe[0].value["state"][0]
    assert record_of(signed_in).standing(CONTENT).verdict == "approved"


def test_record__a_second_click_adds_nothing(signed_in: Path) -> None:
    first = decisions.record("approved", LABELS, CONTENT, ADA, "fine", seen=0)
    again = decisions.record("approved", LABELS, CONTENT, ADA, "fine ", seen=0)
    assert again.repeated and again.decision == first.decision
    assert not decisions.record("approved", LABELS, CONTENT, GRACE, "fine", seen=1).repeated
    assert len(record_of(signed_in).decisions()) == 2


def _decide(verdict: str, who: str, ready, go) -> None:
    ready.release()
    go.wait(60)
    for n in range(10):
        decisions.record(verdict, LABELS, CONTENT, Person(who, "local"), f"{n}", seen=0)


def test_record__two_processes_lose_nothing(signed_in: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, go = context.Semaphore(0), context.Event()
    people = (("approved", "Ada"), ("rejected", "Grace"))
    children = [context.Process(target=_decide, args=(v, who, ready, go)) for v, who in people]
    for child in children:
        child.start()
    for _ in children:
        assert ready.acquire(timeout=60)
    go.set()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    made = record_of(signed_in).decisions()
    assert len(made) == 20 and [d.sequence for d in made] == list(range(20))
    for verdict, who in people:
        assert [(d.verdict, d.reason) for d in made if d.who == who] == [(verdict, f"{n}") for n in range(10)]
    assert record_of(signed_in).standing(CONTENT) == made[-1]


def test_annotate__a_record_that_was_tampered_with_is_said_and_not_added_to(
    app: Path, signed_in: Path
) -> None:
    for who in (ADA, GRACE):
        decisions.record("approved", LABELS, CONTENT, who, "", seen=0)
    file = signed_in / DECISIONS
    file.write_bytes(file.read_bytes().replace(b'"Ada"', b'"Eve"'))
    before = file.read_bytes()
    at = open_page(app, "annotate")
    assert "cannot be shown" in at.error[0].value and "tampered with" in said(at)
    assert "Nothing was recorded" in said(press(at, "Accept"))
    assert file.read_bytes() == before


# --- labels, out and in ---------------------------------------------------------------------------------


def tiff(labels: np.ndarray, voxel_um: float = 2.0, **options) -> bytes:
    buffer = io.BytesIO()
    about = {"axes": "ZYX", "spacing": voxel_um, "unit": "um"}
    tifffile.imwrite(
        buffer, labels, imagej=True, resolution=(1 / voxel_um, 1 / voxel_um), metadata=about, **options
    )
    return buffer.getvalue()


def hand_in(at: AppTest, content: bytes, name: str = "mine.tif") -> AppTest:
    at.file_uploader[0].set_value((name, content, "image/tiff"))
    return press(at, "Check and hand in")


def test_annotate__good_labels_are_kept_until_a_flow_takes_them(app: Path, signed_in: Path) -> None:
    content = tiff(drawn())
    at = open_page(app, "annotate")
    at.text_input[0].set_value("loop <b>painted</b>")
    at = hand_in(at, content)
    (upload,) = Uploads(signed_in / "annotation" / "uploads").waiting()
    assert (upload.volume, upload.who, upload.name, upload.note) == (
        VOLUME,
        "Ada",
        "mine.tif",
        "loop <b>painted</b>",
    )
    assert Uploads(signed_in / "annotation" / "uploads").file_of(upload).read_bytes() == content
    assert "fits its volume and was handed in" in told(at)
    assert at.dataframe[0].value["state"][0] == "open, corrected labels wait"
    at = hand_in(at, content, "again.tif")
    assert "This very file was handed in before, by Ada" in said(at)
    assert len(Uploads(signed_in / "annotation" / "uploads").all()) == 1


BAD: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "shape": (lambda: tiff(drawn()[:-1]), "mine.tif", "label shape"),
    "reversed": (lambda: tiff(drawn().T.copy()), "mine.tif", "its axes are reversed"),
    "classes": (lambda: tiff(drawn() * 3), "mine.tif", "[6, 9]"),
    "spacing": (lambda: tiff(drawn(), 4.0), "mine.tif", "has voxels of 4"),
    "probabilities": (lambda: tiff(drawn().astype(np.float32) * 0.3), "mine.tif", "values between labels"),
    "empty": (lambda: tiff(np.zeros(SHAPE, np.uint8)), "mine.tif", "background alone"),
    "mirrored": (lambda: tiff(drawn()[::-1].copy()), "mine.tif", "fits the volume better with z reversed"),
    "cut short": (lambda: tiff(drawn())[:300], "mine.tif", "label"),
    "garbage": (lambda: b"MZ" + bytes(300), "mine.tif", "label file"),
    "type": (lambda: b"PK", "mine.zip", "mine.zip is none of"),
    "a path": (lambda: tiff(drawn()), "../../../etc/cron.d/x", "is none of"),
    "nothing": (lambda: b"", "mine.nrrd", "is empty"),
}


@pytest.mark.parametrize("fault", BAD)
def test_hand_in__what_does_not_fit_is_refused_with_the_reason(signed_in: Path, fault: str) -> None:
    make, name, reason = BAD[fault]
    stored = signed_in / "volumes" / VOLUME / "volume.ome.zarr"
    with pytest.raises(LabelFileError) as refused:
        decisions.hand_in(make(), name, VOLUME, stored, ADA, "", check_orientation=True)
    assert reason in str(refused.value)
    kept = signed_in / "annotation" / "uploads"
    assert not kept.exists() or not list(kept.iterdir())


def test_annotate__a_bad_file_gives_its_reason_and_keeps_the_note(app: Path, signed_in: Path) -> None:
    at = open_page(app, "annotate")
    at.text_input[0].set_value("what I changed")
    at = hand_in(at, tiff(drawn() * 3))
    assert "Not taken (known labels)" in said(at) and "mine.tif has [6, 9]" in said(at)
    assert at.text_input[0].value == "what I changed"
    assert Uploads(signed_in / "annotation" / "uploads").all() == []


def endless(head: bytes, window: int) -> bytes:
    """``head`` and four gigabytes of zeros, compressed: each block stands by itself, so that one does for all."""
    packed = zlib.compressobj(9, zlib.DEFLATED, window)
    first = packed.compress(head) + packed.flush(zlib.Z_FULL_FLUSH)
    block = packed.compress(bytes(1 << 24)) + packed.flush(zlib.Z_FULL_FLUSH)
    return first + block * 256


def nifti_bomb() -> bytes:
    """A header that claims the volume's own shape and a gigabyte of extensions."""
    import nibabel

    image = nibabel.nifti1.Nifti1Image(drawn().T, np.diag([2e-3, 2e-3, 2e-3, 1.0]))
    image.header["vox_offset"] = 2**31 - 64
    head = bytearray(image.header.binaryblock) + b"\x01\0\0\0"
    head += (2**31 - 512).to_bytes(4, "little") + b"\x06\0\0\0"
    return endless(bytes(head), 31)


def nrrd_bomb() -> bytes:
    """The right header, and zeros without an end behind it."""
    z, y, x = SHAPE
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {x} {y} {z}\nencoding: gzip\n\n".encode()
    return head + endless(b"", 31)


def tiff_bomb() -> bytes:
    """One page of the right size whose only strip unpacks into gigabytes."""
    strip = endless(b"", 15)
    whole = tiff_of_one_page()
    offset = len(whole)
    with tifffile.TiffFile(io.BytesIO(whole)) as found:
        tags = found.pages[0].tags
        places = [
            (tags[name].valueoffset, value)
            for name, value in (("StripOffsets", offset), ("StripByteCounts", len(strip)))
        ]
    changed = bytearray(whole)
    for place, value in places:
        changed[place : place + 4] = value.to_bytes(4, "little")
    return bytes(changed) + strip


def tiff_of_one_page() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, drawn(), compression="zlib", photometric="minisblack", rowsperstrip=SHAPE[1], volumetric=False
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "name"),
    [(nrrd_bomb, "mine.nrrd"), (nifti_bomb, "mine.nii.gz"), (tiff_bomb, "mine.tif")],
    ids=["nrrd", "nifti", "tiff"],
)
def test_check_label_file__a_bomb_is_refused_before_it_fills_memory(
    signed_in: Path, tmp_path: Path, make: Callable[[], bytes], name: str
) -> None:
    import resource

    file = tmp_path / name
    file.write_bytes(make())
    assert file.stat().st_size < 16 << 20
    with pytest.raises(LabelFileError, match=r"label file|label shape"):
        check_label_file(file, signed_in / "volumes" / VOLUME / "volume.ome.zarr")
    # The largest child ever, in KiB: a gigabyte is the bound, the bombs hold more than three.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1.1 * (1 << 20)


def test_check_label_file__a_claim_beyond_the_volume_is_not_unpacked(signed_in: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.nrrd"
    head = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2000 2000 2000\nencoding: gzip\n\n"
    file.write_bytes(head + gzip.compress(bytes(1 << 20)))
    with pytest.raises(LabelFileError, match=r"is \(2000, 2000, 2000\) \(z, y, x\), the volume is"):
        check_label_file(file, signed_in / "volumes" / VOLUME / "volume.ome.zarr")


def test_bundle__comes_back_as_labels_that_fit(signed_in: Path) -> None:
    place = signed_in / "labels" / LABELS
    stored = signed_in / "volumes" / VOLUME / "volume.ome.zarr"
    plan = plan_bundle(SHAPE, (0, 0, 0))
    with write_bundle(
        plan, stored, place / "labels.ome.zarr", place / "uncertainty.ome.zarr", VOLUME
    ) as file:
        packed = zipfile.ZipFile(file)
        names = {Path(name).name: name for name in packed.namelist()}
        assert set(names) == {"volume.tif", "labels.tif", "uncertainty.tif", "README.txt"}
        images = {n: tifffile.imread(io.BytesIO(packed.read(names[n]))) for n in names if n.endswith("tif")}
        back = packed.read(names["labels.tif"])
        assert "napari" in packed.read(names["README.txt"]).decode()
    np.testing.assert_array_equal(images["labels.tif"], drawn())
    np.testing.assert_array_equal(images["volume.tif"], np.array([0, 3000, 5000, 9000], np.float32)[drawn()])
    assert images["uncertainty.tif"].max() == 0.5
    _, new = decisions.hand_in(back, "labels.tif", VOLUME, stored, ADA, "", check_orientation=True)
    assert new


def test_plan_bundle__is_bounded_whatever_the_volume() -> None:
    for shape in ((128, 128, 128), (400, 400, 400), (1024, 1024, 1024), (1, 5000, 40000), (3, 2, 1)):
        plan = plan_bundle(shape, tuple(n - 1 for n in shape))
        assert plan.size <= MOST_BYTES
        assert all(0 <= part.start < part.stop <= n for part, n in zip(plan.box, shape, strict=True))
    assert plan_bundle((400, 400, 400), (0, 0, 0)).depth == "uint8"
    assert plan_bundle((400, 400, 400), (0, 0, 0)).whole
    region = plan_bundle((1024, 1024, 1024), (1000, 10, 512))
    assert not region.whole and [part.start for part in region.box] == [768, 0, 384]


def test_annotate__writes_nothing_but_its_records(app: Path, signed_in: Path) -> None:
    def state() -> dict[str, int]:
        return {str(f): f.stat().st_mtime_ns for f in sorted(signed_in.rglob("*")) if f.is_file()}

    before = state()
    at = press(open_page(app, "annotate"), "Accept")
    hand_in(at, tiff(drawn()))
    after = state()
    assert before.items() <= after.items()
    added = {str(Path(name).relative_to(signed_in)) for name in set(after) - set(before)}
    assert all(name.startswith(("annotation/decisions.jsonl", "annotation/uploads/")) for name in added)
