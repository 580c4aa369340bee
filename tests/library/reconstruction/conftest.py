"""Fixtures of the reconstruction tests."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tomoforge.scan import Scan


@pytest.fixture(scope="session")
def real_scan(shared_data: Path) -> Scan:
    """diamond_24737: a grain, liquid and a bubble in a capillary. Energy and pixel size are made up."""
    with h5py.File(shared_data / "scans" / "diamond_24737.nxs") as file:
        entry = file["entry/tomo_entry"]
        frames, keys = entry["data/data"][()], entry["data/image_key"][()]
        angles = np.radians(entry["data/rotation_angle"][()])
    return Scan(frames[keys == 0], frames[keys == 1], frames[keys == 2], angles[keys == 0], 20.0, 5e-6)
