"""Views, contact sheets, measures and distributions of forged samples."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tomoforge.errors import InputError, StorageError
from tomoforge.samples.gallery import contact_sheet, distributions_picture, read_tile, sample_tile, write_tile
from tomoforge.samples.measures import sample_measures
from tomoforge.samples.rendering import BACKGROUND, VIEWS, render
from tomoforge.volumes import LABEL_NAMES

N, SIZE = 48, 48
LIQUOR, LOOP, CRYSTAL = (LABEL_NAMES[name] for name in ("liquor", "loop", "crystal"))
EMPTY = np.round(255 * np.array(BACKGROUND)).astype(int)
WHITE = np.array([255, 255, 255])


def labels_with(*boxes):
    """N³ labels with boxes (value, z, y, x), each side a slice."""
    labels = np.zeros((N, N, N), dtype=np.uint8)
    for value, z, y, x in boxes:
        labels[z, y, x] = value
    return labels


def cube(centre, half=5, value=CRYSTAL):
    return (value, *(slice(c - half, c + half) for c in centre))


def shown(picture):
    """Where something other than the background is seen: (h, w) bool."""
    return np.abs(picture.astype(int) - EMPTY).max(axis=2) > 12


def middle_of(mask):
    return np.argwhere(mask).mean(axis=0)


def size_of(png):
    with Image.open(io.BytesIO(png)) as image:
        return image.size


# --- render ---------------------------------------------------------------------------------------


def test_render__an_empty_volume_is_background():
    picture = render(np.zeros((N, N, N), dtype=np.uint8), size=SIZE)
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    assert (picture == EMPTY).all()


def test_render__a_dry_crystal_is_warm_and_covers_its_projection():
    picture = render(labels_with(cube((24, 24, 24), 8)), size=SIZE)
    red, green, blue = picture[24, 24].astype(int)
    assert red > green > blue
    assert red - blue > 80
    # 16 × 16 of 48 × 48; the blur rounds corners and half-covered pixels count: about a pixel an edge.
    assert shown(picture).sum() == pytest.approx(256, abs=64)


@pytest.mark.parametrize(
    ("view", "row", "column"),
    [
        # Picture rows grow downwards. The body is high (z), far along the beam (y) and to the left (−x).
        ("front", -14, -10),  # columns along +x
        ("side", -14, +6),  # the beam looks along −x: columns along +y
        ("back", -14, +10),
        ("top", -6, -10),  # columns along +x, +y at the top
        ((math.pi / 2, 0.0), -14, +6),
    ],
)
def test_render__bodies_appear_where_the_view_puts_them(view, row, column):
    z, y, x = 14, 6, -10
    picture = render(labels_with(cube((24 + z, 24 + y, 24 + x), 4)), view, SIZE)
    # Both grids have the middle at 24; a pixel is a voxel, and half of one is lost to rounding.
    assert middle_of(shown(picture)) == pytest.approx((23.5 + row, 23.5 + column), abs=0.7)


def test_render__an_oblique_view_projects_by_azimuth_and_elevation():
    z, y, x = 8, 9, -7
    azimuth, elevation = 0.6, 0.4
    right = x * math.cos(azimuth) + y * math.sin(azimuth)
    depth = -x * math.sin(azimuth) + y * math.cos(azimuth)
    up = z * math.cos(elevation) + depth * math.sin(elevation)
    picture = render(labels_with(cube((24 + z, 24 + y, 24 + x), 4)), (azimuth, elevation), SIZE)
    # The body is symmetric about its middle, and so is what is seen of it.
    assert middle_of(shown(picture)) == pytest.approx((23.5 - up, 23.5 + right), abs=0.7)


def test_render__the_nearer_body_hides_the_farther():
    near, far = cube((24, 10, 24), 6, LOOP), cube((24, 38, 24), 6, CRYSTAL)
    both = labels_with(near, far)
    assert (render(both, "front", SIZE)[24, 24] == render(labels_with(near), "front", SIZE)[24, 24]).all()
    assert (render(both, "back", SIZE)[24, 24] == render(labels_with(far), "back", SIZE)[24, 24]).all()


def test_render__liquor_in_front_tints_the_crystal_and_lets_it_show():
    crystal = cube((24, 30, 24), 6)
    drowned = labels_with((LIQUOR, slice(6, 42), slice(4, 44), slice(6, 42)), crystal)
    dry, wet = (render(volume, size=SIZE)[24, 24].astype(float) for volume in (labels_with(crystal), drowned))
    assert wet[0] - wet[2] > 40  # still warm
    assert wet[0] / wet[2] < 0.9 * dry[0] / dry[2]  # but bluer: the liquor takes red out
    around = render(drowned, size=SIZE)[24, 10].astype(int)
    assert around[2] > around[0]


def test_render__menisci_are_darker_than_the_middle_of_a_drop():
    z, y, x = np.ogrid[:N, :N, :N]
    drop = ((z - 23.5) ** 2 + (y - 23.5) ** 2 + (x - 23.5) ** 2 < 18**2).astype(np.uint8) * LIQUOR
    brightness = render(drop, size=SIZE).astype(int).sum(axis=2)
    edge = brightness[24, 23 + 16]  # a ray that leaves a ball of index 1.38 by 31°
    assert edge < 0.75 * brightness[24, 24]
    assert edge < 0.75 * EMPTY.sum()


def test_render__a_drop_magnifies_what_lies_at_its_middle_by_its_index():
    # Seen from afar, a ball of radius r at the centre of a ball of index n has the radius n·r (n·r < R).
    z, y, x = np.ogrid[:N, :N, :N]
    distance = np.sqrt((z - 23.5) ** 2 + (y - 23.5) ** 2 + (x - 23.5) ** 2)
    labels = np.where(distance < 8, CRYSTAL, np.where(distance < 20, LIQUOR, 0)).astype(np.uint8)
    picture = render(labels, size=2 * N).astype(int)
    warm = picture[..., 0] > picture[..., 2] + 10
    # Half a pixel of 22 at the outline, and the blur shrinks the inner ball by σ²/r, 2 %.
    assert math.sqrt(warm.sum() / math.pi) == pytest.approx(2 * 1.38 * 8, rel=0.05)


def test_render__zoom_scales_about_the_middle():
    labels = labels_with(cube((24, 24, 24), 12))
    whole, half = shown(render(labels, size=64)).sum(), shown(render(labels, size=64, zoom=0.5)).sum()
    assert half == pytest.approx(whole / 4, rel=0.1)  # of a side of 16 pixels, one is the edge's


def test_render__striding_down_keeps_the_picture():
    small = labels_with(cube((30, 24, 20), 8), cube((12, 24, 24), 3, LOOP))
    large = small.repeat(8, axis=0).repeat(8, axis=1).repeat(8, axis=2)  # 384, drawn with stride 2
    a, b = shown(render(small, size=SIZE)), shown(render(large, size=SIZE))
    assert (a != b).mean() < 0.06  # the outlines: the blur is a voxel of either grid


def test_render__other_names_are_opaque_in_colours_of_their_own():
    names = {"background": 0, "active": 1, "graphite": 2}
    labels = labels_with(cube((24, 24, 12), 6, 1), cube((24, 24, 36), 6, 2))
    picture = render(labels, size=SIZE, names=names, colours={"graphite": "#00ff00"})
    active, graphite = picture[24, 12].astype(int), picture[24, 36].astype(int)
    assert graphite.argmax() == 1
    assert graphite[0] < 60  # only its gloss is not green
    assert np.abs(active - EMPTY).max() > 60
    assert active.argmax() != 1


def test_render__bodies_cut_by_the_field_and_single_slices_are_drawn():
    full = np.full((1, 24, 24), CRYSTAL, dtype=np.uint8)
    assert shown(render(full, "top", SIZE)).mean() > 0.9
    stem = labels_with((LOOP, slice(0, 20), slice(22, 27), slice(22, 27)))
    assert shown(render(stem, size=SIZE))[-2, 24]


@pytest.mark.parametrize("view", VIEWS)
def test_render__repeats_byte_for_byte(view):
    labels = labels_with((LIQUOR, slice(8, 40), slice(14, 34), slice(8, 40)), cube((24, 24, 24), 6))
    assert (render(labels, view, SIZE) == render(labels, view, SIZE)).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"labels": np.zeros((4, 4), np.uint8)}, "labels must be"),
        ({"labels": np.zeros((4, 4, 4), np.int64)}, "int64"),
        ({"view": "below"}, "front, side, back, top, oblique"),
        ({"view": (math.nan, 0.0)}, "azimuth, elevation"),
        ({"size": 4}, "size"),
        ({"zoom": 0.0}, "zoom"),
    ],
)
def test_render__says_what_is_wrong(arguments, says):
    with pytest.raises(InputError, match=says):
        render(**{"labels": np.zeros((4, 4, 4), np.uint8), **arguments})


# --- sheets ---------------------------------------------------------------------------------------


def test_sample_tile__knows_its_pixels_and_shows_the_slice():
    labels = labels_with(cube((40, 24, 24), 4))
    tile = sample_tile(labels, 2e-6, "seed 1", size=96, zoom=0.5)
    assert tile.image.shape == (96, 96, 3)
    assert tile.pixel_size == pytest.approx(48 * 2e-6 / (0.5 * 96), rel=1e-12)
    # The inset's middle: the slice through the crystal, not the field's middle slice, which is empty.
    side = round(0.28 * 96)
    assert tile.image[-side // 2, -side // 2, 0] > 200
    assert (tile.image[-2, -2] == 0x11).all()


def test_write_tile__keeps_the_picture_and_says_when_it_is_lost(tmp_path):
    tile = sample_tile(labels_with(cube((24, 24, 24))), 2e-6, "a", size=96)
    write_tile(tmp_path / "a.png", tile)
    write_tile(tmp_path / "b.png", tile)
    assert (read_tile(tmp_path / "a.png") == tile.image).all()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes()[:300])
    with pytest.raises(StorageError, match=r"a\.png"):
        read_tile(tmp_path / "a.png")
    with pytest.raises(StorageError, match=r"c\.png"):
        read_tile(tmp_path / "c.png")


def test_contact_sheet__has_the_size_of_its_tiles_and_repeats():
    tiles = [(np.full((240, 240, 3), 10 * i, np.uint8), f"seed {i}\nlysozyme") for i in range(24)]
    png = contact_sheet(tiles)
    assert png == contact_sheet(tiles)
    width, height = size_of(png)
    assert width == 6 * 240 + 7 * 8
    assert 4 * 240 < height < 4 * 300
    assert size_of(contact_sheet(tiles, columns=4))[0] == 4 * 240 + 5 * 8
    assert size_of(contact_sheet(tiles, title="Set"))[1] > height


def test_contact_sheet__shows_each_tile_unscaled_and_in_order():
    tiles = [(np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8), str(i)) for i in range(5)]
    with Image.open(io.BytesIO(contact_sheet(tiles, columns=3))) as image:
        sheet = np.array(image.convert("RGB"))
    step = (sheet.shape[0] - 8) // 2
    for i, (tile, _) in enumerate(tiles):
        top, left = 8 + i // 3 * step, 8 + i % 3 * 48
        assert (sheet[top : top + 40, left : left + 40] == tile).all()
    assert (sheet[8 + step : 48 + step, 8 + 2 * 48 : 48 + 2 * 48] == WHITE).all()  # no sixth


def test_contact_sheet__draws_scale_bars_of_tiles_that_know_their_pixels():
    tile = sample_tile(labels_with(cube((24, 24, 24))), 2e-6, "a", size=96)
    assert contact_sheet([tile]) != contact_sheet([(tile.image, tile.caption)])


def test_contact_sheet__breaks_long_captions():
    picture = np.zeros((120, 120, 3), np.uint8)
    long = "lysozyme orthorhombic crystal and two more, nylon mount"
    assert size_of(contact_sheet([(picture, long)]))[1] > size_of(contact_sheet([(picture, "short")]))[1]


def test_contact_sheet__says_what_is_wrong():
    picture = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(InputError, match="needs tiles"):
        contact_sheet([])
    with pytest.raises(InputError, match="at least 1 column"):
        contact_sheet([(picture, "")], columns=0)
    with pytest.raises(InputError, match="same size"):
        contact_sheet([(picture, ""), (picture[:10], "")])
    with pytest.raises(InputError, match="float64"):
        contact_sheet([(picture.astype(float), "")])


# --- measures -------------------------------------------------------------------------------------


def test_sample_measures__of_a_box_crystal_are_its_closed_forms():
    labels = labels_with((CRYSTAL, slice(10, 22), slice(20, 24), slice(4, 34)))  # 12 × 4 × 30
    found = sample_measures(labels, 1e-6)
    assert found["voxels_crystal"] == 12 * 4 * 30
    assert found["fraction_crystal"] == pytest.approx(12 * 4 * 30 / N**3, rel=1e-12)
    assert found["crystal_size"] == pytest.approx(1e-6 * math.sqrt(12**2 + 4**2 + 30**2), rel=1e-12)
    assert found["crystal_aspect"] == pytest.approx(30 / 4, rel=1e-12)
    centre = [found[f"crystal_centre_{axis}"] for axis in "zyx"]
    assert centre == pytest.approx([-8e-6, -2e-6, -5e-6], rel=1e-12)
    assert found["crystal_wetted_share"] == 0.0
    assert found["crystal_loop_share"] == 0.0
    assert (found["pieces_crystal"], found["pieces_liquor"], found["pieces_loop"]) == (1, 0, 0)


def test_sample_measures__do_not_depend_on_how_a_body_is_turned():
    z, y, x = np.ogrid[:N, :N, :N]
    cosine, sine = math.cos(0.5), math.sin(0.5)
    along, across = cosine * (z - 23.5) + sine * (y - 23.5), cosine * (y - 23.5) - sine * (z - 23.5)
    turned = (np.abs(along) < 18) & (np.abs(across) < 6) & (np.abs(x - 23.5) < 10)
    found = sample_measures(turned.astype(np.uint8) * CRYSTAL, 1e-6)
    # A box of 36 × 12 × 20 about x by 0.5 rad; its slanted sides are steps of a voxel.
    assert found["crystal_size"] == pytest.approx(1e-6 * math.hypot(36, 12, 20), abs=1e-6)
    assert found["crystal_aspect"] == pytest.approx(3, rel=0.02)


def test_sample_measures__of_a_flat_crystal_one_voxel_thick():
    labels = labels_with((CRYSTAL, slice(10, 11), slice(20, 24), slice(4, 34)))
    found = sample_measures(labels, 1.0)
    assert found["crystal_size"] == pytest.approx(math.sqrt(1 + 4**2 + 30**2), rel=1e-12)
    assert found["crystal_aspect"] == pytest.approx(30, rel=1e-12)


def test_sample_measures__drowned_crystals_are_wet_all_over():
    drowned = labels_with((LIQUOR, slice(4, 44), slice(4, 44), slice(4, 44)), cube((24, 24, 24)))
    assert sample_measures(drowned, 1e-6)["crystal_wetted_share"] == 1.0


def test_sample_measures__shares_count_voxel_faces():
    # A 10-cube with liquor on its top, loop at its bottom: one of six sides each.
    side = slice(19, 29)
    labels = labels_with(
        (CRYSTAL, side, side, side), (LIQUOR, slice(29, 31), side, side), (LOOP, slice(17, 19), side, side)
    )
    found = sample_measures(labels, 1e-6)
    assert found["crystal_wetted_share"] == pytest.approx(1 / 6, rel=1e-12)
    assert found["crystal_loop_share"] == pytest.approx(1 / 6, rel=1e-12)
    assert found["loop_wetted_share"] == 0.0


def test_sample_measures__faces_on_the_edge_of_the_field_do_not_count():
    labels = labels_with((CRYSTAL, slice(0, 10), slice(0, 10), slice(0, 10)))
    labels[10, :10, :10] = LIQUOR
    assert sample_measures(labels, 1e-6)["crystal_wetted_share"] == pytest.approx(1 / 3, rel=1e-12)


def test_sample_measures__of_several_crystals_are_of_the_largest():
    labels = labels_with(cube((12, 12, 12), 2), cube((34, 34, 34), 6), (LIQUOR, 2, 2, 2), (LIQUOR, 40, 2, 2))
    found = sample_measures(labels, 1.0)
    assert (found["pieces_crystal"], found["pieces_liquor"]) == (2, 2)
    assert found["voxels_crystal"] == 4**3 + 12**3
    assert found["crystal_size"] == pytest.approx(12 * math.sqrt(3), rel=1e-12)
    assert found["crystal_centre_x"] == pytest.approx(34 - 24, rel=1e-12)


def test_sample_measures__without_a_crystal_or_of_other_phases():
    empty = sample_measures(np.zeros((N, N, N), np.uint8), 1e-6)
    assert empty["fraction_background"] == 1.0
    assert "crystal_size" not in empty
    names = {"background": 0, "active": 1, "graphite": 2}
    phases = sample_measures(labels_with(cube((12, 12, 12), 4, 1), cube((34, 34, 34), 4, 1)), 1e-6, names)
    assert phases["pieces_active"] == 2
    assert phases["fraction_graphite"] == 0.0
    assert sum(v for k, v in phases.items() if k.startswith("fraction")) == pytest.approx(1, rel=1e-12)


def test_sample_measures__says_what_is_wrong():
    with pytest.raises(InputError, match="labels must be"):
        sample_measures(np.zeros((4, 4, 4)), 1e-6)
    with pytest.raises(InputError, match="voxel_size"):
        sample_measures(np.zeros((4, 4, 4), np.uint8), 0.0)
    with pytest.raises(InputError, match=r"\[7\]"):
        sample_measures(np.full((4, 4, 4), 7, np.uint8), 1e-6)


# --- distributions --------------------------------------------------------------------------------


def table(count=40):
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "crystal_size": rng.lognormal(-9, 0.4, count),
            "crystal_aspect": rng.uniform(1, 4, count),
            "fraction_liquor": rng.uniform(0.02, 0.1, count),
            "crystal_contact_angle": rng.uniform(0.2, 0.9, count),
            "crystal_loop_share": np.zeros(count),
            "habit": rng.choice(["lysozyme_tetragonal", "thaumatin"], count),
            "mount": rng.choice(["nylon", "polymer"], count),
        }
    )


def test_distributions_picture__is_1200_wide_and_repeats():
    png = distributions_picture(table(), rejections={"the crystal is in pieces": 3})
    assert size_of(png)[0] == 1200
    assert png == distributions_picture(table(), rejections={"the crystal is in pieces": 3})


def test_distributions_picture__leaves_out_what_is_missing():
    whole = table()
    rows = {
        len(columns): size_of(distributions_picture(whole[columns]))[1]
        for columns in (
            ["habit"],
            ["crystal_size", "habit", "mount", "crystal_contact_angle", "crystal_aspect"],
            list(whole.columns),
        )
    }
    assert rows[1] < rows[5] == rows[7]  # four panels a row
    holes = whole.assign(crystal_contact_angle=np.nan, habit=None)
    without = whole.drop(columns=["crystal_contact_angle", "habit"])
    assert distributions_picture(holes) == distributions_picture(without)
    assert distributions_picture(whole.assign(remark="x")) == distributions_picture(whole)


def test_distributions_picture__draws_granular_sets_and_rejections_alone():
    particles = pd.DataFrame(
        {"radius": [1e-6, 2e-6, 2.5e-6], "phase": ["a", "b", "a"], "packing_fraction": [0.5, 0.51, 0.52]}
    )
    assert size_of(distributions_picture(particles))[0] == 1200
    many = {f"reason {i}": i + 1 for i in range(40)}
    assert size_of(distributions_picture(pd.DataFrame(), rejections=many))[1] < 500


def test_distributions_picture__says_when_there_is_nothing_to_draw():
    with pytest.raises(InputError, match="got no columns"):
        distributions_picture(pd.DataFrame())
    with pytest.raises(InputError, match="crystal_size"):
        distributions_picture(pd.DataFrame({"remark": ["x"]}))
