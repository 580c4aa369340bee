"""What lies beside a scan in the inbox: label volumes and DIALS files, each an artefact or refused alone."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tasks.artefacts import produce
from tasks.progress import say
from tasks.samples import LABELS
from tasks.volumes import VOLUME
from tomoforge.beamline.companions import check_dials, companion_kind, read_label_companion
from tomoforge.beamline.findings import Refused
from tomoforge.beamline.ledger import CompanionOutcome, shown
from tomoforge.errors import StorageError
from tomoforge.storage import Artefact, Workspace, file_checksum, to_json
from tomoforge.units import um_to_m
from tomoforge.volumes import open_level, write_labels


def take_companions(
    workspace: Workspace, inbox: Path, companions: Sequence[Path], raw: Artefact, volume: Artefact | None
) -> tuple[CompanionOutcome, ...]:
    """What becomes of each companion of the scan ``raw``; one that is refused is refused alone."""
    found = []
    for path in companions:
        kind = companion_kind(path)
        name = str(path.relative_to(inbox))
        take = _take_dials if kind == "dials" else _take_labels
        try:
            made = take(workspace, path, raw, volume)
            found.append(CompanionOutcome(name, kind, made.key))
        except Refused as error:  # alone: its scan is none the worse
            say(f"{shown(name)}: refused, {error}")
            found.append(CompanionOutcome(name, kind, None, error.finding))
    return tuple(found)


def _take_dials(workspace: Workspace, path: Path, raw: Artefact, volume: Artefact | None) -> Artefact:
    """DIALS's file, byte for byte: kind ``corrections``."""
    check_dials(path)
    checksum = file_checksum(path)

    def build(folder: Path) -> None:
        (folder / path.name).write_bytes(path.read_bytes())
        if file_checksum(folder / path.name) != checksum:
            raise StorageError(f"the copy of {path} differs from it; did it change while being read?")

    return produce(
        workspace,
        "corrections",
        "companion-dials",
        parameters={"name": path.name},
        inputs={"scan": raw, "file": checksum},
        packages=("beamline",),
        build=build,
    )


def _take_labels(workspace: Workspace, path: Path, raw: Artefact, volume: Artefact | None) -> Artefact:
    """Labels that a person or another program made of the sample: kind ``labels``."""
    voxel_size = um_to_m(float(workspace.read_provenance(raw)["parameters"]["pixel_size_um"]))
    shape: tuple[int, int, int] | None = None
    if volume is not None:
        z, y, x = open_level(workspace.path(volume) / VOLUME).shape
        shape = (z, y, x)
    labels = read_label_companion(path, voxel_size, shape=shape)
    return produce(
        workspace,
        "labels",
        "companion-labels",
        parameters={"voxel_size_m": voxel_size},
        inputs={"scan": raw, "file": checksum_of(path)},
        packages=("beamline",),
        build=lambda folder: write_labels(folder / LABELS, labels, voxel_size),
    )


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder and their names."""
    if path.is_file():
        return file_checksum(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    parts = [[str(file.relative_to(path)), file_checksum(file)] for file in files]
    return hashlib.sha256(to_json(parts).encode()).hexdigest()
