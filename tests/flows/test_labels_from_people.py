"""From a file that a person drew to a dataset: import, decide, gather."""

from pathlib import Path

import pytest
import tifffile

from tasks.label_uploads import uploads_of
from tasks.samples import LABELS
from tasks.segmenter import DATASET
from tasks.volumes import VOLUME
from tests.flows.running import run_here
from tests.library.segmentation.phantom import phantom
from tomoforge.segmentation.dataset import read_dataset_record
from tomoforge.storage import Workspace
from tomoforge.volumes import read_labels, write_volume

pytestmark = pytest.mark.usefixtures("one_server")


def said(capsys: pytest.CaptureFixture, what: str) -> str:
    """What the last flow printed after a word at the beginning of a line."""
    lines = capsys.readouterr().out.splitlines()
    return next(line.split()[1] for line in lines if line.startswith(what))


def test_what_was_handed_in_becomes_labels_or_says_why_not(tmp_path: Path, capsys, in_this_process) -> None:
    workspace = Workspace(tmp_path / "w")
    grey, truth = phantom(1, 16)
    with workspace.draft("volumes", "volume-1") as draft:
        write_volume(draft.path / VOLUME, grey, 2e-6)
        workspace.commit(draft, "volumes", {"stage": "volume", "inputs": {}})
    uploads = uploads_of(workspace)
    drawn = tmp_path / "drawn.tif"
    tifffile.imwrite(drawn, truth)
    good = uploads.store(drawn.read_bytes(), "drawn.tif", "volume-1", who="Ada")
    gone = uploads.store(drawn.read_bytes(), "drawn.tif", "volume-2", who="Grace")
    assert run_here(workspace.root, "import_labels") == 0
    labels = said(capsys, "labels")
    assert (read_labels(workspace.root / "labels" / labels / LABELS)[0] == truth).all()
    settled = {upload.folder: upload for upload in uploads.all()}
    assert settled[good.folder].labels == labels
    assert "volume must be the key" in settled[gone.folder].refused
    assert labels_made(workspace, labels)["parameters"]["who"] == "Ada"
    assert run_here(workspace.root, "import_labels") == 0
    assert "nothing was handed in" in capsys.readouterr().out
    assert run_here(workspace.root, "import_labels", "--volume", "volume-1") == 2


def labels_made(workspace: Workspace, key: str) -> dict:
    """The provenance of labels."""
    found = workspace.find("labels", key)
    assert found is not None
    return workspace.read_provenance(found)


def test_labels_of_a_person_become_a_case(tmp_path: Path, capsys, in_this_process) -> None:
    workspace = Workspace(tmp_path / "w")
    grey, truth = phantom(1, 16)
    with workspace.draft("volumes", "volume-1") as draft:
        write_volume(draft.path / VOLUME, grey, 2e-6)
        workspace.commit(draft, "volumes", {"stage": "volume", "inputs": {}})
    drawn = tmp_path / "drawn.tif"
    tifffile.imwrite(drawn, truth)
    imported = ("import_labels", "--volume", "volume-1", "--path", str(drawn), "--by", "Ada")
    assert run_here(workspace.root, *imported) == 0
    labels = said(capsys, "labels")
    assert (read_labels(workspace.root / "labels" / labels / LABELS)[0] == truth).all()
    assert run_here(workspace.root, "gather_dataset", "--labels", labels) == 0
    dataset = said(capsys, "dataset")
    (case,) = read_dataset_record(workspace.root / "datasets" / dataset / DATASET)["cases"]
    assert case["source"] == "real"
    decided = ("decide_labels", "--labels", labels, "--by", "Ada", "--verdict", "rejected")
    assert run_here(workspace.root, *decided) == 2  # without a reason
    assert run_here(workspace.root, *decided, "--reason", "drawn on another scan") == 0
    assert run_here(workspace.root, "gather_dataset", "--labels", labels) == 2
    assert "drawn on another scan" in capsys.readouterr().err
