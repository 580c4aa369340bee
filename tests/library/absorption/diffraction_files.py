"""Reflection tables and experiment files made by hand, in the formats' own terms."""

import copy
import json
from pathlib import Path

import msgpack
import numpy as np
import pandas as pd

from tomoforge.absorption.goniometer import Beam, Crystal, Experiment, Goniometer, Sweep
from tomoforge.absorption.twin import rotation_experiment

IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]

# As DIALS 3 lays it out after indexing: one sweep of 1800 images of 0.1° about x, the source along +z.
EXPERIMENT_LIST = {
    "__id__": "ExperimentList",
    "experiment": [
        {
            "__id__": "Experiment",
            "identifier": "4f1c2a6e-0000-4000-8000-00000000000a",
            "beam": 0,
            "detector": 0,
            "goniometer": 0,
            "scan": 0,
            "crystal": 0,
            "profile": 0,
            "imageset": 0,
        }
    ],
    "imageset": [{"__id__": "ImageSequence", "template": "sweep_1_#####.cbf", "mask": "", "params": {}}],
    "beam": [
        {
            "__id__": "monochromatic",
            "direction": [0.0, 0.0, 1.0],
            "wavelength": 3.1,
            "divergence": 0.0,
            "sigma_divergence": 0.0,
            "polarization_normal": [0.0, 1.0, 0.0],
            "polarization_fraction": 0.999,
            "flux": 0.0,
            "transmission": 1.0,
            "probe": "x-ray",
        }
    ],
    "detector": [{"panels": [{"name": "Panel", "origin": [-120.0, 130.0, -180.0]}], "hierarchy": {}}],
    "goniometer": [
        {"rotation_axis": [1.0, 0.0, 0.0], "fixed_rotation": IDENTITY, "setting_rotation": IDENTITY}
    ],
    "scan": [
        {
            "image_range": [1, 1800],
            "batch_offset": 0,
            "oscillation": [0.0, 0.1],
            "exposure_time": [0.1] * 1800,
            "epochs": [0.0] * 1800,
            "valid_image_ranges": {},
        }
    ],
    "crystal": [
        {
            "__id__": "crystal",
            "real_space_a": [60.0, 0.0, 0.0],
            "real_space_b": [0.0, 0.0, -70.0],
            "real_space_c": [0.0, 80.0, 0.0],
            "space_group_hall_symbol": " P 2ac 2ab",
        }
    ],
    "profile": [{"__id__": "gaussian_rs", "n_sigma": 3}],
    "scaling_model": [],
}


def experiment_list() -> dict:
    """A copy to change."""
    return copy.deepcopy(EXPERIMENT_LIST)


def write_expt(path: Path, document: dict) -> Path:
    path.write_text(json.dumps(document))
    return path


def refl_bytes(columns: dict, n_rows: int, *, version: int = 2, identifiers: dict | None = None) -> bytes:
    """A reflection file from column → (type, array or bytes)."""
    data = {}
    for name, (kind, values) in columns.items():
        content = values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()
        data[name] = [kind, [n_rows, content]]
    header = {"identifiers": identifiers or {0: "a"}, "nrows": n_rows, "data": data}
    return msgpack.packb(["dials::af::reflection_table", version, header])


def integrated_columns(n: int = 6) -> dict:
    """The columns of an integrated reflection table, ``n`` rows all good, s1 of length 1."""
    rng = np.random.default_rng(5)
    s1 = rng.normal(size=(n, 3))
    s1 /= np.linalg.norm(s1, axis=1, keepdims=True)
    xyz = np.column_stack([np.full((n, 2), 10.0), np.linspace(0.1, 1.0, n)])
    return {
        "miller_index": ("cctbx::miller::index<>", rng.integers(1, 9, (n, 3)).astype("<i4")),
        "intensity.prf.value": ("double", np.linspace(10, 20, n)),
        "intensity.prf.variance": ("double", np.full(n, 4.0)),
        "intensity.sum.value": ("double", np.linspace(11, 21, n)),
        "intensity.sum.variance": ("double", np.full(n, 9.0)),
        "lp": ("double", np.full(n, 0.5)),
        "qe": ("double", np.full(n, 0.8)),
        "partiality": ("double", np.full(n, 0.96)),
        "flags": ("std::size_t", np.full(n, (1 << 8) | (1 << 9), dtype="<u8")),
        "id": ("int", np.zeros(n, dtype="<i4")),
        "s1": ("vec3<double>", s1),
        "xyzcal.mm": ("vec3<double>", xyz),
        "xyzcal.px": ("vec3<double>", xyz * [1, 1, 100]),
        "shoebox": ("Shoebox<>", b"\x00\x01opaque\xff"),
    }


def twin_experiment(frame: np.ndarray, **changes) -> tuple[Experiment, pd.DataFrame, object]:
    """A synthetic sweep in a laboratory turned by ``frame``: (Experiment, observations, the twin's reflections).

    The twin knows the sample frame alone: beam along +y at angle 0, sample turning by −φ about z. ``frame`` takes
    (x, y, z) of that to the laboratory's.
    """
    arguments = {
        "cell": (31.0, 37.0, 45.0, 90.0, 103.0, 90.0),
        "space_group": "P 1 21 1",
        "orientation": np.eye(3),
        "wavelength": 3.1e-10,
        "resolution": 4.5e-10,
        "rotation_range": (0.2, 2.4),
    } | changes
    twin = rotation_experiment(**arguments)
    wavelength = twin.wavelength * 1e10
    q = (twin.outgoing - twin.incoming)[:, ::-1] / wavelength  # (x, y, z) at angle 0
    matrix = np.linalg.lstsq(twin.hkl.astype(float), q, rcond=None)[0].T
    start, stop = arguments["rotation_range"]
    width = np.radians(0.1)
    experiment = Experiment(
        Beam(frame @ [0, 1, 0], twin.wavelength),
        Goniometer(frame @ [0, 0, -1], np.eye(3), np.eye(3)),
        Sweep((1, int(np.ceil((stop - start) / width))), start, width),
        Crystal(frame @ matrix, arguments["space_group"]),
    )
    table = pd.DataFrame(dict(zip("hkl", twin.hkl.T, strict=True)))
    table = table.assign(intensity=100.0, sigma=1.0, angle_rad=twin.angle, d_angstrom=twin.spacing * 1e10)
    return experiment, table, twin
