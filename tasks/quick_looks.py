"""What a scan settles before it is reconstructed, and a few slices of it: kind ``volumes``, stage ``quick-look``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import say
from tasks.scans import SCAN
from tomoforge.beamline import read_scan
from tomoforge.config import ReconstructionSettings
from tomoforge.reconstruction.air import AirLevels
from tomoforge.reconstruction.centre import CentreEstimate, try_centres
from tomoforge.reconstruction.preview import axial_pictures, centres_picture, sinogram_picture
from tomoforge.reconstruction.quick_look import centres_to_try, quick_look
from tomoforge.reconstruction.recipe import Recipe, Settled, settle
from tomoforge.scan import Scan
from tomoforge.storage import Artefact, Workspace, replacing, write_bytes_atomic, write_json_atomic

CENTRE = "centre.json"
ARRAYS = "settled.npz"
SINOGRAM = "sinogram.png"
TRIED = "centres.png"
LOOK = "look.json"
_TIMEOUT_S = 3600.0

# They decide how the work is done, what is shown and what else is written, not what µ is.
STEERING = {"slab_rows", "memory_gib", "export", "preview", "centre_figure"}


@task(name="quick-look", **OPTIONS)
def look_ahead(
    compute: Compute, workspace: Workspace, scan: Artefact, *, settings: ReconstructionSettings, name: str
) -> Artefact:
    """Axis, tilt, air and a few slices of a scan in the workspace, before the whole."""
    return settle_scan(compute, workspace, scan, settings=settings, name=name)


def settle_scan(
    compute: Compute, workspace: Workspace, scan: Artefact, *, settings: ReconstructionSettings, name: str
) -> Artefact:
    """As ``look_ahead``, within a task that needs it."""
    source, asked = str(workspace.path(scan) / SCAN), settings.model_dump_json()

    def build(folder: Path) -> None:
        if not (folder / CENTRE).exists():
            compute.run(_settle, source, asked, str(folder), timeout_s=_TIMEOUT_S)
        say(f"{name}: {_told(json.loads((folder / CENTRE).read_text()))}")
        compute.run(_look, source, asked, str(folder), timeout_s=_TIMEOUT_S)

    return produce(
        workspace,
        "volumes",
        "quick-look",
        parameters=settings.model_dump(exclude=STEERING - {"centre_figure"}),
        inputs={"scan": scan},
        packages=("reconstruction", "beamline"),
        build=build,
        resumable=True,
    )


def open_scan(path: str | Path) -> Scan:
    """A scan of the workspace. What it may lack was waived, or refused, when it was brought in."""
    return read_scan(path, allow_missing=("flats", "darks"))


def read_settled(folder: str | Path) -> Settled:
    """What ``settle`` found, as a quick look stored it in ``folder``."""
    centre = json.loads((Path(folder) / CENTRE).read_text())
    with np.load(Path(folder) / ARRAYS, allow_pickle=False) as arrays:
        stand_ins = arrays["stand_ins"]
        wild = arrays.get("wild")
        coefficients = arrays.get("air")
    air = None if coefficients is None else AirLevels(coefficients, **centre["air"])
    estimate = CentreEstimate(
        centre=centre["centre_px"],
        spread=centre["spread_px"],
        agreed=centre["agreed"],
        rows=tuple(centre["rows"]),
        by_row=tuple(centre["by_row_px"]),
        opposite=centre["opposite_px"],
        bounds=tuple(centre["bounds_px"]),
    )
    return Settled(
        estimate,
        centre["given"],
        centre["turn"],
        centre["tilt_rad"],
        air,
        wild,
        stand_ins,
        centre["distance_m"],
    )


def _write_settled(folder: Path, scan: Scan, settled: Settled) -> None:
    arrays = {"stand_ins": settled.stand_ins}
    if settled.wild is not None:
        arrays["wild"] = settled.wild
    air: dict[str, Any] | None = None
    if settled.air is not None:
        arrays["air"] = settled.air.coefficients
        air = {name: value for name, value in asdict(settled.air).items() if name != "coefficients"}
    with replacing(folder / ARRAYS) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    estimate = settled.centre
    # Written last: it says that all is there.
    write_json_atomic(
        folder / CENTRE,
        {
            "centre_px": float(estimate.centre),
            "spread_px": float(estimate.spread),
            "agreed": bool(estimate.agreed),
            "given": settled.given,
            "rows": list(estimate.rows),
            "by_row_px": [float(column) for column in estimate.by_row],
            "opposite_px": None if estimate.opposite is None else float(estimate.opposite),
            "bounds_px": [float(column) for column in estimate.bounds],
            "turn": settled.turn,
            "tilt_rad": float(settled.tilt),
            "distance_m": float(settled.distance),  # of Paganin's filter
            "scan_distance_m": float(scan.propagation_distance or 0.0),
            "energy_kev": float(scan.energy_kev),
            "pixel_size_m": float(scan.pixel_size),
            "pixels": int(np.prod(scan.projections.shape)),
            "air": air,
            "air_level": None if settled.air is None else settled.air.median,
            "wild_pixels": 0 if settled.wild is None else int(np.count_nonzero(settled.wild)),
        },
    )


def _settle(source: str, settings_json: str, folder: str) -> None:
    recipe = Recipe.of(ReconstructionSettings.model_validate_json(settings_json))
    scan = open_scan(source)
    _write_settled(Path(folder), scan, settle(scan, recipe))


def _look(source: str, settings_json: str, folder: str) -> None:
    settings = ReconstructionSettings.model_validate_json(settings_json)
    scan, recipe, place = open_scan(source), Recipe.of(settings), Path(folder)
    settled = read_settled(folder)
    look = quick_look(scan, recipe, settled)
    for name, png in axial_pictures(look.slices, look.rows, scan.pixel_size).items():
        write_bytes_atomic(place / f"{name}.png", png)
    middle = look.rows[len(look.rows) // 2]
    picture = sinogram_picture(look.sinogram, look.angles, f"detector row {middle}, as back-projected")
    write_bytes_atomic(place / SINOGRAM, picture)
    tried: tuple[float, ...] = ()
    doubtful = settings.centre_figure == "auto" and not settled.centre.agreed
    if settings.centre_figure == "always" or doubtful:
        tried = centres_to_try(settled.centre, scan.projections.shape[2])
        row = settled.centre.rows[len(settled.centre.rows) // 2] if settled.centre.rows else middle
        slices = try_centres(scan, tried, row)
        write_bytes_atomic(place / TRIED, centres_picture(slices, tried, settled.centre.centre, row))
    write_json_atomic(
        place / LOOK, {"rows": list(look.rows), "sinogram_row": middle, "tried_px": list(tried)}
    )


def _told(centre: dict[str, Any]) -> str:
    """The axis in a line for the person at the terminal."""
    agreement = "" if centre["agreed"] else ", and the rows disagree: check it"
    tilt = f", tilt {np.degrees(centre['tilt_rad']):.3f}°" if centre["tilt_rad"] else ""
    turn = "" if centre["turn"] == "half turn" else f", {centre['turn']}"
    return f"rotation centre {centre['centre_px']:.2f} px (spread {centre['spread_px']:.2f}){tilt}{turn}{agreement}"
