"""An inbox with something in it, for trying tomoforge out: a forged scan that plays a beamline's, and a damaged one."""

import shutil
from pathlib import Path

from prefect import task

from tasks.artefacts import OPTIONS
from tasks.scans import MATERIALS, SCAN
from tomoforge.storage import PROVENANCE, Artefact, Workspace

INBOX = "example-inbox"
_DAMAGED_BYTES = 3000


@task(name="fill-example-inbox", **OPTIONS)
def fill_inbox(workspace: Workspace, scan: Artefact) -> str:
    """The folder, with a copy of a forged scan and the first bytes of another; what lies there already stays."""
    inbox = workspace.root / INBOX
    for name, fill in (("crystal-1", _copy_scan), ("damaged-scan", _damage_scan)):
        if not (inbox / name).exists():
            draft = inbox / f".{name}"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            fill(workspace.path(scan), draft)
            draft.rename(inbox / name)
    return str(inbox)


def _copy_scan(scan: Path, folder: Path) -> None:
    shutil.copytree(scan, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(PROVENANCE, MATERIALS))


def _damage_scan(scan: Path, folder: Path) -> None:
    (folder / SCAN).write_bytes((scan / SCAN).read_bytes()[:_DAMAGED_BYTES])
