"""Tiny scans for inboxes, right or broken on purpose, and what an inbox holds."""

import hashlib
import os
from pathlib import Path

import h5py
import numpy as np

ANGLES, ROWS, COLUMNS = 25, 12, 16


def tiny_scan(path: Path, seed: int, **change: object) -> Path:
    """An NXtomo file of a noisy absorbing block with air beside it; another one for each ``seed``."""
    rng = np.random.default_rng(seed)
    x = np.arange(COLUMNS) - (COLUMNS - 1) / 2
    angles = np.linspace(0.0, 180.0, ANGLES)
    offset = 1.5 * np.cos(np.radians(angles))[:, None]
    thickness = np.sqrt(np.clip(16.0 - (x[None, :] - offset) ** 2, 0, None)) / 4
    sample = 100 + rng.poisson(8000 * np.exp(-np.repeat(thickness[:, None, :], ROWS, axis=1)))
    flats = 100 + rng.poisson(8000, (3, ROWS, COLUMNS))
    darks = 98 + rng.integers(0, 5, (3, ROWS, COLUMNS))
    contents: dict[str, object] = {
        "definition": "NXtomo",
        "instrument/detector/data": np.concatenate([darks, flats, sample]).astype(np.uint16),
        "instrument/detector/image_key": np.array([2] * 3 + [1] * 3 + [0] * ANGLES),
        "sample/rotation_angle": np.concatenate([np.zeros(6), angles]),
        "beam/incident_energy": 12.0,
        "instrument/detector/x_pixel_size": 2.0,
        "instrument/detector/y_pixel_size": 2.0,
    } | change
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        for name, value in contents.items():
            if value is not None:
                entry[name] = value
        for name, unit in (
            ("sample/rotation_angle", "degree"),
            ("beam/incident_energy", "keV"),
            ("instrument/detector/x_pixel_size", "um"),
            ("instrument/detector/y_pixel_size", "um"),
        ):
            if isinstance(entry.get(name), h5py.Dataset):
                entry[name].attrs["units"] = unit
    return path


def tree(folder: Path) -> dict[str, tuple]:
    """Everything under a folder: kind, size, times of change, and the bytes of ordinary files."""
    found: dict[str, tuple] = {}
    for place in sorted(folder.rglob("*")):
        status = place.lstat()
        small = place.is_file() and not place.is_symlink() and status.st_size < 1 << 20
        content = hashlib.sha256(place.read_bytes()).hexdigest() if small else ""
        target = os.readlink(place) if place.is_symlink() else ""
        found[str(place.relative_to(folder))] = (
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            content,
            target,
        )
    return found
