"""Data sets: what nnU-Net is given, by reference, and every bad pair refused by name."""

import json
import os
import shutil

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.case_records import BY_CONTENT, describe_case
from tomoforge.segmentation.dataset import TrainingCase, read_dataset_record, write_dataset
from tomoforge.segmentation.splits import Holdout
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

VOXEL = 2.5e-6  # [m]


def _case(folder, identifier, volume, labels, *, voxel=VOXEL, label_voxel=None, names=LABEL_NAMES, **about):
    write_volume(folder / f"{identifier}-volume.zarr", volume, voxel)
    write_labels(folder / f"{identifier}-labels.zarr", labels, label_voxel or voxel, names)
    return TrainingCase(
        identifier, folder / f"{identifier}-volume.zarr", folder / f"{identifier}-labels.zarr", **about
    )


def _bytes_under(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_write_dataset__refers_to_the_volumes_and_copies_no_voxel(tmp_path):
    volume, labels = phantom(0, 32)
    folder = write_dataset(tmp_path / "raw", [_case(tmp_path, "a", volume, labels)])
    assert sorted(p.name for p in folder.iterdir()) == ["dataset.json", "splits_final.json", "tomoforge.json"]
    assert _bytes_under(folder) < volume.nbytes / 4  # the record's quantiles are most of it
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["labels"] == LABEL_NAMES
    assert dataset["dataset"] == {
        "a": {"images": ["../../a-volume.zarr"], "label": "../../a-labels.zarr"}  # the workspace may move
    }


def test_write_dataset__paths_are_relative_to_where_the_folder_will_lie(tmp_path):
    case = _case(tmp_path, "a", *phantom(0, 16))
    folder = write_dataset(tmp_path / ".partial" / "k" / "raw", [case], location=tmp_path / "k" / "raw")
    shutil.move(tmp_path / ".partial" / "k", tmp_path / "k")
    moved = tmp_path / "k" / "raw" / folder.name
    (image,) = json.loads((moved / "dataset.json").read_text())["dataset"]["a"]["images"]
    assert os.path.samefile(moved / image, case.volume)


def test_write_dataset__nnunet_reads_the_same_voxels_by_reference_as_from_copies(tmp_path):
    pytest.importorskip("nnunetv2", reason="the train extra is not installed")
    os.environ.setdefault("nnUNet_raw", str(tmp_path))
    os.environ.setdefault("nnUNet_preprocessed", str(tmp_path))
    os.environ.setdefault("nnUNet_results", str(tmp_path))
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    from tomoforge.segmentation.zarr_reader import register_reader

    volume, labels = phantom(0, 24)
    case = _case(tmp_path, "a", volume[:20, :22], labels[:20, :22])
    read = {}
    for copies in (False, True):
        folder = write_dataset(tmp_path / f"raw{copies}", [case], copies=copies)
        register_reader(tmp_path / f"raw{copies}")
        about = json.loads((folder / "dataset.json").read_text())
        reader = determine_reader_writer_from_dataset_json(about, verbose=False)()
        files = get_filenames_of_train_images_and_targets(str(folder), about)["a"]
        read[copies] = (*reader.read_images(files["images"]), *reader.read_seg(files["label"]))
    for one, other in zip(read[False], read[True], strict=True):
        if isinstance(one, dict):
            assert one["spacing"] == pytest.approx(other["spacing"], rel=1e-12)  # decimal text in the copy
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read[False][0][0], volume[:20, :22])

    # The intensities of the record are those by which nnU-Net normalises.
    images, _, seg, _ = read[False]
    (drawn,), _ = DatasetFingerprintExtractor.collect_foreground_intensities(seg, images, num_samples=100_000)
    record = read_dataset_record(tmp_path / "rawFalse")["normalisation"]
    spread = record["std"]
    # 10⁵ draws: 3 standard errors of the mean are 0.01 of the spread; of a 0.5 % tail about ten times that.
    assert record["mean"] == pytest.approx(drawn.mean(), abs=0.01 * spread)
    assert spread == pytest.approx(drawn.std(), rel=0.01)
    for percentile, name in ((0.5, "percentile_00_5"), (50, "median"), (99.5, "percentile_99_5")):
        assert record[name] == pytest.approx(np.percentile(drawn, percentile), abs=0.1 * spread)

    write_volume(tmp_path / "other.zarr", (volume + 1)[:20, :22], VOXEL)
    shutil.rmtree(case.volume)
    shutil.move(tmp_path / "other.zarr", case.volume)
    register_reader(tmp_path / "rawFalse")
    about = json.loads((tmp_path / "rawFalse" / folder.name / "dataset.json").read_text())
    reader = determine_reader_writer_from_dataset_json(about, verbose=False)()
    with pytest.raises(StorageError, match="has changed since the data set was written"):
        reader.read_images([str(case.volume)])


def test_write_dataset__same_cases_give_the_same_bytes(tmp_path):
    cases = [_case(tmp_path, i, *phantom(n, 16)) for n, i in enumerate("ab")]
    one, two = write_dataset(tmp_path / "one", cases), write_dataset(tmp_path / "two", cases[::-1])
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert len(files) == 3
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


def test_write_dataset__a_case_is_named_by_its_content(tmp_path):
    volume, labels = phantom(0, 16)
    corrected = labels.copy()
    corrected[0, 0, 0] = 1
    names = {}
    for where, (v, lab, voxel) in {
        "first": (volume, labels, VOXEL),
        "again": (volume, labels, VOXEL),
        "corrected": (volume, corrected, VOXEL),
        "rescaled": (volume, labels, 2 * VOXEL),
    }.items():
        (tmp_path / where).mkdir()
        case = _case(tmp_path / where, "x", v, lab, voxel=voxel)
        named = TrainingCase(BY_CONTENT, case.volume, case.labels)
        names[where] = describe_case(named, LABEL_NAMES).identifier
    assert names["first"] == names["again"]
    assert len(set(names.values())) == 3
    assert names["first"].split("-")[0] == names["corrected"].split("-")[0]  # the same volume
    (split,) = json.loads((write_dataset(tmp_path / "raw", [named]) / "splits_final.json").read_text())
    assert split["train"] == [names["rescaled"]]


def test_write_dataset__every_fifth_case_of_each_source_validates(tmp_path):
    cases = [
        _case(tmp_path, f"{source[0]}{n}", *phantom(10 * len(source) + n, 12), source=source)
        for source in ("forged", "real")
        for n in range(5)
    ]
    folder = write_dataset(tmp_path / "raw", cases)
    (split,) = json.loads((folder / "splits_final.json").read_text())
    assert split["val"] == ["f4", "r4"]
    assert split["train"] == ["f0", "f1", "f2", "f3", "r0", "r1", "r2", "r3"]
    folder = write_dataset(tmp_path / "raw", cases, folds=5)
    for split in json.loads((folder / "splits_final.json").read_text()):
        assert sorted(name[0] for name in split["val"]) == ["f", "r"]


def test_write_dataset__fingerprint_and_normalisation_span_the_cases(tmp_path):
    (one, labels), (two, other) = phantom(0, 24), phantom(1, 24)
    two = two * np.float32(1.2)
    write_dataset(tmp_path / "raw", [_case(tmp_path, "a", one, labels), _case(tmp_path, "b", two, other)])
    record = read_dataset_record(tmp_path / "raw")
    fingerprint = record["fingerprint"]
    tails = sorted(np.percentile(v, 99.5) for v in (one, two))
    assert fingerprint["mu"]["99.5"] == pytest.approx(tails, rel=1e-6)  # float32 volumes
    # Voxels at edges and fringes widen the median difference a little; 24³ holds many of them.
    assert fingerprint["noise"] == pytest.approx([100, 120], rel=0.25)
    assert fingerprint["cases"] == 2
    # nnU-Net draws as many labelled voxels from each case, here without chance: weights that make cases count alike.
    values = [one[labels > 0].astype(float), two[other > 0].astype(float)]
    mean = np.mean([v.mean() for v in values])
    spread = np.sqrt(np.mean([(v**2).mean() for v in values]) - mean**2)
    pooled = np.concatenate([np.quantile(v, np.linspace(0, 1, 4001)) for v in values])
    found = record["normalisation"]
    assert found["mean"] == pytest.approx(mean, rel=1e-6)
    assert found["std"] == pytest.approx(spread, rel=1e-5)  # a difference of squares
    low, high = np.percentile(pooled, [0.5, 99.5])
    # The quantiles are kept every 0.25 %, the outermost ones lie far apart: a tenth of the spread.
    assert found["percentile_00_5"] == pytest.approx(low, abs=0.1 * spread)
    assert found["percentile_99_5"] == pytest.approx(high, abs=0.1 * spread)


def _nan(volume, labels):
    volume[3, 3, 3] = np.nan
    return volume, labels


def _constant(volume, labels):
    return np.full_like(volume, 700), labels


def _cut(volume, labels):
    return volume, labels[:-1]


def _unlabelled(volume, labels):
    return volume, np.zeros_like(labels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_nan, "NaN"), (_constant, "constant"), (_cut, "shape"), (_unlabelled, "background alone")],
)
def test_write_dataset__refuses_a_bad_pair_by_name(tmp_path, spoil, message):
    good = _case(tmp_path, "good", *phantom(0, 16))
    bad = _case(tmp_path, "bad", *spoil(*phantom(1, 16)))
    with pytest.raises(InputError, match=f"case bad.*{message}"):
        write_dataset(tmp_path / "raw", [good, bad])
    with pytest.raises(StorageError, match="no finished data set"):
        read_dataset_record(tmp_path / "raw")


def test_write_dataset__refuses_labels_of_another_voxel_size(tmp_path):
    case = _case(tmp_path, "bad", *phantom(0, 16), label_voxel=2 * VOXEL)
    with pytest.raises(InputError, match=r"case bad: .*2\.5 µm, got 5 µm"):
        write_dataset(tmp_path / "raw", [case])


def test_write_dataset__refuses_a_voxel_size_in_another_unit(tmp_path):
    cases = [_case(tmp_path, f"c{n}", *phantom(n, 12)) for n in range(3)]
    cases.append(_case(tmp_path, "bad", *phantom(9, 12), voxel=1000 * VOXEL))
    with pytest.raises(InputError, match=r"case bad: its voxel size of 2500 µm.*unit"):
        write_dataset(tmp_path / "raw", cases)


def test_write_dataset__refuses_a_label_without_a_name(tmp_path):
    volume, labels = phantom(0, 16)
    labels[0, 0, 0] = 4
    case = _case(tmp_path, "bad", volume, labels, names={**LABEL_NAMES, "ice": 4})
    with pytest.raises(InputError, match=r"case bad: .*got also \[4\]"):
        write_dataset(tmp_path / "raw", [case])


def test_write_dataset__refuses_classes_with_gaps(tmp_path):
    case = _case(tmp_path, "a", *phantom(0, 16))
    with pytest.raises(InputError, match="without gaps"):
        write_dataset(tmp_path / "raw", [case], {"background": 0, "liquor": 1, "crystal": 3})


def test_write_dataset__refuses_a_class_that_no_case_shows(tmp_path):
    volume, labels = phantom(0, 16)
    labels[labels == 3] = 1
    with pytest.raises(InputError, match=r"no voxel of \['crystal'\]"):
        write_dataset(tmp_path / "raw", [_case(tmp_path, "a", volume, labels)])


def test_write_dataset__every_class_occurs_where_it_is_learnt(tmp_path):
    volume, labels = phantom(0, 16)
    labels[labels == 3] = 1
    cases = [_case(tmp_path, "a", volume, labels), _case(tmp_path, "b", *phantom(1, 16))]
    with pytest.raises(InputError, match=r"case that trains, got \['crystal'\] in none of \['a'\]"):
        write_dataset(tmp_path / "raw", cases, validation=["b"])
    with pytest.raises(InputError, match="case that trains"):
        write_dataset(tmp_path / "raw", cases, folds=2)
    folder = write_dataset(tmp_path / "raw", cases)  # not the last one, as otherwise
    (split,) = json.loads((folder / "splits_final.json").read_text())
    assert split == {"train": ["b"], "val": ["a"]}


def test_write_dataset__refuses_the_same_volume_twice(tmp_path):
    volume, labels = phantom(0, 16)
    cases = [_case(tmp_path, "a", volume, labels), _case(tmp_path, "b", volume, labels)]
    with pytest.raises(InputError, match="case b: its volume is that of case a"):
        write_dataset(tmp_path / "raw", cases)


def test_write_dataset__refuses_what_is_held_out_whatever_its_labels(tmp_path):
    volume, labels = phantom(0, 16)
    held = describe_case(_case(tmp_path, "held", volume, labels, source="real"), LABEL_NAMES)
    holdout = Holdout.freeze([held])
    labels[0, 0, 0] = 1  # corrected since
    cases = [_case(tmp_path, "a", *phantom(1, 16)), _case(tmp_path, "b", volume, labels, source="real")]
    with pytest.raises(InputError, match="case b: its volume is in the frozen hold-out"):
        write_dataset(tmp_path / "raw", cases, holdout=holdout)
    write_dataset(tmp_path / "raw", cases[:1], holdout=holdout)
    assert read_dataset_record(tmp_path / "raw")["holdout"] == holdout.sha256


def test_write_dataset__refuses_pseudo_labels_that_nobody_approved(tmp_path):
    case = _case(tmp_path, "a", *phantom(0, 16), source="pseudo")
    with pytest.raises(InputError, match="case a: a pseudo-label must name the decision"):
        write_dataset(tmp_path / "raw", [case])
    approved = TrainingCase("a", case.volume, case.labels, "pseudo", origin={"approval": "0" * 64})
    write_dataset(tmp_path / "raw", [approved])
    (stored,) = read_dataset_record(tmp_path / "raw")["cases"]
    assert (stored["source"], stored["origin"]) == ("pseudo", {"approval": "0" * 64})


def test_write_dataset__refuses_repeated_and_unusable_identifiers(tmp_path):
    case = _case(tmp_path, "a", *phantom(0, 16))
    with pytest.raises(InputError, match="more than once"):
        write_dataset(tmp_path / "raw", [case, case])
    with pytest.raises(InputError, match="names files"):
        write_dataset(tmp_path / "raw", [TrainingCase("../a", case.volume, case.labels)])
    with pytest.raises(InputError, match="source must be"):
        write_dataset(tmp_path / "raw", [TrainingCase("a", case.volume, case.labels, "forgd")])
    with pytest.raises(InputError, match="validation"):
        cases = [case, _case(tmp_path, "b", *phantom(1, 16))]
        write_dataset(tmp_path / "raw", cases, validation=["c"])
