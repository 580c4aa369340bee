"""A real scan through copy, quick look, volume and export: the same bytes whatever happens on the way."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.publishing import publish_preview, publish_scan, publish_volume
from tasks.quick_looks import CENTRE, LOOK, TRIED, look_ahead, open_scan, read_settled
from tasks.scans import SCAN, import_scan
from tasks.volumes import QUALITY, VOLUME, export, reconstruct
from tomoforge.config import ReconstructionSettings
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction.pipeline import prepare_rows
from tomoforge.reconstruction.quality import reconstruction_quality
from tomoforge.reconstruction.recipe import Recipe
from tomoforge.reconstruction.stored import stored_percentiles
from tomoforge.results import read_published
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import read_volume, read_voxel_size

PLAIN = ReconstructionSettings()
ENERGY = {"energy_kev": 20.0, "pixel_size_um": 5.0}


class Here:
    """Stands in the place of a cluster: every piece at once, in this process."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most  # pieces until it is "killed"

    def run(self, function: Any, *arguments: Any, timeout_s: float) -> Any:
        return function(*arguments)

    def map(self, function: Any, pieces: list, *, timeout_s: float, progress: Any = None) -> list:
        results = []
        for done, piece in enumerate(pieces, start=1):
            if self.most is not None and done > self.most:
                raise KeyboardInterrupt
            results.append(function(*piece))
            progress(done, len(pieces))
        return results


@pytest.fixture(scope="module")
def scans(shared_data) -> Path:
    return shared_data / "scans"


@pytest.fixture(scope="module")
def diamond(scans, tmp_path_factory) -> tuple[Workspace, Artefact, Artefact, Artefact]:
    """diamond_24737 in a workspace of its own: copied, looked at, reconstructed."""
    workspace = Workspace(tmp_path_factory.mktemp("diamond"))
    raw = brought_in(workspace, scans / "diamond_24737.nxs")
    look = look_ahead.fn(Here(), workspace, raw, settings=PLAIN, name="diamond")
    return workspace, raw, look, reconstruct.fn(Here(), workspace, raw, settings=PLAIN, name="diamond")


def brought_in(workspace: Workspace, path: Path, **reading: Any) -> Artefact:
    return import_scan.fn(workspace, str(path), **ENERGY, **reading)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the record of when and from what it was made."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "provenance.json"
    }


def test_reconstruct__diamond_has_its_axis_and_no_dead_pixel(diamond):
    workspace, raw, look, volume = diamond
    centre = json.loads((workspace.path(volume) / CENTRE).read_text())
    assert 85.5 <= centre["centre_px"] <= 86.0 and centre["agreed"]
    settled = read_settled(workspace.path(look))
    assert settled.centre.centre == centre["centre_px"] and settled.turn == "half turn"
    values, voxel_size = read_volume(workspace.path(volume) / VOLUME)
    assert values.shape == (135, 160, 160) and voxel_size == pytest.approx(5e-6)
    assert np.isfinite(values).all()
    quality = json.loads((workspace.path(volume) / QUALITY).read_text())
    assert quality["repaired_pixels"] == 1
    # Pixel (0, 0) has only one neighbour in its row, which stands in for it.
    counts = open_scan(workspace.path(raw) / SCAN)
    sinogram = prepare_rows(counts, 0, 1, Recipe(), settled).integrals[:, 0]
    assert np.array_equal(sinogram[:, 0], sinogram[:, 1])
    low, median, high = np.percentile(values, [1, 50, 99])
    width = (values.max() - values.min()) / 2**18  # of a bin of the histogram
    assert quality["percentiles_per_m"] == pytest.approx([low, median, high], abs=2 * width)
    assert read_voxel_size(workspace.path(volume) / VOLUME) == voxel_size
    assert not (workspace.path(volume) / "frames").exists()


def test_reconstruct__tiff_of_the_same_scan_gives_the_same_volume(diamond, scans, tmp_path):
    workspace, nxtomo, _, volume = diamond
    stack = scans / "diamond_24737_tiff"
    # Its angle list has rows of before and after the scan: told apart by the reader, or said.
    for told in ({}, {"angle_rows": (10, 101)}):
        again = Workspace(tmp_path / f"{len(told)}")
        raw = brought_in(again, stack, **told)
        assert raw.key == nxtomo.key  # by content, whatever the format
        stacked = again.path(reconstruct.fn(Here(), again, raw, settings=PLAIN, name="tiff"))
        expected, _ = read_volume(workspace.path(volume) / VOLUME)
        assert read_volume(stacked / VOLUME)[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("change", [{}, {"delta_beta": 100.0, "distance_mm": 20.0, "zingers": True}])
def test_reconstruct__killed_between_pieces_goes_on_to_the_same_bytes(diamond, tmp_path, change):
    settings = ReconstructionSettings(rotation_centre=85.5, slab_rows=32, **change)
    made, raw, *_ = diamond
    whole = reconstruct.fn(Here(), made, raw, settings=settings, name="whole")
    broken = Workspace(tmp_path)
    raw = brought_in(broken, Path(made.path(raw) / "scan.nxs"))
    other = settings.model_copy(update={"slab_rows": 7, "memory_gib": 1.0})
    for pieces in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            reconstruct.fn(Here(pieces), broken, raw, settings=settings, name="killed")
    again = reconstruct.fn(Here(), broken, raw, settings=other, name="resumed")
    expected, got = digests(made.path(whole)), digests(broken.path(again))
    assert got == expected
    assert not any("frames" in name for name in got)


def test_reconstruct__how_the_work_is_done_makes_no_other_volume(diamond):
    workspace, raw, _, volume = diamond
    steering = ReconstructionSettings(slab_rows=3, memory_gib=1.5, export="tiff", preview=False)
    assert reconstruct.fn(Here(), workspace, raw, settings=steering, name="again") == volume
    other = ReconstructionSettings(filter="hann")
    assert reconstruct.fn(Here(), workspace, raw, settings=other, name="hann") != volume


def test_reconstruct__too_little_memory_is_said_before_the_work(diamond, monkeypatch):
    workspace, raw, _, _ = diamond
    monkeypatch.setattr("tomoforge.reconstruction.memory._PROGRAM", 2.0**40)
    with pytest.raises(InputError, match="memory_gib must be at least 1024"):
        reconstruct.fn(Here(), workspace, raw, settings=ReconstructionSettings(filter="parzen"), name="large")


def test_volume__opens_in_the_reader_of_ome_zarr(diamond):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    workspace, _, _, volume = diamond
    path = workspace.path(volume) / VOLUME
    location = parse_url(str(path))
    assert location is not None
    (node,) = list(Reader(location)())
    values, _ = read_volume(path)
    assert np.array_equal(np.asarray(node.data[0]), values)
    assert [level.shape for level in node.data] == [(135, 160, 160), (68, 80, 80), (34, 40, 40)]
    assert [axis["unit"] for axis in node.metadata["axes"]] == ["micrometer"] * 3
    assert node.metadata["coordinateTransformations"][0][0]["scale"] == [5.0] * 3


def test_export__is_an_artefact_beside_the_volume(diamond):
    workspace, _, _, volume = diamond
    made = export.fn(workspace, volume, format="nrrd", name="diamond")
    assert (workspace.path(made) / "volume.nrrd").stat().st_size > 135 * 160 * 160 * 4
    assert export.fn(workspace, volume, format="nrrd", name="diamond") == made
    assert workspace.read_provenance(made)["inputs"]["volume"]["key"] == volume.key


def test_publish__preview_and_volume_say_what_they_rest_on(diamond):
    workspace, raw, look, volume = diamond
    shown = publish_scan.fn(workspace, raw, name="diamond")
    preview = publish_preview.fn(workspace, look, name="diamond", sources={"scan": shown})
    about = read_published(workspace.folder("published") / "previews" / preview)
    assert set(about.pictures) == {"axial_22", "axial_67", "axial_112", "sinogram"}
    assert about.summary["contrast"] == "absorption"
    identifier = publish_volume.fn(workspace, volume, name="diamond", sources={"scan": shown})
    published = read_published(workspace.folder("published") / "volumes" / identifier)
    assert {"axial", "coronal", "sagittal", "sinogram"} == set(published.pictures)
    assert published.summary["repaired_pixels"] == 1 and published.summary["mu_noise_per_m"] > 0
    # The capillary stands in air at 0.73 of the flat.
    assert any("scale to air" in warning for warning in published.warnings)
    assert not any("Paganin" in warning for warning in published.warnings)


def test_publish__paganin_and_centres_are_shown_when_they_were_used(diamond):
    workspace, raw, _, _ = diamond
    settings = ReconstructionSettings(delta_beta=100.0, distance_mm=20.0, centre_figure="always")
    look = look_ahead.fn(Here(), workspace, raw, settings=settings, name="d")
    tried = json.loads((workspace.path(look) / LOOK).read_text())["tried_px"]
    assert 5 <= len(tried) <= 9 and 85.5 in tried
    assert (workspace.path(look) / TRIED).exists()
    identifier = publish_preview.fn(workspace, look, name="d", sources={})
    shown = read_published(workspace.folder("published") / "previews" / identifier)
    assert "centres" in shown.pictures
    assert shown.summary["contrast"] == "Paganin, one material" and shown.summary["distance_mm"] == 20.0
    assert any("single material with δ/β = 100" in warning for warning in shown.warnings)


def test_quality__of_a_uniform_volume_is_calm():
    slices = np.zeros((3, 64, 64), np.float32)
    found = reconstruction_quality(slices, np.zeros((90, 3, 64), np.float32), uniform_angles(90, np.pi), 31.5)
    assert found.noise == 0 and found.ring_strength == 0 and found.angular_completeness == 1


def test_stored_percentiles__of_a_constant_volume(tmp_path):
    from tomoforge.volumes import write_volume

    write_volume(tmp_path / "flat.ome.zarr", np.full((5, 6, 7), 3.0, np.float32), 1e-6)
    assert stored_percentiles(tmp_path / "flat.ome.zarr", (1, 50, 99)) == [3.0] * 3
