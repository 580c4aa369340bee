"""Reconstruct a scan, slab by slab on the workers: kind ``volumes``."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress
from tasks.quick_looks import CENTRE, SINOGRAM, STEERING, TRIED, open_scan, read_settled, settle_scan
from tasks.scans import SCAN
from tomoforge.config import ReconstructionSettings
from tomoforge.exports import ExportFormat, export_volume
from tomoforge.reconstruction.memory import frames_at_once, rows_at_once
from tomoforge.reconstruction.pipeline import (
    SlabReport,
    StoredFrames,
    needs_whole_frames,
    prepare_frames,
    reconstruct_rows,
)
from tomoforge.reconstruction.recipe import Recipe, Settled, slice_width
from tomoforge.reconstruction.stored import stored_percentiles, stored_quality
from tomoforge.scan import Scan, batch_name, batch_slices, write_frame_batch
from tomoforge.storage import Artefact, Workspace, write_bytes_atomic, write_json_atomic
from tomoforge.volumes import SLAB, create_volume, finish_volume, read_voxel_size, write_slab

__all__ = ["CENTRE", "QUALITY", "SINOGRAM", "TRIED", "VOLUME", "export", "reconstruct"]

VOLUME = "volume.ome.zarr"
QUALITY = "quality.json"
PERCENTAGES = (1.0, 50.0, 99.0)
_FRAMES = "frames"  # filtered frames, while the volume is in the making
_TIMEOUT_S = 24 * 3600.0  # all slabs together


@task(name="reconstruct", **OPTIONS)
def reconstruct(
    compute: Compute, workspace: Workspace, scan: Artefact, *, settings: ReconstructionSettings, name: str
) -> Artefact:
    """Attenuation volume [1/m] of a scan in the workspace."""
    source, asked = str(workspace.path(scan) / SCAN), settings.model_dump_json()

    def build(folder: Path) -> None:
        if (folder / QUALITY).exists():  # killed between the last step and the end
            shutil.rmtree(folder / _FRAMES, ignore_errors=True)
            return
        look = workspace.path(settle_scan(compute, workspace, scan, settings=settings, name=name))
        for file in (CENTRE, SINOGRAM, TRIED):
            if (look / file).exists():
                write_bytes_atomic(folder / file, (look / file).read_bytes())
        record, recipe, settled = open_scan(source), Recipe.of(settings), read_settled(look)
        if recipe.slab_rows is None:
            rows_at_once(record, recipe, settled)  # too little memory must be said before the work begins
        batches = _filter_frames(compute, record, recipe, settled, (source, asked, str(look)), folder, name)
        width = slice_width(record.projections.shape[2], settled)
        create_volume(folder / VOLUME, (record.projections.shape[1], width, width), record.pixel_size)
        pieces = [
            (source, asked, str(look), start, batches, str(folder))
            for start in range(0, record.projections.shape[1], SLAB)
            if not _slab_report(folder, start).exists()
        ]
        _slab_report(folder, 0).parent.mkdir(exist_ok=True)
        bar = StageProgress(f"{name}: slabs reconstructed")
        compute.map(_reconstruct_slab, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        finish_volume(folder / VOLUME)
        # Written last: it says that the volume is whole.
        compute.run(_measure, source, asked, str(look), batches, str(folder), timeout_s=_TIMEOUT_S)
        shutil.rmtree(folder / _FRAMES, ignore_errors=True)

    return produce(
        workspace,
        "volumes",
        "volume",
        parameters=settings.model_dump(exclude=STEERING),
        inputs={"scan": scan},
        packages=("reconstruction", "beamline"),
        build=build,
        resumable=True,
    )


def _filter_frames(
    compute: Compute,
    scan: Scan,
    recipe: Recipe,
    settled: Settled,
    where: tuple[str, str, str],
    folder: Path,
    name: str,
) -> tuple[str, ...]:
    """Run the steps that need whole frames, batches of angles on the workers; the batch files, none if not needed."""
    if not needs_whole_frames(recipe, settled):
        return ()
    place = folder / _FRAMES
    batches = batch_slices(scan.projections.shape[0], frames_at_once(scan, recipe))
    paths = tuple(str(place / batch_name(batch)) for batch in batches)
    pieces = [
        (*where, batch.start, batch.stop, path)
        for batch, path in zip(batches, paths, strict=True)
        if not Path(path).with_suffix(".json").exists()
    ]
    bar = StageProgress(f"{name}: batches of whole frames filtered")
    compute.map(_filter_batch, pieces, timeout_s=_TIMEOUT_S, progress=bar)
    return paths


def _filter_batch(source: str, settings_json: str, look: str, start: int, stop: int, path: str) -> None:
    recipe = Recipe.of(ReconstructionSettings.model_validate_json(settings_json))
    frames, report = prepare_frames(open_scan(source), slice(start, stop), recipe, read_settled(look))
    write_frame_batch(path, frames)
    # Written last: it says that the batch is whole.
    write_json_atomic(Path(path).with_suffix(".json"), asdict(report))


def _slab_report(folder: Path, start: int) -> Path:
    return folder / "slabs" / f"{start}.json"


def _reconstruct_slab(
    source: str, settings_json: str, look: str, start: int, batches: tuple[str, ...], folder: str
) -> None:
    scan = open_scan(source)
    recipe = Recipe.of(ReconstructionSettings.model_validate_json(settings_json))
    stop = min(start + SLAB, scan.projections.shape[1])
    frames = StoredFrames(batches) if batches else None
    slab, report = reconstruct_rows(scan, start, stop, recipe, read_settled(look), frames=frames)
    write_slab(Path(folder) / VOLUME, start, slab)
    # Written last: it says that the slab is whole.
    write_json_atomic(_slab_report(Path(folder), start), _told(report))


def _measure(source: str, settings_json: str, look: str, batches: tuple[str, ...], folder: str) -> None:
    """Quality, percentiles of µ, and the sums over slabs and batches: ``quality.json``."""
    recipe = Recipe.of(ReconstructionSettings.model_validate_json(settings_json))
    place, settled = Path(folder), read_settled(look)
    frames = StoredFrames(batches) if batches else None
    quality = stored_quality(place / VOLUME, open_scan(source), recipe, settled, frames=frames)
    slabs = [json.loads(path.read_text()) for path in sorted((place / "slabs").glob("*.json"))]
    total = {name: sum(slab[name] for slab in slabs) for name in _told(SlabReport())}
    for path in batches:
        part = _told(SlabReport(**json.loads(Path(path).with_suffix(".json").read_text())))
        total = {name: total[name] + part[name] for name in total}
    numbers = {name: None if value != value else value for name, value in asdict(quality).items()}
    write_json_atomic(
        place / QUALITY,
        {**numbers, **total, "percentiles_per_m": stored_percentiles(place / VOLUME, PERCENTAGES)},
    )


def _told(report: SlabReport) -> dict[str, int]:
    return {
        "clipped_pixels": report.clipped,
        "zingers": report.zingers,
        "repaired_pixels": report.repaired,
    }


@task(name="export-volume", **OPTIONS)
def export(workspace: Workspace, volume: Artefact, *, format: ExportFormat, name: str) -> Artefact:
    """A volume once more, as TIFF slices or NRRD: kind ``volumes``, beside the volume so that neither is made twice."""
    source = workspace.path(volume) / VOLUME

    def build(folder: Path) -> None:
        bar = StageProgress(f"{name}: slices exported")
        export_volume(source, folder, format, read_voxel_size(source), progress=bar)

    return produce(
        workspace,
        "volumes",
        "export",
        parameters={"format": format, "layout": 1},
        inputs={"volume": volume},
        packages=("reconstruction",),
        build=build,
    )
