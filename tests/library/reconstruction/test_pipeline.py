"""From counts to µ: the same bytes for any slab, repairs where they are asked for, and the materials' own µ."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from tomoforge.config import ReconstructionSettings
from tomoforge.errors import InputError
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, ScanSimulator
from tomoforge.reconstruction.memory import fixed_memory, row_memory, rows_at_once
from tomoforge.reconstruction.pipeline import (
    StoredFrames,
    needs_whole_frames,
    prepare_frames,
    reconstruct_rows,
)
from tomoforge.reconstruction.quality import interior_mu
from tomoforge.reconstruction.quick_look import centres_to_try, quick_look
from tomoforge.reconstruction.recipe import GIB, Recipe, settle, slice_width
from tomoforge.scan import Scan, batch_slices, write_frame_batch
from tomoforge.units import kev_to_wavelength

ROWS, COLUMNS, ANGLES = 40, 48, 60
CENTRE = 22.5
RECIPES = {
    "plain": Recipe(),
    "repaired": Recipe(zingers=True, stripes="sorting", filter="hann"),
    "air": Recipe(air=4),
    "paganin": Recipe(delta_beta=200.0, distance=0.02, zingers=True),
    "tilt": Recipe(tilt=0.02, air=4),
    "cgls": Recipe(method="cgls", iterations=3),
}


def scan_of(
    n_angles: int = ANGLES, arc: float = np.pi, centre: float = CENTRE, columns: int = COLUMNS
) -> Scan:
    """A rod with a heavier core off the axis, in counts, with dead pixels, a dead row and a zinger."""
    rng = np.random.default_rng(8)
    angles = np.arange(n_angles) * arc / n_angles
    u = np.arange(columns) - centre
    rows = np.arange(ROWS)[:, np.newaxis]

    def chord(x: float, y: float, radius: float) -> np.ndarray:
        middle = x * np.cos(angles) + y * np.sin(angles)
        t = u - middle[:, np.newaxis]
        return 2 * np.sqrt(np.maximum(radius**2 - t**2, 0))

    height = 1 + 0.2 * np.sin(rows / 7)
    path = 0.02 * chord(0, 0, 14)[:, np.newaxis] * height + 0.05 * chord(5, 2, 3)[:, np.newaxis]
    flat = rng.uniform(9000, 11000, (ROWS, columns))
    flats = np.repeat(flat[np.newaxis], 6, axis=0)
    darks = np.full((2, ROWS, columns), 100.0)
    projections = rng.poisson((flat - 100) * np.exp(-path)) + 100.0
    flats[:, 3, 5] = 100  # dead
    flats[:, 17] = 90  # a row that sees nothing
    projections[20, 9, 30] = 60000
    return Scan(
        np.minimum(projections, 65535).astype(np.uint16),
        flats.astype(np.uint16),
        darks.astype(np.uint16),
        angles,
        20.0,
        2e-6,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_reconstruct_rows__any_slab_gives_the_same_bytes(name):
    scan = scan_of()
    recipe = replace(RECIPES[name], rotation_centre=CENTRE)
    settled = settle(scan, recipe)
    whole, report = reconstruct_rows(scan, 0, ROWS, replace(recipe, slab_rows=32), settled)
    assert whole.shape == (ROWS, COLUMNS, COLUMNS) and whole.dtype == np.float32
    assert np.isfinite(whole).all()
    for rows in (1, 7):
        again, counted = reconstruct_rows(scan, 0, ROWS, replace(recipe, slab_rows=rows), settled)
        assert again.tobytes() == whole.tobytes() and counted == report
    part, _ = reconstruct_rows(scan, 13, 21, recipe, settled)
    assert part.tobytes() == whole[13:21].tobytes()


def test_reconstruct_rows__rows_beside_the_beam_do_not_depend_on_the_slab():
    scan = scan_of()
    flats = scan.flats.copy()
    flats[:, 30:34, : COLUMNS - 2] = (
        100  # two pixels in 48 are lit: alone, that looks like swapped references
    )
    dim = replace(scan, flats=flats)
    whole, _ = reconstruct_rows(dim, 0, ROWS, Recipe(), CENTRE)
    alone, _ = reconstruct_rows(dim, 30, 32, Recipe(), CENTRE)
    assert alone.tobytes() == whole[30:32].tobytes()


@pytest.mark.parametrize("name", ["paganin", "tilt"])
def test_prepare_frames__any_batch_and_files_give_the_same_bytes(name, tmp_path):
    scan = scan_of()
    recipe = replace(RECIPES[name], rotation_centre=CENTRE)
    settled = settle(scan, recipe)
    assert needs_whole_frames(recipe, settled)
    whole, report = prepare_frames(scan, slice(0, ANGLES), recipe, settled)
    paths = []
    for batch in batch_slices(ANGLES, 7):
        frames, _ = prepare_frames(scan, batch, recipe, settled)
        assert frames.tobytes() == whole[batch].tobytes()
        paths.append(tmp_path / f"{batch.start}.h5")
        write_frame_batch(paths[-1], frames)
    stored = StoredFrames(tuple(str(path) for path in paths))
    by_files, _ = reconstruct_rows(scan, 5, 15, recipe, settled, frames=stored)
    here, counted = reconstruct_rows(scan, 5, 15, recipe, settled)
    assert by_files.tobytes() == here.tobytes() and counted == report


def test_reconstruct_rows__repairs_and_counts():
    scan = scan_of()
    plain, before = reconstruct_rows(scan, 0, ROWS, Recipe(), CENTRE)
    clean, after = reconstruct_rows(scan, 0, ROWS, Recipe(zingers=True), CENTRE)
    assert before.repaired == 1  # the dead row is read from its neighbour, which has no dead pixel
    assert before.zingers == 0 and after.zingers == 1
    assert np.array_equal(plain[17], plain[16])
    # A count six times the beam is −ln 6 in one ray: a streak through one slice only.
    changed = [row for row in range(ROWS) if not np.array_equal(plain[row], clean[row])]
    assert changed == [9]


def test_reconstruct_rows__lost_lines_do_not_depend_on_the_slab():
    scan = scan_of()
    counts = scan.projections.astype(np.float32)
    counts[11, 8] = np.nan
    lost = replace(scan, projections=counts)
    whole, _ = reconstruct_rows(lost, 0, 16, Recipe(), CENTRE)
    alone, _ = reconstruct_rows(lost, 8, 9, Recipe(), CENTRE)
    assert np.isfinite(alone).all() and alone.tobytes() == whole[8:9].tobytes()


def test_reconstruct_rows__air_comes_back_to_one():
    scan = scan_of()
    # The beam lost a tenth after the flats: an offset of −ln 0.9 everywhere.
    dimmed = replace(scan, projections=((scan.projections - 100.0) * 0.9 + 100).astype(np.uint16))
    truth, _ = reconstruct_rows(scan, 20, 24, Recipe(), CENTRE)
    offset, _ = reconstruct_rows(dimmed, 20, 24, Recipe(), CENTRE)
    scaled, _ = reconstruct_rows(dimmed, 20, 24, Recipe(air=5), CENTRE)
    inside = (slice(None), slice(20, 28), slice(20, 28))
    assert abs(offset[inside].mean() - truth[inside].mean()) > 0.05 * truth[inside].mean()
    # Rounding to whole counts, and the noise of five columns of air.
    assert scaled[inside].mean() == pytest.approx(truth[inside].mean(), rel=0.01)


def test_reconstruct_rows__half_acquisition_sees_twice_as_wide():
    wide = scan_of(120, 2 * np.pi, 40.0, 81)  # the rod whole, about the middle of a wide detector
    near = replace(
        wide,
        projections=wide.projections[:, :, 30:],
        flats=wide.flats[:, :, 30:],
        darks=wide.darks[:, :, 30:],
    )
    recipe = Recipe(rotation_centre=10.0)
    settled = settle(near, recipe)
    assert settled.turn == "half acquisition"
    width = slice_width(51, settled)
    slab, _ = reconstruct_rows(near, 8, 10, recipe, settled)
    assert slab.shape == (2, width, width) and width >= 80
    truth, _ = reconstruct_rows(wide, 8, 10, Recipe(rotation_centre=40.0), None)
    middle = (width - 1) // 2
    inner = slab[:, middle - 5 : middle + 6, middle - 5 : middle + 6]
    expected = truth[:, 35:46, 35:46]
    # The same rays but for the interpolation to opposite columns, and noise of other frames.
    assert inner.mean() == pytest.approx(expected.mean(), rel=0.02)
    with pytest.raises(InputError, match="full turn"):
        settle(scan_of(), Recipe(half_acquisition="yes", rotation_centre=CENTRE))


def test_quick_look__is_the_volume_where_no_step_needs_whole_frames():
    scan = scan_of()
    recipe = Recipe(rotation_centre=CENTRE, zingers=True)
    settled = settle(scan, recipe)
    look = quick_look(scan, recipe, settled)
    assert look.rows == (6, 20, 33) and look.sinogram.shape == (ANGLES, COLUMNS)
    for row, image in zip(look.rows, look.slices, strict=True):
        assert np.array_equal(image, reconstruct_rows(scan, row, row + 1, recipe, settled)[0][0])


def test_quick_look__paganin_in_a_band_is_close_to_the_whole():
    scan = scan_of()
    recipe = Recipe(rotation_centre=CENTRE, delta_beta=100.0, distance=0.01)
    settled = settle(scan, recipe)
    look = quick_look(scan, recipe, settled)
    whole = np.stack([reconstruct_rows(scan, row, row + 1, recipe, settled)[0][0] for row in look.rows])
    # Five lengths of the kernel are kept: less than 1 % of it is missing.
    assert np.abs(look.slices - whole).max() < 0.01 * whole.max()


def test_settle__says_what_does_not_fit():
    scan = scan_of()
    with pytest.raises(InputError, match="rotation_centre must be a column of the detector, 0 to 47, got 48"):
        settle(scan, Recipe(rotation_centre=48.0))
    with pytest.raises(InputError, match="give distance_mm"):
        settle(scan, Recipe(delta_beta=100.0, rotation_centre=CENTRE))
    with pytest.raises(InputError, match="rows must be"):
        reconstruct_rows(scan, 5, 41, Recipe(), CENTRE)
    assert (
        settle(replace(scan, propagation_distance=0.1), Recipe(delta_beta=9.0, rotation_centre=1)).distance
        == 0.1
    )


def test_recipe__is_the_settings_in_si():
    settings = ReconstructionSettings(
        centre_from=10, centre_to=20, distance_mm=5, tilt_deg=1.0, memory_gib=2, air_px="auto"
    )
    recipe = Recipe.of(settings)
    assert recipe.centre_bounds == (10, 20) and recipe.memory == 2 * GIB and recipe.air == "auto"
    assert recipe.distance == pytest.approx(5e-3) and recipe.tilt == pytest.approx(np.pi / 180)
    assert Recipe.of(ReconstructionSettings(memory_gib=2)) == Recipe()


def test_centres_to_try__hold_every_witness():
    estimate = replace(settle(scan_of(), Recipe(rotation_centre=20)).centre, by_row=(12.0, 20.0, 29.0))
    tried = centres_to_try(estimate, COLUMNS)
    assert 20.0 in tried and min(tried) <= 12 and max(tried) >= 29
    assert centres_to_try(replace(estimate, by_row=(), centre=0.0), COLUMNS)[0] == 0.0


def test_rows_at_once__keeps_within_memory():
    rng = np.random.default_rng(1)
    shape = (180, 256, 256)
    frame = (1, *shape[1:])
    scan = Scan(
        rng.integers(500, 900, shape, dtype=np.uint16),
        np.full(frame, 1000, np.uint16),
        np.zeros(frame, np.uint16),
        uniform_angles(180, np.pi),
        20.0,
        1e-6,
    )
    recipe = Recipe(rotation_centre=127.5, zingers=True)
    settled = settle(scan, recipe)
    reconstruct_rows(scan, 0, 1, recipe, settled)  # compiled and planned beforehand
    program = fixed_memory(scan, recipe, settled) - (0.35 * GIB)
    for rows in (4, 16, 64):
        tracemalloc.start()
        reconstruct_rows(scan, 0, 64, replace(recipe, slab_rows=rows), settled)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        slab = 64 * 256**2 * 4
        assert peak < program + slab + rows * row_memory(scan, recipe, settled), rows
    little = replace(recipe, memory=int(fixed_memory(scan, recipe, settled)))
    with pytest.raises(InputError, match="memory_gib must be at least"):
        rows_at_once(scan, little, settled)
    one = replace(
        recipe, memory=int(fixed_memory(scan, recipe, settled) + row_memory(scan, recipe, settled)) + 1
    )
    assert rows_at_once(scan, one, settled) == 1
    assert rows_at_once(scan, replace(recipe, memory=64 * GIB), settled) == 32


# --- forged scans give their materials back ---------------------------------------------------------------

VOXEL, ENERGY_KEV, DISTANCE = 2e-6, 8.0, 10e-3
MATERIALS = {1: find_material("water"), 3: find_material("protein")}


def forged(optics: str, distance: float) -> tuple[Scan, np.ndarray]:
    """A scan of 64 columns of protein in water, and its labels."""
    n = 64
    _, y, x = np.indices((32, n, n), dtype=float) - (n - 1) / 2
    labels = np.zeros((32, n, n), np.uint8)
    labels[x**2 + y**2 < 27**2] = 1
    labels[(x - 4) ** 2 + (y + 3) ** 2 < 12**2] = 3
    geometry = ScanGeometry(uniform_angles(120, np.pi), VOXEL, distance)
    simulator = ScanSimulator(
        labels=labels,
        voxel_size=VOXEL,
        materials=MATERIALS,
        geometry=geometry,
        beam=Beam(ENERGY_KEV, 2e4),
        detector=Detector(psf_sigma=0.4),
        seed=4,
        oversampling=2,
        planes=1,
        optics=optics,
    )
    scan = Scan(
        simulator.projections(slice(0, 120)),
        simulator.flats(20),
        simulator.darks(20),
        geometry.angles,
        ENERGY_KEV,
        VOXEL,
        distance or None,
    )
    return scan, labels


@pytest.mark.parametrize(
    ("optics", "distance", "tolerance"),
    [
        ("absorption", 0.0, 0.02),
        # One δ/β for two materials, and a paraxial near field: the goal of the project, not a closed form.
        ("wave", DISTANCE, 0.10),
    ],
)
def test_reconstruct_rows__a_forged_scan_gives_back_its_materials(optics, distance, tolerance):
    scan, labels = forged(optics, distance)
    index = MATERIALS[3].refractive_index(ENERGY_KEV)
    # The axis is given: a cylinder about it, the same in all rows, has nothing to find it by.
    recipe = Recipe(delta_beta=index.delta / index.beta if distance else None, rotation_centre=31.5)
    slab, _ = reconstruct_rows(scan, 0, 32, recipe)
    fringe = np.sqrt(kev_to_wavelength(ENERGY_KEV) * distance)
    for label, material in MATERIALS.items():
        found = interior_mu(slab, labels, VOXEL, label, fringe)
        assert not found.thin
        assert found.median == pytest.approx(material.refractive_index(ENERGY_KEV).mu, rel=tolerance)
