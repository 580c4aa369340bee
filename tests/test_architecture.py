"""The import rules of pyproject.toml hold, and the check notices when one is broken."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tomoforge", "flows", "tasks", "dashboard", "deployments")
UNTIL_BROKEN = r"(?:(?!KEPT|BROKEN).)*BROKEN"  # in the verdict of the same contract


def check_contracts(folder: Path) -> tuple[int, str]:
    """Exit status and text of import-linter's contracts on the packages in `folder`."""
    # A process of its own: import-linter changes sys.path and logging, and looks in the working folder.
    program = "import sys, importlinter.cli as c; sys.exit(c.lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120
    )
    # The report is wrapped to the terminal and coloured: one line of plain words compares better.
    return done.returncode, " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the packages and their contracts."""
    copy = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def test_contracts__hold():
    status, report = check_contracts(ROOT)
    assert status == 0, report


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("tomoforge/optics/broken.py", "import prefect", "tomoforge runs on a laptop"),
        ("tomoforge/optics/broken.py", "from dask import delayed", "tomoforge runs on a laptop"),
        ("tomoforge/absorption/broken.py", "import tomoforge.segmentation", "The six rooms meet"),
        ("tomoforge/reconstruction/broken.py", "import cupy", "Only tomoforge.backend imports CuPy"),
        ("tomoforge/samples/broken.py", "import bpy", "Only the Blender worker"),
        ("tasks/broken.py", "import flows", "Tasks wrap the library"),
        ("tasks/broken.py", "import torch", "Tasks add storage"),
        ("flows/broken.py", "import numpy", "Flows call tasks"),
        ("dashboard/broken.py", "import tasks", "The dashboard reads published results"),
    ],
)
def test_contracts__break_when_a_rule_is_broken(house, module, line, contract):
    broken = house / module
    broken.write_text(f"{line}\n")
    try:
        status, report = check_contracts(house)
    finally:
        broken.unlink()
    assert status != 0, f"nobody noticed {line!r} in {module}"
    assert re.search(re.escape(contract) + UNTIL_BROKEN, report), report
    name = module.removesuffix(".py").replace("/", ".")
    assert f"{name} -> " in report or f"{name} is not allowed" in report, report


def test_contracts__see_a_room_reached_through_a_shared_module(house):
    """Rooms must not meet behind a shared module's back either."""
    shared, room = house / "tomoforge" / "broken_shared.py", house / "tomoforge" / "optics" / "broken.py"
    shared.write_text("import tomoforge.samples\n")
    room.write_text("import tomoforge.broken_shared\n")
    try:
        status, report = check_contracts(house)
    finally:
        shared.unlink()
        room.unlink()
    assert status != 0
    assert re.search("The six rooms meet" + UNTIL_BROKEN, report), report
