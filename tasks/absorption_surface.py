"""The absorption surface: A over all directions of the diffracted ray, for the beam in the middle of the sweep."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prefect import task

from tasks.absorption import beam_profile
from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.reflections import read_reflection_set
from tasks.samples import LABELS
from tomoforge.absorption.orientation import Orientation
from tomoforge.absorption.surface import absorption_surface, surface_picture
from tomoforge.config import TracingSettings
from tomoforge.errors import InputError
from tomoforge.results import Picture
from tomoforge.storage import Artefact, Workspace, replacing, write_bytes_atomic, write_json_atomic
from tomoforge.volumes import LABEL_NAMES, read_labels

SURFACE, PICTURE, RECORD = "surface.npy", "surface.png", "surface.json"
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class _Beam:
    """direction : (3,) unit vector (z, y, x) in the sample frame; angle : [rad], of the goniometer; reach : [rad],
    largest scattering angle of the data."""

    direction: np.ndarray
    angle: float
    reach: float


@task(name="absorption-surface", **OPTIONS)
def draw_surface(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    reflections: Artefact,
    *,
    mu: Mapping[str, float],
    orientation: Orientation,
    tracing: TracingSettings,
    seed: int,
) -> Artefact:
    """A over the sphere through ``labels``, as numbers (2, row, column) and as a picture: kind ``corrections``.

    The arguments are those of ``tasks.absorption.correct``.
    """
    source = str(workspace.path(labels) / LABELS)
    beam = _middle_beam(workspace, reflections, orientation)
    by_label = {LABEL_NAMES[label]: value for label, value in mu.items()}

    def build(folder: Path) -> None:
        pieces = (source, by_label, beam, tracing.model_dump_json(), seed, str(folder))
        compute.run(_surface_piece, *pieces, timeout_s=_TIMEOUT_S)

    return produce(
        workspace,
        "corrections",
        "surface",
        parameters={
            "mu": dict(mu),
            "beam": beam.direction.tolist(),
            "angle_rad": beam.angle,
            "reach_rad": beam.reach,
            "beam_size_um": [tracing.beam_height_um, tracing.beam_width_um],
            "seed": seed,
            "layout": 1,
        },
        inputs={"labels": labels},
        packages=("absorption",),
        build=build,
    )


def _middle_beam(workspace: Workspace, reflections: Artefact, orientation: Orientation) -> _Beam:
    """The beam of the reflection in the middle of the sweep, and how far from the beams all data reach."""
    found = read_reflection_set(workspace, reflections)
    incoming, outgoing = found.rays()
    angle = found.table["angle_rad"].to_numpy()
    middle = int(np.argsort(angle, kind="stable")[len(angle) // 2])
    cosine = np.clip(np.sum(incoming * outgoing, axis=1).min(), -1.0, 1.0)
    return _Beam(orientation.to_array(incoming[middle]), float(angle[middle]), float(np.arccos(cosine)))


def _surface_piece(
    labels_path: str, mu: dict[int, float], beam: _Beam, tracing_json: str, seed: int, folder: str
) -> None:
    labels, voxel_size = read_labels(labels_path)
    tracing = TracingSettings.model_validate_json(tracing_json)
    place, said = Path(folder), None
    try:
        surface = absorption_surface(
            labels, voxel_size, mu, beam.direction, profile=beam_profile(tracing), seed=seed
        )
    except InputError as error:  # some direction that no reflection takes is no reason to stop
        said = f"the absorption surface could not be drawn: {error}"
    else:
        with replacing(place / SURFACE) as temporary, open(temporary, "wb") as file:
            np.save(file, surface)
        write_bytes_atomic(place / PICTURE, surface_picture(surface, beam.direction, reach=beam.reach))
    write_json_atomic(
        place / RECORD,
        {"angle_deg": np.degrees(beam.angle), "beam_zyx": beam.direction.tolist(), "warning": said},
    )


def read_surface(workspace: Workspace, surface: Artefact) -> tuple[Picture | None, str | None]:
    """The picture of ``draw_surface`` with its caption, None where there is none; and why there is none."""
    folder = workspace.path(surface)
    record = json.loads((folder / RECORD).read_text())
    if record["warning"] is not None:
        return None, record["warning"]
    caption = (
        f"A for the beam in the middle of the sweep (goniometer at {record['angle_deg']:.1f}°) and every direction of "
        "the diffracted ray, in the frame of the labels: z is the tomogram's rotation axis. Hemispheres about +z, "
        "facing you, and about −z, seen through the first; equal areas are equal solid angles. × is straight on and + "
        "straight back; as the sample turns they wander with the beam. The data lie within the dashed line, the "
        "largest 2θ."
    )
    return Picture((folder / PICTURE).read_bytes(), caption), None
