"""Files that people hand in: kept whole or not at all, once, and never changed."""

import datetime
import json

import pytest

from tomoforge.errors import InputError, StorageError
from tomoforge.label_files import LabelFileError
from tomoforge.label_uploads import MOST_WAITING, Uploads


def clock():
    return datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "uploads", clock)


def test_uploads__keep_the_file_and_who_when_for_what(uploads):
    made = uploads.store(b"labels", "Mine.TIF", "volume-1", who="Ada", note="loop")
    (found,) = Uploads(uploads.path).waiting()
    assert found == made
    assert (found.name, found.file, found.who, found.note) == ("Mine.TIF", "labels.tif", "Ada", "loop")
    assert found.moment == "2024-05-06T07:08:09.000+00:00"
    assert uploads.file_of(found).read_bytes() == b"labels"


def test_uploads__the_same_file_is_kept_once_for_each_volume(uploads):
    first = uploads.store(b"labels", "a.nii.gz", "volume-1", who="Ada")
    assert uploads.store(b"labels", "b.tif", "volume-1", who="Grace") == first
    uploads.store(b"labels", "b.tif", "volume-2", who="Grace")
    uploads.store(b"others", "b.tif", "volume-1", who="Grace")
    assert len(uploads.all()) == 3
    assert first.file == "labels.nii.gz"


def test_uploads__what_the_check_refuses_leaves_nothing(uploads):
    def refuse(file):
        assert file.read_bytes() == b"labels"
        raise LabelFileError("known labels", f"{file.name} has [9]", "renumber")

    with pytest.raises(LabelFileError, match=r"mine\.tif has \[9\]"):
        uploads.store(b"labels", "mine.tif", "volume-1", who="Ada", check=refuse)
    assert list(uploads.path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.zip", "x", "../../x.sh", "tif"])
def test_uploads__names_choose_a_type_and_nothing_else(uploads, name):
    with pytest.raises(LabelFileError, match="none of"):
        uploads.store(b"x", name, "volume-1", who="Ada")
    made = uploads.store(b"x", "../../../etc/x.tif", "volume-1", who="Ada")
    assert (uploads.path / made.folder / made.file).is_file()


def test_uploads__the_first_outcome_stays(uploads):
    made = uploads.store(b"labels", "a.tif", "volume-1", who="Ada")
    uploads.settle(made, refused="the volume is gone")
    uploads.settle(made, labels="corrected-labels-1")
    (found,) = uploads.all()
    assert (found.refused, found.labels, uploads.waiting()) == ("the volume is gone", None, [])
    assert (
        uploads.store(b"labels", "a.tif", "volume-1", who="Ada").folder != made.folder
    )  # it may be tried again
    with pytest.raises(InputError, match="not both"):
        uploads.settle(made, labels="x", refused="y")


def test_uploads__a_changed_file_is_not_what_was_handed_in(uploads):
    made = uploads.store(b"labels", "a.tif", "volume-1", who="Ada")
    (uploads.path / made.folder / made.file).write_bytes(b"other")
    with pytest.raises(StorageError, match="not the file that Ada handed in"):
        uploads.file_of(made)


def test_uploads__a_record_that_leads_elsewhere_is_left_out(uploads):
    made = uploads.store(b"labels", "a.tif", "volume-1", who="Ada")
    record = uploads.path / made.folder / "upload.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "file": "../../secret"}))
    (uploads.path / "half").mkdir()
    assert uploads.all() == []


def test_uploads__more_than_anybody_takes_are_refused(uploads):
    for n in range(MOST_WAITING):
        uploads.store(f"{n}".encode(), "a.tif", "volume-1", who="Ada")
    with pytest.raises(InputError, match="run import_labels first"):
        uploads.store(b"one more", "a.tif", "volume-1", who="Ada")


def test_uploads__nobody_hands_in_nothing(uploads):
    with pytest.raises(InputError, match="who must be said"):
        uploads.store(b"x", "a.tif", "volume-1", who=" ")
    with pytest.raises(LabelFileError, match="is empty"):
        uploads.store(b"", "a.tif", "volume-1", who="Ada")
