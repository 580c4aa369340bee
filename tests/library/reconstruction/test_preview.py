"""Pictures for people."""

import io

import numpy as np
import pytest
from PIL import Image

from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction.preview import sinogram_picture, slice_pictures


def volume() -> np.ndarray:
    z, y, x = np.mgrid[:20, :30, :40]
    return ((x - 20) ** 2 + (y - 15) ** 2 < 60).astype(np.float32) * (500 + 10 * z)


def test_slice_pictures__are_png_and_the_same_bytes_every_time() -> None:
    first, second = slice_pictures(volume(), 5e-7, "sample"), slice_pictures(volume(), 5e-7, "sample")
    assert list(first) == ["axial", "coronal", "sagittal"]
    assert first == second
    for data in first.values():
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.format == "PNG"
            assert image.size[0] > 500
            assert not {"Software", "Creation Time", "date"} & set(image.info)


def test_slice_pictures__differ_where_volume_or_scale_do() -> None:
    one = slice_pictures(volume(), 5e-7)
    assert one["axial"] != slice_pictures(volume(), 3e-6)["axial"]
    assert one["axial"] != slice_pictures(volume()[:, ::-1, ::-1] * 2, 5e-7)["axial"]


def test_slice_pictures__an_empty_volume_still_has_a_picture() -> None:
    assert slice_pictures(np.zeros((1, 4, 4), np.float32), 1e-6)["axial"][:4] == b"\x89PNG"


def test_sinogram_picture__is_a_png_with_angles() -> None:
    data = sinogram_picture(np.random.default_rng(0).normal(size=(30, 50)), uniform_angles(30), "row 3")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"


def test_pictures__refuse_with_the_reason() -> None:
    with pytest.raises(InputError, match="not finite"):
        slice_pictures(np.full((2, 2, 2), np.nan), 1e-6)
    with pytest.raises(InputError, match=r"\(z, y, x\)"):
        slice_pictures(np.ones((2, 2)), 1e-6)
    with pytest.raises(InputError, match="voxel_size"):
        slice_pictures(volume(), 0.0)
    with pytest.raises(InputError, match="one row for each of 3 angles"):
        sinogram_picture(np.ones((2, 2)), uniform_angles(3))
