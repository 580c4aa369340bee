"""Take entries out of the inbox, each only after its copy in the workspace was compared with it once more."""

import os
import shutil
import time
from pathlib import Path

from prefect import task

from tasks.artefacts import OPTIONS
from tasks.companions import checksum_of
from tasks.inbox import ledger_of, open_inbox
from tasks.progress import say
from tasks.scans import SCAN, content_digest
from tomoforge.beamline import read_scan
from tomoforge.beamline.containment import linked_files
from tomoforge.beamline.findings import Finding
from tomoforge.beamline.inbox import TIFF, find_parts, look
from tomoforge.beamline.ledger import Ledger, Outcome, Record, shown
from tomoforge.errors import TomoforgeError
from tomoforge.storage import Artefact, Workspace

_BOTH = ("flats", "darks")
_DAY_S = 86400.0
_PRUNED = ".pruned-"  # hidden, so that an ingest passes over what a killed pruning left
_OF_A_STACK = (*TIFF, ".txt", ".csv", ".dat", ".tsv", ".json", ".yaml", ".yml")


@task(name="prune-inbox", **OPTIONS)
def prune(workspace: Workspace, inbox: str | None, *, older_than_days: float, dry_run: bool) -> list[str]:
    """Remove every entry that is old enough and whose copy is whole; a line for each entry that was taken in."""
    folder = open_inbox(workspace, inbox)
    ledger = ledger_of(workspace, folder)
    lines = []
    with ledger.held() as alone:
        if not alone:
            return ["an ingest is at work on this inbox; try again when it has ended"]
        if not dry_run:
            for left in folder.glob(f"{_PRUNED}*"):
                _remove(left)
        for record in ledger.records():
            path = folder / record.entry
            taken = [o for o in record.outcomes.values() if o.state in ("imported", "duplicate")]
            if not taken or not os.path.lexists(path):
                continue
            try:
                against = why_not(workspace, ledger, record, taken[0], folder, older_than_days)
            except (TomoforgeError, OSError) as error:
                against = Finding("copy not verified", str(error), "ingest the entry again")
            name = shown(record.entry)
            if against is not None:
                lines.append(f"kept     {name}: {against}")
            elif dry_run:
                lines.append(f"would remove  {name}")
            else:
                # In one step out of sight: a pruning that is killed must not leave half a scan to be found.
                hidden = folder / f"{_PRUNED}{record.identifier}"
                os.rename(path, hidden)
                _remove(hidden)
                lines.append(f"removed  {name}")
            say(lines[-1])
    return lines or ["nothing in the inbox has been taken in yet"]


def why_not(
    workspace: Workspace,
    ledger: Ledger,
    record: Record,
    outcome: Outcome,
    inbox: Path,
    older_than_days: float,
) -> Finding | None:
    """What speaks against removing an entry; None only if all of it is in the workspace, compared now."""
    path = inbox / record.entry
    now = look(path, inbox, record.linked)
    if now.problem is not None:
        return now.problem
    if now.fingerprint != record.fingerprint:
        return Finding("changed", "it is not what was taken in", "ingest it again")
    if time.time() - now.newest < older_than_days * _DAY_S:
        return Finding("too young", f"it changed within {older_than_days:g} days", "wait")
    others = [r.entry for r in ledger.records() if _points_into(r, record.entry)]
    if record.linked or others:
        return Finding(
            "shared files",
            f"it and {', '.join([*others, *record.linked][:4])} belong together",
            "remove them by hand, together",
        )
    assert outcome.scan is not None
    copy = workspace.find("scans", outcome.scan)
    if copy is None:
        return Finding("no copy", f"{outcome.scan} is not in the workspace", "ingest it again")
    workspace.verify(copy)
    parts = find_parts(path, inbox)
    recorded = workspace.read_provenance(copy)["parameters"]
    original = read_scan(
        parts.scan,
        energy_kev=recorded["energy_kev"],
        pixel_size_um=recorded["pixel_size_um"],
        allow_missing=_BOTH,
        root=inbox,
    )
    if content_digest(original) != content_digest(
        read_scan(workspace.path(copy) / SCAN, allow_missing=_BOTH)
    ):
        return Finding("copy differs", f"{outcome.scan} has other counts or angles", "ingest it again")
    copied = _copied_files(parts.scan, path, inbox)
    for companion in outcome.companions:
        place = inbox / companion.name
        if companion.artefact is None:
            return Finding("companion not copied", shown(companion.name), "correct it, or take it away")
        kind = "corrections" if companion.kind == "dials" else "labels"
        found = workspace.find(kind, companion.artefact)
        if found is None or not _same_companion(workspace, found, place):
            return Finding("companion not copied", shown(companion.name), "ingest it again")
        copied |= {file for file in [place, *place.rglob("*")] if file.is_file()}
    left = [name for name in now.files if inbox / name not in copied and not Path(name).name.startswith(".")]
    if left:
        return Finding(
            "files without a copy", ", ".join(map(shown, left[:4])), "move them elsewhere, then prune again"
        )
    return None


def _points_into(record: Record, entry: str) -> bool:
    return record.entry != entry and any(name.split(os.sep, 1)[0] == entry for name in record.linked)


def _copied_files(scan: Path, entry: Path, inbox: Path) -> set[Path]:
    """The files whose contents an imported scan holds."""
    if scan.is_dir():
        return {file for file in scan.rglob("*") if file.suffix.lower() in _OF_A_STACK}
    inside = {Path(os.path.realpath(entry)): entry}
    found = {scan}
    for target in linked_files(scan, inbox):
        for real, named in inside.items():
            if target.is_relative_to(real):
                found.add(named / target.relative_to(real))
    return found


def _same_companion(workspace: Workspace, copy: Artefact, place: Path) -> bool:
    workspace.verify(copy)
    return workspace.read_provenance(copy)["inputs"]["file"] == checksum_of(place)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()
