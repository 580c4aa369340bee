"""Reconstruct a scan, slab by slab on the workers: kind ``volumes``."""

import json
from pathlib import Path

from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress, say
from tasks.scans import SCAN
from tomoforge.beamline import read_scan
from tomoforge.config import ReconstructionSettings
from tomoforge.errors import InputError
from tomoforge.reconstruction import fbp, find_centre, line_integrals, normalise
from tomoforge.reconstruction.fbp import Filter
from tomoforge.storage import Artefact, Workspace, write_json_atomic
from tomoforge.volumes import SLAB, create_volume, finish_volume, write_slab

VOLUME = "volume.ome.zarr"
CENTRE = "centre.json"
_TIMEOUT_S = 3600.0


@task(name="reconstruct", **OPTIONS)
def reconstruct(
    compute: Compute, workspace: Workspace, scan: Artefact, *, settings: ReconstructionSettings, name: str
) -> Artefact:
    """Attenuation volume [1/m] of a scan in the workspace."""
    source = str(workspace.path(scan) / SCAN)

    def build(folder: Path) -> None:
        record = read_scan(source)
        rows, columns = record.projections.shape[1:]
        if not (folder / CENTRE).exists():
            estimate = compute.run(_find_centre, source, settings.rotation_centre, timeout_s=_TIMEOUT_S)
            write_json_atomic(folder / CENTRE, estimate)
        centre = json.loads((folder / CENTRE).read_text())
        agreement = "" if centre["agreed"] else ", and the rows disagree: check it"
        say(
            f"{name}: rotation centre {centre['centre_px']:.2f} px (spread {centre['spread_px']:.2f}){agreement}"
        )
        create_volume(folder / VOLUME, (rows, columns, columns), record.pixel_size)
        done = folder / "slabs"
        done.mkdir(exist_ok=True)
        starts = [s for s in range(0, rows, SLAB) if not (done / f"{s}.json").exists()]
        pieces = [
            (source, start, min(start + SLAB, rows), centre["centre_px"], settings.filter, str(folder))
            for start in starts
        ]
        bar = StageProgress(f"{name}: slabs reconstructed")
        compute.map(_reconstruct_slab, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        finish_volume(folder / VOLUME)

    return produce(
        workspace,
        "volumes",
        "volume",
        parameters=settings.model_dump(),
        inputs={"scan": scan},
        packages=("reconstruction", "beamline"),
        build=build,
        resumable=True,
    )


def _find_centre(path: str, given: float | None) -> dict:
    scan = read_scan(path)
    if given is not None:
        columns = scan.projections.shape[2]
        if not 0 <= given <= columns - 1:
            raise InputError(
                f"rotation_centre must be a column of the detector, 0 to {columns - 1}, got {given}"
            )
        return {"centre_px": given, "spread_px": 0.0, "agreed": True, "given": True}
    estimate = find_centre(scan)
    return {
        "centre_px": float(estimate.centre),
        "spread_px": float(estimate.spread),
        "agreed": bool(estimate.agreed),
        "given": False,
    }


def _reconstruct_slab(
    path: str, start: int, stop: int, centre: float, filter_name: Filter, folder: str
) -> None:
    scan = read_scan(path)
    transmission = normalise(scan.rows(start, stop), scan.flats[:, start:stop], scan.darks[:, start:stop])
    integrals, clipped = line_integrals(transmission)
    slab = fbp(integrals, scan.angles, scan.pixel_size, centre, filter_name)
    write_slab(Path(folder) / VOLUME, start, slab)
    # Written last: it says that the slab is whole.
    write_json_atomic(Path(folder) / "slabs" / f"{start}.json", {"clipped_pixels": int(clipped)})
