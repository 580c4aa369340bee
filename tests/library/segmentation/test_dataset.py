"""Data sets: what is written, and every bad pair refused by name."""

import json

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.dataset import TrainingCase, read_dataset_record, write_dataset
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

VOXEL = 2.5e-6  # [m]


def _case(folder, identifier, volume, labels, *, label_voxel=VOXEL, names=LABEL_NAMES):
    write_volume(folder / f"{identifier}-volume.zarr", volume, VOXEL)
    write_labels(folder / f"{identifier}-labels.zarr", labels, label_voxel, names)
    return TrainingCase(
        identifier, folder / f"{identifier}-volume.zarr", folder / f"{identifier}-labels.zarr"
    )


def test_write_dataset__nnunet_reads_back_values_and_spacing(tmp_path):
    import SimpleITK

    volume, labels = phantom(0, 24)
    volume, labels = volume[:20, :22], labels[:20, :22]
    folder = write_dataset(tmp_path / "raw", [_case(tmp_path, "a", volume, labels)])
    image = SimpleITK.ReadImage(str(folder / "imagesTr" / "a_0000.mha"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), volume)
    assert image.GetSpacing() == pytest.approx([2.5] * 3, rel=1e-12)  # µm, decimal text in the file
    stored = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "labelsTr" / "a.mha")))
    np.testing.assert_array_equal(stored, labels)
    assert json.loads((folder / "dataset.json").read_text())["labels"] == LABEL_NAMES


def test_write_dataset__same_cases_give_the_same_bytes(tmp_path):
    cases = [_case(tmp_path, i, *phantom(n, 16)) for n, i in enumerate("ab")]
    one, two = write_dataset(tmp_path / "one", cases), write_dataset(tmp_path / "two", cases)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert len(files) == 7
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


def test_write_dataset__every_fifth_case_validates(tmp_path):
    volume, labels = phantom(0, 16)
    cases = [_case(tmp_path, f"c{n}", volume, labels) for n in range(6)]
    folder = write_dataset(tmp_path / "raw", cases)
    (split,) = json.loads((folder / "splits_final.json").read_text())
    assert split == {"train": ["c0", "c1", "c2", "c3", "c5"], "val": ["c4"]}


def test_write_dataset__fingerprint_spans_the_cases(tmp_path):
    (one, labels), (two, other) = phantom(0, 24), phantom(1, 24)
    write_dataset(tmp_path / "raw", [_case(tmp_path, "a", one, labels), _case(tmp_path, "b", two, other)])
    fingerprint = read_dataset_record(tmp_path / "raw")["fingerprint"]
    tails = sorted(np.percentile(v, 99.5) for v in (one, two))
    assert fingerprint["mu"]["99.5"] == pytest.approx(tails, rel=1e-6)  # float32 volumes
    # Voxels at edges and fringes widen the median difference a little; 24³ holds many of them.
    assert fingerprint["noise"] == pytest.approx([100, 100], rel=0.25)
    assert fingerprint["cases"] == 2


def _nan(volume, labels):
    volume[3, 3, 3] = np.nan
    return volume, labels


def _constant(volume, labels):
    return np.full_like(volume, 700), labels


def _cut(volume, labels):
    return volume, labels[:-1]


@pytest.mark.parametrize(("spoil", "message"), [(_nan, "NaN"), (_constant, "constant"), (_cut, "shape")])
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


def test_write_dataset__refuses_a_label_without_a_name(tmp_path):
    volume, labels = phantom(0, 16)
    labels[0, 0, 0] = 4
    case = _case(tmp_path, "bad", volume, labels, names={**LABEL_NAMES, "ice": 4})
    with pytest.raises(InputError, match=r"case bad: .*got also \[4\]"):
        write_dataset(tmp_path / "raw", [case])


def test_write_dataset__refuses_a_class_that_no_case_shows(tmp_path):
    volume, labels = phantom(0, 16)
    labels[labels == 3] = 1
    with pytest.raises(InputError, match=r"no voxel of \['crystal'\]"):
        write_dataset(tmp_path / "raw", [_case(tmp_path, "a", volume, labels)])


def test_write_dataset__refuses_repeated_and_unusable_identifiers(tmp_path):
    case = _case(tmp_path, "a", *phantom(0, 16))
    with pytest.raises(InputError, match="more than once"):
        write_dataset(tmp_path / "raw", [case, case])
    with pytest.raises(InputError, match="names files"):
        write_dataset(tmp_path / "raw", [TrainingCase("../a", case.volume, case.labels)])
    with pytest.raises(InputError, match="validation"):
        cases = [case, TrainingCase("b", case.volume, case.labels)]
        write_dataset(tmp_path / "raw", cases, validation=["c"])
