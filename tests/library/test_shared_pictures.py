"""Pictures are PNGs, the same bytes for the same numbers, of any size and any content."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tomoforge import pictures
from tomoforge.volumes import open_level, write_labels, write_volume

VOXEL = 2.5e-6


def labels(shape: tuple[int, int, int] = (9, 12, 15)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, shape, dtype=np.uint8)


def volume(shape: tuple[int, int, int] = (9, 12, 15)) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


DRAWN: dict[str, Callable[[], bytes]] = {
    "labels": lambda: pictures.labels_picture(labels(), VOXEL, "µ"),
    "overlay": lambda: pictures.overlay_picture(volume(), [("a", labels()), ("b", labels())], VOXEL, "t"),
    "uncertainty": lambda: pictures.uncertainty_picture(np.abs(volume()) / 10, labels(), VOXEL, "t"),
    "projection": lambda: pictures.projection_picture(volume()[0], VOXEL, "t"),
    "training": lambda: pictures.training_picture([1, 2], [0.5, 0.1], [0.2, 0.9]),
    "overview": lambda: pictures.overview_picture(
        labels(), volume()[0], volume(), labels(), np.linspace(0.2, 0.9, 50), np.linspace(0.3, 0.9, 50), VOXEL
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_pictures__same_numbers_same_bytes(name: str) -> None:
    first = DRAWN[name]()
    assert first == DRAWN[name]()
    image = Image.open(io.BytesIO(first))
    assert image.format == "PNG" and min(image.size) > 200
    # No version of a program, no time: they would change the bytes.
    assert set(image.info) <= {"dpi"}


def test_pictures__other_numbers_other_bytes() -> None:
    flipped = pictures.labels_picture(labels()[:, ::-1], VOXEL, "µ")
    assert flipped != DRAWN["labels"]()


@pytest.mark.parametrize("voxel_size", [1e-9, 1e-3])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 40)])
def test_pictures__any_size_and_scale(shape: tuple[int, int, int], voxel_size: float) -> None:
    assert pictures.labels_picture(np.zeros(shape, np.uint8), voxel_size, "").startswith(b"\x89PNG")


def test_overlay_picture__empty_labels_and_constant_volume() -> None:
    constant = np.full((4, 5, 6), 3.0, np.float32)
    drawn = pictures.overlay_picture(constant, [("none", np.zeros((4, 5, 6), np.uint8))], VOXEL, "")
    assert drawn.startswith(b"\x89PNG")


def test_overlay_picture__of_what_is_stored_as_of_what_is_in_memory(tmp_path) -> None:
    write_volume(tmp_path / "v.zarr", volume(), VOXEL)
    write_labels(tmp_path / "l.zarr", labels(), VOXEL)
    stored, drawn = open_level(tmp_path / "v.zarr"), open_level(tmp_path / "l.zarr")
    assert pictures.overlay_picture(stored, [("a", drawn), ("b", drawn)], VOXEL, "t") == DRAWN["overlay"]()


def test_grey_range__leaves_out_the_extremes() -> None:
    image = np.concatenate([np.linspace(0, 1, 10_001), [1e6]])
    low, high = pictures.grey_range(image)
    assert low == pytest.approx(0.005, abs=1e-3) and high == pytest.approx(0.995, abs=1e-3)
    assert pictures.grey_range(np.full(5, 2.0)) == (2.0, 3.0)
