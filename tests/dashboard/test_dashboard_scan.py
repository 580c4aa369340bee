"""The page of a scan: what the viewer reads, what it draws, what it says when something is not there."""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard import data
from dashboard.artefacts import NotStored, find_artefact
from dashboard.label_surface import MOST_TRIANGLES, label_surfaces, surface_figure
from dashboard.scan_frames import open_scan, read_projection, read_sinogram
from dashboard.scan_parts import LABELS, VOLUME, open_labels, parts_of
from dashboard.slice_view import slice_tiff
from dashboard.slice_viewer import Axis, Overlay, coloured, grey, outlines, picture, resized, scale_bar, ticks
from dashboard.volume_slices import StoredVolume, level_for, open_volume, read_slice, value_range
from tomoforge.errors import StorageError
from tomoforge.results import Published, publish
from tomoforge.volumes import write_labels, write_volume

SAMPLE = f"sample-{'0a' * 10}-00000001"
SCAN = f"scan-{'1b' * 10}-00000002"
VOLUME_ID = f"volume-{'2c' * 10}-00000003"
LABELS_ID = f"segmentation-{'3d' * 10}-00000004"
SHAPE = (36, 96, 130)


def open_page(app: Path, **address: str) -> AppTest:
    """Run the page and see that it ended as a page, not as an error."""
    at = AppTest.from_file(app, default_timeout=60)
    at.switch_page("stages/scan.py")
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    return whole(at)


def whole(at: AppTest) -> AppTest:
    assert not at.exception
    assert not any("could not be drawn" in box.value for box in at.error)
    return at


def said(at: AppTest) -> str:
    boxes = (*at.error, *at.warning, *at.info, *at.markdown, *at.caption, *at.subheader)
    return "\n".join(box.value for box in boxes).replace("\\", "").replace("\u2060", "")


def images(at: AppTest) -> int:
    return len(at.get("image")) + len(at.get("imgs"))


def item(identifier: str) -> Published:
    found = data.listing().find(identifier)
    assert found is not None
    return found


def volume() -> StoredVolume:
    return open_volume(find_artefact(item(VOLUME_ID)), VOLUME)


# --- where artefacts lie ------------------------------------------------------------------------


def test_artefact__is_found_by_the_published_identifier(stored: Path) -> None:
    assert find_artefact(item(SCAN)).folder == (stored / "scans" / f"scan-{'1b' * 10}").resolve()
    assert find_artefact(item(LABELS_ID)).folder.parent.name == "labels"


@pytest.mark.parametrize(
    "identifier",
    [
        "volume-31",
        "volume-..-..-scans-12345678",
        f"volume-{'2C' * 10}-00000003",
        f"volume-{'2c' * 9}-00000003",
    ],
)
def test_artefact__of_another_identifier_is_none(stored: Path, identifier: str) -> None:
    publish(stored / "published", "volumes", identifier, title="t", summary={})
    with pytest.raises(NotStored, match="only its pictures were published"):
        find_artefact(item(identifier))


def test_artefact__deleted_is_said_with_what_to_do(stored: Path) -> None:
    shutil.rmtree(stored / "volumes" / f"volume-{'2c' * 10}")
    with pytest.raises(NotStored, match="not in the workspace any more; run its flow again"):
        find_artefact(item(VOLUME_ID))


def test_artefact__behind_a_link_is_refused(stored: Path, tmp_path: Path) -> None:
    folder = stored / "volumes" / f"volume-{'2c' * 10}"
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="a link to elsewhere"):
        find_artefact(item(VOLUME_ID))


def test_artefact__part_behind_a_link_is_refused(stored: Path, tmp_path: Path) -> None:
    place = stored / "volumes" / f"volume-{'2c' * 10}" / VOLUME
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="leads out of its folder"):
        volume()


# --- slices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_read_slice__is_that_of_the_volume(stored: Path, axis: int) -> None:
    opened = volume()
    assert opened.shape == SHAPE and opened.voxel_um == pytest.approx(2.0)
    from tomoforge.volumes import read_volume

    for level in range(len(opened.shapes)):
        array, voxel = read_volume(opened.path, level)
        for index in (0, 17, SHAPE[axis] - 1, 10**6, -1):
            cut = read_slice(opened, axis, index, level)
            held = min(max(index, 0), SHAPE[axis] - 1)
            expected = np.take(array, min(held // 2**level, array.shape[axis] - 1), axis)
            np.testing.assert_array_equal(cut.values, expected)
            assert (cut.index, cut.pixel_um) == (held, pytest.approx(voxel * 1e6))


def test_level_for__keeps_to_what_a_screen_shows_and_to_what_is_read_quickly(stored: Path) -> None:
    opened = volume()
    assert level_for(opened, 0) == 0

    def like(n: int) -> StoredVolume:
        shapes = [(n, n, n)]
        while shapes[-1][0] > 64:
            shapes.append((-(-shapes[-1][0] // 2),) * 3)
        chunks = tuple(
            tuple(min(s, c) for s, c in zip(shape, (32, 256, 256), strict=True)) for shape in shapes
        )
        return StoredVolume(opened.artefact, VOLUME, tuple(shapes), chunks, 4, 1.0, {}, {})  # type: ignore[arg-type]

    assert [level_for(like(1024), axis) for axis in range(3)] == [0, 1, 1]
    assert [level_for(like(1024), axis, finest=True) for axis in range(3)] == [0, 0, 0]
    assert [level_for(like(2048), axis) for axis in range(3)] == [1, 2, 2]
    assert like(1024).slice_bytes(0, 0) == 1024**2 * 32 * 4
    assert like(1024).slice_bytes(1, 0) == 1024**2 * 256 * 4


def test_value_range__is_that_of_the_values(stored: Path) -> None:
    found = value_range(volume())
    assert found.least <= found.low < found.high <= found.most
    assert found.low == pytest.approx(0, abs=500)  # air, and the noise of 150 of it
    assert found.high == pytest.approx(6000, abs=500)


def chunks(stored: Path) -> list[Path]:
    return sorted((stored / "volumes" / f"volume-{'2c' * 10}" / VOLUME / "0" / "c").rglob("*/*/*"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("gone", "is missing; it was there"),
        ("cut", "cut short or changed"),
        ("garbled", "cannot be unpacked"),
    ],
)
def test_read_slice__of_a_damaged_chunk_is_the_reason(
    app: Path, stored: Path, damage: str, reason: str
) -> None:
    chunk = next(path for path in chunks(stored) if path.is_file())
    whole_chunk = chunk.read_bytes()
    if damage == "gone":
        chunk.unlink()
    elif damage == "cut":
        chunk.write_bytes(whole_chunk[: len(whole_chunk) // 2])
    else:
        chunk.write_bytes(b"\xff" * len(whole_chunk))
    with pytest.raises(StorageError, match=reason):
        read_slice(volume(), 0, 3, 0)
    at = open_page(app, kind="volumes")
    assert "This cannot be shown" in said(at)
    assert reason.split(";")[0] in said(at)
    assert at.metric  # the rest of the page is there


def test_volume__without_its_description_is_the_reason(app: Path, stored: Path) -> None:
    place = stored / "volumes" / f"volume-{'2c' * 10}" / VOLUME / "zarr.json"
    place.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StorageError):
        volume()
    place.write_text("{")
    assert "This cannot be shown" in said(open_page(app, kind="volumes"))


def test_labels__of_another_grid_are_refused(stored: Path) -> None:
    parts = parts_of(item(LABELS_ID), data.listing())
    assert parts.volume is not None and parts.volume.item.identifier == VOLUME_ID
    assert [part.item.identifier for part in parts.labels] == [LABELS_ID, SAMPLE]
    opened = volume()
    assert open_labels(parts.labels[0], opened).names["crystal"] == 3
    place = stored / "labels" / f"segmentation-{'3d' * 10}" / LABELS
    shutil.rmtree(place)
    write_labels(place, np.zeros((36, 96, 64), np.uint8), 2e-6)
    with pytest.raises(StorageError, match="36 × 96 × 64 voxels"):
        open_labels(parts.labels[0], opened)
    shutil.rmtree(place)
    write_labels(place, np.zeros(SHAPE, np.uint8), 3e-6)
    with pytest.raises(StorageError, match="voxels of 3 µm"):
        open_labels(parts.labels[0], opened)


# --- drawing ------------------------------------------------------------------------------------


def test_grey__runs_from_black_to_white() -> None:
    values = np.array([[-5.0, 0.0, 50.0, 100.0, 500.0, np.nan, np.inf, -np.inf]], np.float32)
    assert grey(values, 0, 100).tolist() == [[0, 0, 127, 255, 255, 0, 255, 0]]
    assert grey(values, 3, 3).dtype == np.uint8  # a window of no width is no division by zero


def test_outlines__run_inside_each_label() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 1
    edge = outlines(labels, 1)
    assert edge.sum() == 16  # the rim of 5 × 5
    assert not edge[labels == 0].any() and not edge[4, 4]


def test_coloured__fills_by_opacity_and_draws_contours_whole() -> None:
    image = np.full((9, 9), 100, np.uint8)
    labels = np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 3
    overlay = Overlay(labels, {3: (200, 0, 0)}, {3: "crystal"}, opacity=0.5, contours=True)
    picture = coloured(image, overlay, width=1)
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[4, 4].tolist() == [150, 50, 50]
    assert picture[2, 2].tolist() == [200, 0, 0]


def test_resized__takes_the_nearest_label() -> None:
    labels = np.array([[1, 2], [3, 0]], np.uint8)
    assert resized(labels, (4, 4)).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]
    assert resized(labels, (2, 2)) is labels


def test_scale_bar_and_ticks__are_round() -> None:
    assert scale_bar(320) == 100 and scale_bar(1024) == 200 and scale_bar(0.9) == 0.2
    assert ticks(0, 320) == [0, 100, 200, 300]
    assert ticks(-2, 8.1, most=8) == [-2, 0, 2, 4, 6, 8]
    assert ticks(5, 5) == [5]
    assert ticks(180, 0)[0] == 0  # angles may run down


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_picture__shows_first_row_on_top_and_first_column_left(theme: str) -> None:
    values = np.zeros((20, 40), np.float32)
    values[0, 0] = 1.0
    png = picture(
        values, 0, 1, down=Axis("z", "µm", 0, 20), across=Axis("x", "µm", 0, 40), quantity="µ", theme=theme
    )
    drawn = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    # 40 columns enlarged 22 times; the margins are of the letters' size, 0.026 of the width.
    size = round(0.026 * 880)
    left, top = round(3.9 * size), size
    assert drawn[top + 11, left + 11].tolist() == [255, 255, 255]
    for row, column in ((19, 39), (0, 39), (10, 20)):
        assert drawn[top + 22 * row + 11, left + 22 * column + 11].tolist() == [0, 0, 0]


def test_slice_tiff__holds_the_stored_values(stored: Path) -> None:
    cut = read_slice(volume(), 1, 40, 0)
    with tifffile.TiffFile(io.BytesIO(slice_tiff(cut))) as tiff:
        np.testing.assert_array_equal(tiff.asarray(), cut.values)
        per_centimetre = np.divide(*tiff.pages.first.tags["XResolution"].value)
        assert per_centimetre == pytest.approx(5000)  # 2 µm


# --- scan ---------------------------------------------------------------------------------------


def test_scan__is_read_frame_by_frame(stored: Path) -> None:
    scan = open_scan(find_artefact(item(SCAN)))
    assert scan.shape == (12, 36, 130) and scan.flats == scan.darks == 2
    assert scan.angles_deg[1] == pytest.approx(15) and scan.pixel_um == pytest.approx(2.0)
    first, last = read_projection(scan, 0), read_projection(scan, 11)
    assert first.transmission and first.values.shape == (36, 130)
    assert first.values[15, 80] < first.values[15, 40] < first.values[0, 0]  # crystal, liquor, air
    assert last.values[15, 80] < first.values[15, 80]
    sinogram = read_sinogram(scan, 15)
    assert sinogram.values.shape == (12, 130)
    # Counts are whole numbers of 9900: 1e-4 of the transmission, 2e-4 of its logarithm here.
    np.testing.assert_allclose(sinogram.values[0], -np.log(first.values[15]), atol=1e-5)


def test_scan__with_a_batch_of_frames_gone_is_the_reason(app: Path, stored: Path) -> None:
    (stored / "scans" / f"scan-{'1b' * 10}" / "batches" / "6.h5").unlink()
    with pytest.raises(StorageError, match=r"batches/6\.h5 of scan-.* is missing"):
        open_scan(find_artefact(item(SCAN)))
    assert "is missing" in said(open_page(app, kind="scans"))


def test_scan__that_names_files_elsewhere_is_refused(stored: Path, tmp_path: Path) -> None:
    folder = stored / "scans" / f"scan-{'1b' * 10}" / "batches"
    shutil.move(folder / "6.h5", tmp_path / "6.h5")
    (folder / "6.h5").symlink_to(tmp_path / "6.h5")
    with pytest.raises(StorageError, match="leads out of its folder"):
        open_scan(find_artefact(item(SCAN)))


def test_scan__cut_short_is_the_reason(app: Path, stored: Path) -> None:
    file = stored / "scans" / f"scan-{'1b' * 10}" / "scan.nxs"
    file.write_bytes(file.read_bytes()[:600])
    assert "its file is damaged" in said(open_page(app, kind="scans"))


# --- surfaces -----------------------------------------------------------------------------------


def test_label_surfaces__enclose_the_labels(stored: Path) -> None:
    labels = open_volume(find_artefact(item(SAMPLE)), LABELS)
    surfaces, step_um = label_surfaces(labels)
    assert [surface.name for surface in surfaces] == ["liquor", "loop", "crystal"]
    assert sum(len(surface.faces) for surface in surfaces) <= MOST_TRIANGLES
    crystal = surfaces[2]
    low, high = crystal.vertices.min(0), crystal.vertices.max(0)
    # Voxels 60 to 100 in x, 30 to 50 in y, 10 to 20 in z of 2 µm; a coarse voxel is taken whole.
    np.testing.assert_allclose(low, [120, 60, 20], atol=step_um)
    np.testing.assert_allclose(high, [200, 100, 40], atol=step_um)
    figure = surface_figure(surfaces, labels.colours, (260, 192, 72))
    assert [trace.name for trace in figure.data] == ["liquor", "loop", "crystal"]
    assert figure.data[2].color == "rgb(213,94,0)"


# --- the page -----------------------------------------------------------------------------------


def test_page__of_a_segmentation_shows_its_slices_with_labels(app: Path, stored: Path) -> None:
    at = open_page(app)
    assert images(at) == 1
    assert "z = 18" in said(at) and "Pixels of 2 µm" in said(at)
    assert "Of this slice: liquor" in said(at) and "crystal" in said(at)
    assert {slider.label for slider in at.slider} >= {"Slice z", "Window [mm⁻¹]", "Opacity of the labels"}
    assert "The volume" not in said(at) and not at.warning


def test_page__slider_writes_the_address_and_the_address_opens_the_same(app: Path, stored: Path) -> None:
    at = open_page(app)
    next(s for s in at.slider if s.label == "Slice z").set_value(7).run()
    whole(at)
    assert at.query_params["z"] == "7" and "z = 7" in said(at)
    at.segmented_control(key="slices-plane").set_value("x").run()
    whole(at)
    assert at.query_params["plane"] == "x" and at.query_params["z"] == "7"
    next(s for s in at.slider if s.label == "Slice x").set_value(99).run()
    next(s for s in at.slider if s.label.startswith("Window")).set_value((-1.0, 3.0)).run()
    whole(at)
    address = dict(at.query_params)
    assert address["x"] == "99" and float(address["low"]) == -1 and float(address["high"]) == 3
    again = open_page(app, **address)
    assert "x = 99" in said(again) and "Window 4, level 1" in said(again)
    assert next(s for s in again.slider if s.label == "Slice x").value == 99


@pytest.mark.parametrize("value", ["../../etc", "1e999", "nan", "-5", "99999999999999999999", "<b>", ""])
def test_page__address_of_nonsense_is_held_within_bounds(app: Path, stored: Path, value: str) -> None:
    names = ("view", "image", "plane", "z", "low", "high", "full", "labels", "opacity", "contours")
    at = open_page(app, **dict.fromkeys(names, value))
    assert images(at) == 1
    open_page(app, kind="scans", shot=value, row=value, view="sinogram")


def test_page__overlay_is_switched_off_and_to_the_truth(app: Path, stored: Path) -> None:
    at = open_page(app)
    box = next(s for s in at.selectbox if s.label == "Labels over it")
    assert box.value == LABELS_ID
    box.set_value("none").run()
    whole(at)
    assert at.query_params["labels"] == "none" and "Of this slice" not in said(at)
    at = open_page(app, labels=SAMPLE, plane="y", y="40")
    assert "y = 40" in said(at) and "crystal" in said(at)
    at = open_page(app, kind="volumes", labels=LABELS_ID, image="uncertainty")
    assert "Of this slice" in said(at)


def test_page__uncertainty_is_shown_with_its_own_scale(app: Path, stored: Path) -> None:
    at = open_page(app, image="uncertainty")
    assert "1 − probability of the label here from" in said(at)


def test_page__of_a_scan_shows_projections_sinogram_and_its_volume(app: Path, stored: Path) -> None:
    at = open_page(app, kind="scans")
    assert images(at) == 1 and "Projection 6 of 12 at 90°" in said(at)
    next(s for s in at.slider if s.label == "Projection").set_value(2).run()
    assert "at 30°" in said(whole(at)) and at.query_params["shot"] == "2"
    assert "Detector row 18 of 36" in said(open_page(app, kind="scans", view="sinogram"))
    assert "z = 18" in said(open_page(app, kind="scans", view="slices"))
    at = open_page(app, kind="volumes", view="centre")
    assert "Rotation centre" in {tile.label for tile in at.metric}
    assert "reconstruction.centre-figure always" in said(at)


def test_page__surface_is_a_chart_of_the_labels(app: Path, stored: Path) -> None:
    at = open_page(app, view="surface")
    (chart,) = at.get("plotly_chart")
    spec = json.loads(chart.proto.spec)
    assert [trace["name"] for trace in spec["data"]] == ["liquor", "loop", "crystal"]
    coordinates = spec["data"][2]["x"]
    held = (
        np.frombuffer(base64.b64decode(coordinates["bdata"]), "<f4")
        if isinstance(coordinates, dict)
        else coordinates
    )
    assert len(held) > 8
    assert "not smoothed" in said(at)


def test_page__deleted_artefact_is_said_and_its_pictures_shown(app: Path, stored: Path) -> None:
    shutil.rmtree(stored / "volumes")
    shutil.rmtree(stored / "scans")
    shutil.rmtree(stored / "labels")
    at = open_page(app, kind="volumes")
    assert "is not in the workspace any more; run its flow again" in said(at)
    assert "The picture" not in said(at) and images(at) == 1  # the published one


def test_page__volume_of_one_value_and_one_without_a_finite_one(app: Path, stored: Path) -> None:
    place = stored / "volumes" / f"volume-{'2c' * 10}" / VOLUME
    for value in (0.0, 5000.0, np.nan):
        shutil.rmtree(place)
        write_volume(place, np.full(SHAPE, value, np.float32), 2e-6)
        (place.parent / "provenance.json").write_text(json.dumps({"inputs": {}, "value": str(value)}))
        at = open_page(app, kind="volumes")
        assert images(at) == 1 and "z = 18" in said(at)
    assert "have no finite value" in said(at)


def test_value_range__without_coarse_levels_is_that_of_one_slice(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.volume_slices._MOST_VOXELS", 1000)
    monkeypatch.setattr("dashboard.volume_slices._WINDOW_VOXELS", 200)
    found = value_range(volume())
    assert found.most == pytest.approx(read_slice(volume(), 0, 18, 0).values.max())


def test_page__files_and_commands_are_named(app: Path, stored: Path) -> None:
    at = open_page(app)
    commands = " ".join(box.value for box in at.code)
    assert f"segment_scan --volume volume-{'2c' * 10}" in commands
    assert str(stored / "volumes" / f"volume-{'2c' * 10}" / VOLUME) in commands


def test_page__changes_nothing_on_disk(app: Path, stored: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {str(f): (f.stat().st_mtime_ns, f.stat().st_size) for f in sorted(stored.rglob("*"))}

    before = state()
    for view in ("slices", "surface", "projections", "sinogram", "centre"):
        open_page(app, view=view)
    assert state() == before
