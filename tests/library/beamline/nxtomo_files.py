"""Small NXtomo files, right or broken on purpose."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

COUNT, ROWS, COLUMNS = 12, 5, 8  # projections, detector rows and columns
KEYS = np.array([2, 2, 1, 1, 1] + [0] * COUNT)


def frames(dtype: str = "uint16") -> np.ndarray:
    """(frame, y, x) two darks, three flats, projections whose counts name their frame."""
    rng = np.random.default_rng(4)
    stack = np.empty((KEYS.size, ROWS, COLUMNS))
    stack[:2], stack[2:5] = 100, 1000
    stack[5:] = 900 - 20 * np.arange(COUNT)[:, None, None]
    return (stack + rng.integers(0, 9, stack.shape)).astype(dtype)


def angles_deg() -> np.ndarray:
    """(frame,) degrees; references at zero."""
    return np.concatenate([np.zeros(5), np.arange(COUNT) * 180 / COUNT])


def write(path: Path, change: dict[str, Any] | None = None, root: str = "entry") -> Path:
    """An NXtomo file with the datasets of ``change`` replaced.

    None leaves a dataset out; a pair is (value, units).
    """
    contents: dict[str, Any] = {
        "definition": "NXtomo",
        "instrument/detector/data": frames(),
        "instrument/detector/image_key": KEYS,
        "instrument/detector/x_pixel_size": (0.5, "um"),
        "instrument/detector/y_pixel_size": (0.5, "um"),
        "instrument/detector/distance": (5.0, "mm"),
        "sample/rotation_angle": (angles_deg(), "degree"),
        "beam/incident_energy": (5.0, "keV"),
    } | (change or {})
    with h5py.File(path, "a") as file:
        group = file.require_group(root)
        for name, value in contents.items():
            if value is None:
                continue
            if isinstance(value, h5py.ExternalLink | h5py.SoftLink):
                group[name] = value
                continue
            data, unit = value if isinstance(value, tuple) else (value, None)
            group[name] = data
            if unit is not None:
                group[name].attrs["units"] = unit
    return path
