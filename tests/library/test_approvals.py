"""Decisions: kept for good, through kills and many writers, and every change to them seen."""

import datetime
import hashlib
import json
import os
import signal

import pytest

from tests.library.segmentation.children import ended, start
from tomoforge.approvals import Approvals
from tomoforge.errors import InputError, StorageError

A, B = "a" * 64, "b" * 64


def clock():
    return datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


@pytest.fixture
def approvals(tmp_path):
    found = Approvals(tmp_path / "decisions.jsonl", clock)
    found.record("approved", "case-1", A, who="Ada")
    found.record("rejected", "case-2", B, who="Grace", reason="loop missing")
    found.record("approved", "case-2", B, who="Ada", reason="loop is there, z 40")
    return found


def test_approvals__keep_who_when_what(approvals):
    first, second, third = approvals.decisions()
    assert (first.who, first.moment, first.verdict) == ("Ada", "2024-05-06T07:08:09.000+00:00", "approved")
    assert second.reason == "loop missing"
    assert approvals.standing(B) == third
    assert approvals.standing("c" * 64) is None
    assert set(approvals.approved()) == {A, B}
    approvals.record("rejected", "case-1", A, who="Grace", reason="liquor is air")
    assert set(approvals.approved()) == {B}
    approvals.verify(third.sha256)
    assert Approvals(approvals.path.with_name("none.jsonl")).decisions() == []
    assert Approvals(approvals.path.with_name("none.jsonl")).head() is None


def test_approvals__lines_once_written_stay_byte_for_byte(approvals):
    before = approvals.path.read_bytes()
    approvals.record("rejected", "case-3", A, who="Ada", reason="µ wrong")
    assert approvals.path.read_bytes().startswith(before)


def test_approvals__ask_for_what_must_be_said(approvals):
    for verdict, subject, checksum, who, reason, message in [
        ("maybe", "s", A, "Ada", "", "verdict must be one of approved, rejected"),
        ("approved", "s", A, " ", "", "who must be said"),
        ("approved", "", A, "Ada", "", "subject must be said"),
        ("rejected", "s", A, "Ada", "", "reason must say why"),
    ]:
        with pytest.raises(InputError, match=message):
            approvals.record(verdict, subject, checksum, who=who, reason=reason)
    assert len(approvals.decisions()) == 3


def _edit(lines):
    lines[0] = lines[0].replace(b"Ada", b"Bob")


def _resealed(lines):
    """A line changed together with its own hash, as somebody who read the code would."""
    from tomoforge.approvals import _line, _sealed

    record = json.loads(lines[0])
    record.pop("sha256")
    lines[0] = _line(vars(_sealed({**record, "who": "Bob"})))


def _remove(lines):
    del lines[1]


def _swap(lines):
    lines[0], lines[1] = lines[1], lines[0]


def _double(lines):
    lines.insert(1, lines[0])


def _insert(lines):
    lines.insert(1, b"{}\n")


def _cut_the_last(lines):
    del lines[-1]


def _cut_all(lines):
    lines.clear()


def _edit_the_last(lines):
    lines[-1] = lines[-1].replace(b"approved", b"rejected")


@pytest.mark.parametrize(
    "tamper",
    [_edit, _resealed, _remove, _swap, _double, _insert, _cut_the_last, _cut_all, _edit_the_last],
)
def test_approvals__tampering_is_seen(approvals, tamper):
    lines = approvals.path.read_bytes().splitlines(keepends=True)
    tamper(lines)
    approvals.path.write_bytes(b"".join(lines))
    with pytest.raises(StorageError, match="tampered with or damaged"):
        approvals.decisions()
    with pytest.raises(StorageError, match="tampered with or damaged"):
        approvals.record("approved", "s", A, who="Ada")


def test_approvals__a_line_put_in_before_a_record_that_knows_of_none_is_seen(approvals):
    """Even where hashes were computed anew, a record that says nothing of a torn line may not follow one."""
    from tomoforge.approvals import _line, _sealed

    content = approvals.path.read_bytes() + b"something else\n"
    last = vars(approvals.decisions()[-1])
    forged = {**last, "sequence": 3, "previous": hashlib.sha256(content).hexdigest()}
    forged.pop("sha256")
    approvals.path.write_bytes(content + _line(vars(_sealed(forged))))
    with pytest.raises(StorageError, match="line 5 does not follow"):
        approvals.decisions()


def test_approvals__a_last_line_that_does_not_give_its_hash_does_not_count(approvals):
    head = approvals.path.with_name("decisions.jsonl.head")
    old_head = head.read_bytes()
    approvals.record("rejected", "case-4", "d" * 64, who="Ada", reason="air")
    head.write_bytes(old_head)  # killed before the head was written
    approvals.path.write_bytes(
        approvals.path.read_bytes().replace(b'"subject": "case-4"', b'"subject": "case-5"')
    )
    assert len(approvals.decisions()) == 3


def test_approvals__a_forged_history_is_seen_by_a_witness(approvals):
    witness = approvals.head()
    approvals.path.unlink()
    approvals.path.with_name("decisions.jsonl.head").unlink()
    approvals.record("approved", "case-2", B, who="Mallory")
    approvals.verify()
    with pytest.raises(StorageError, match="is missing"):
        approvals.verify(witness)


@pytest.mark.parametrize("kept", [0, 1, 40, -1, None])
def test_approvals__a_kill_within_a_line_leaves_the_others_and_the_next_goes_on(approvals, kept):
    before = approvals.path.read_bytes()
    head = approvals.path.with_name("decisions.jsonl.head")
    old_head = head.read_bytes()
    approvals.record("approved", "case-4", "d" * 64, who="Ada")
    line = approvals.path.read_bytes()[len(before) :]
    for _ in range(2):  # killed twice in a row
        left = before + line[:kept]
        approvals.path.write_bytes(left)
        head.write_bytes(old_head)
        before = left if left.endswith(b"\n") else left + b"\n"
    whole = kept in (-1, None)  # all but the newline, or all: the decision is there
    assert len(approvals.decisions()) == 3 + whole
    approvals.record("approved", "case-5", "e" * 64, who="Ada")
    approvals.record("approved", "case-6", "f" * 64, who="Ada")
    subjects = ["case-1", "case-2", "case-2", *["case-4"] * whole, "case-5", "case-6"]
    assert [d.subject for d in approvals.decisions()] == subjects
    assert approvals.path.read_bytes().startswith(left)  # nothing is rewritten, not even the remainder
    approvals.path.write_bytes(approvals.path.read_bytes().replace(left, left[:-2] + b"??", 1))
    with pytest.raises(StorageError, match="tampered"):
        approvals.decisions()


def test_approvals__a_kill_between_line_and_head_loses_nothing(approvals, monkeypatch):
    def killed(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Approvals, "_write_head", killed)
    child = start(lambda: approvals.record("approved", "case-4", "d" * 64, who="Ada"))
    assert ended(child) == -signal.SIGKILL
    monkeypatch.undo()
    assert approvals.decisions()[-1].subject == "case-4"
    approvals.record("approved", "case-5", "e" * 64, who="Ada")
    assert len(approvals.decisions()) == 5


def test_approvals__many_writers_lose_no_decision(tmp_path):
    path = tmp_path / "decisions.jsonl"

    def write(name):
        for n in range(5):
            Approvals(path).record("approved", f"{name}{n}", A, who=name)

    children = [start(lambda name=name: write(name)) for name in ("ada", "bob", "cyd")]
    assert [ended(child) for child in children] == [0, 0, 0]
    decisions = Approvals(path).decisions()
    assert sorted(d.subject for d in decisions) == sorted(
        f"{n}{i}" for n in ("ada", "bob", "cyd") for i in range(5)
    )
    assert [d.sequence for d in decisions] == list(range(15))


def test_approvals__a_full_disk_is_an_error_and_loses_nothing(approvals, monkeypatch):
    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match=r"could not be added.*No space left"):
        approvals.record("approved", "case-4", A, who="Ada")
    real = os.pwrite
    size = approvals.path.stat().st_size
    monkeypatch.setattr(os, "write", lambda _, data: _half(approvals.path, data, size, real))
    with pytest.raises(StorageError, match="is the disk full"):
        approvals.record("approved", "case-4", A, who="Ada")
    monkeypatch.undo()
    assert len(approvals.decisions()) == 3
    approvals.record("approved", "case-5", A, who="Ada")
    assert [d.subject for d in approvals.decisions()][3:] == ["case-5"]


def _half(path, data, offset, write):
    """The part of a line that there was room for."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return write(descriptor, data[: len(data) // 2], offset)
    finally:
        os.close(descriptor)
