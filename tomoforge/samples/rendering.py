"""Pictures of label volumes as under a beamline's on-axis microscope, made by casting rays through the voxels.

Solids are opaque and shaded; liquor refracts, reflects and tints, so that its menisci stand dark against the
bright field. The same labels give the same pixels.
"""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import to_rgb
from scipy.ndimage import gaussian_filter

from tomoforge.compilation import compiled
from tomoforge.errors import InputError
from tomoforge.geometry import beam_direction, detector_axis
from tomoforge.volumes import LABEL_NAMES

LIQUOR = "liquor"  # the one label that is drawn translucent

# The rotation angle at which the beam looks the same way, and the elevation of the eye [rad].
VIEWS: Mapping[str, tuple[float, float]] = {
    "front": (0.0, 0.0),
    "side": (math.pi / 2, 0.0),
    "back": (math.pi, 0.0),
    "top": (0.0, math.pi / 2),
    "oblique": (math.radians(35.0), math.radians(25.0)),
}
BACKGROUND = (0.93, 0.945, 0.96)
COLOURS: Mapping[str, str] = {"crystal": "#E8743B", "loop": "#C99A3B"}
_PALETTE = ("#E8743B", "#0072B2", "#009E73", "#CC79A7", "#F0E442", "#56B4E9", "#C99A3B", "#8A8A8A")

# Longest side [voxels] that is drawn; larger volumes are strided down to it.
_LONGEST = 256
# σ [voxels] of the blur that turns voxels into smooth surfaces, and its reach.
_BLUR, _PAD = 1.0, 5
_PLATE = 6  # thickness [voxels] that a single slice is drawn with
# Rays per pixel along each side of it.
_RAYS = 2
# Of the liquor: refractive index; what passes of red, green, blue along a quarter of the field.
_INDEX = 1.38
_MIRRORED = ((_INDEX - 1) / (_INDEX + 1)) ** 2  # reflectance at normal incidence
_PASSES = (0.74, 0.88, 0.95)
# Cosines to the microscope's axis between which the backlight falls from full to dark.
_BRIGHT, _DARK = 0.97, 0.60
_REACH = 3.0  # [voxels] around a point of a surface that its normal is taken from
_STEP = 0.7  # [voxels] along a ray
_MOST_SURFACES = 8  # of liquor that a ray is followed through


def render(
    labels: np.ndarray,
    view: str | tuple[float, float] = "front",
    size: int = 240,
    *,
    zoom: float = 1.0,
    names: Mapping[str, int] = LABEL_NAMES,
    colours: Mapping[str, str] | None = None,
) -> np.ndarray:
    """A shaded picture of a label volume, with parallel rays, around the field's middle.

    Parameters
    ----------
    labels : (z, y, x) uint8; volumes of more than 256 voxels a side are strided down
    view : a name in ``VIEWS``, or (azimuth, elevation) [rad] of the eye; at elevation 0 the picture is what the
        beam sees at the rotation angle azimuth, with +z at the top
    size : height and width of the picture [pixels]
    zoom : 1 fits the field's longest side into the picture; less shows more, as oblique views of full fields need
    names : label name to value; 'liquor' is translucent, 0 is empty, all others are opaque
    colours : name to Matplotlib colour, where it is to differ from the usual

    Returns
    -------
    (size, size, 3) uint8, sRGB

    Raises
    ------
    InputError
        for labels that are not (z, y, x) uint8, an unknown view, a size below 8 pixels, or
        a zoom that is not positive.

    Notes
    -----
    Surfaces are the half-height level of labels blurred by about a voxel: a film of one voxel does not show,
    but for a volume of a single slice, which is drawn as a plate.
    """
    check_labels(labels)
    if size < 8:
        raise InputError(f"size must be at least 8 pixels, got {size}")
    if not (math.isfinite(zoom) and zoom > 0):
        raise InputError(f"zoom must be positive, got {zoom!r}")
    stride = -(-max(labels.shape) // _LONGEST)
    drawn = labels[::stride, ::stride, ::stride]
    if len(drawn) == 1:  # a 2-D sample is drawn as a plate
        drawn = drawn.repeat(_PLATE, axis=0)
    middle = (np.array(drawn.shape) - 1) / 2
    crop, corner = _padded_crop(drawn)
    solid, filled = np.arange(256) != 0, np.arange(256) != 0
    if LIQUOR in names:
        solid[names[LIQUOR]] = False
    longest = float(max(drawn.shape))
    picture = _cast_rays(
        _blurred(solid[crop]),
        _blurred(filled[crop]),
        crop,
        solid,
        colour_table(names, colours),
        np.array(_camera(view)),
        middle - corner,
        longest / zoom,
        size * _RAYS,
        -np.log(_PASSES) / (0.25 * longest),
        np.array(BACKGROUND),
    )
    smooth = picture.reshape(size, _RAYS, size, _RAYS, 3).mean(axis=(1, 3))
    return np.round(255 * np.clip(smooth, 0.0, 1.0)).astype(np.uint8)


def check_labels(labels: np.ndarray) -> None:
    """Raises InputError unless labels are (z, y, x) uint8."""
    if labels.ndim != 3 or labels.dtype != np.uint8 or 0 in labels.shape:
        raise InputError(f"labels must be (z, y, x) uint8, got {labels.dtype} of shape {labels.shape}")


def _camera(view: str | tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (z, y, x) to the right, to the top and into the picture."""
    if isinstance(view, str):
        if view not in VIEWS:
            raise InputError(
                f"view must be one of {', '.join(VIEWS)} or (azimuth, elevation) in radians, got {view!r}"
            )
        view = VIEWS[view]
    if len(view) != 2 or not all(math.isfinite(angle) for angle in view):
        raise InputError(f"view must be (azimuth, elevation) in radians, got {view!r}")
    azimuth, elevation = view
    level, vertical = beam_direction(azimuth), np.array([1.0, 0.0, 0.0])
    up = math.cos(elevation) * vertical + math.sin(elevation) * level
    forward = math.cos(elevation) * level - math.sin(elevation) * vertical
    return detector_axis(azimuth), up, forward


def _padded_crop(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is not empty with a margin around it, and the index (z, y, x) of its first voxel in ``labels``."""
    box = bounding_box(labels != 0)
    if box is None:
        box = (slice(0, 1),) * 3
    return np.pad(labels[box], _PAD), np.array([side.start for side in box]) - _PAD


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The smallest box around a mask (z, y, x), None where it is empty."""
    flat = mask.any(axis=0)
    along = (mask.any(axis=(1, 2)), flat.any(axis=1), flat.any(axis=0))
    if not along[0].any():
        return None
    z, y, x = (slice(int(line.argmax()), len(line) - int(line[::-1].argmax())) for line in along)
    return z, y, x


def _blurred(mask: np.ndarray) -> np.ndarray:
    return gaussian_filter(mask.astype(np.float32), _BLUR, radius=_PAD - 1, mode="constant")


def colour_table(names: Mapping[str, int], colours: Mapping[str, str] | None) -> np.ndarray:
    """(256, 3) float64: the colour of each label value."""
    known = {**COLOURS, **(colours or {})}
    table = np.full((256, 3), 0.5)
    others = [name for name, value in names.items() if value and name != LIQUOR and name not in known]
    spare = [colour for colour in _PALETTE if colour not in {known.get(name) for name in names}]
    known.update({name: spare[i % len(spare)] for i, name in enumerate(others)})
    for name, value in names.items():
        table[value] = to_rgb(known.get(name, "#808080"))
    return table


# --- Casting rays ---------------------------------------------------------------------------------


@compiled(inline=True)
def _sample(field, z, y, x):
    """Trilinear value; 0 outside."""
    i, j, k = math.floor(z), math.floor(y), math.floor(x)
    depth, height, width = field.shape
    if min(i, j, k) < 0 or i + 1 >= depth or j + 1 >= height or k + 1 >= width:
        return 0.0
    a, b, c = z - i, y - j, x - k
    low = (field[i, j, k] * (1 - c) + field[i, j, k + 1] * c) * (1 - b)
    low += (field[i, j + 1, k] * (1 - c) + field[i, j + 1, k + 1] * c) * b
    high = (field[i + 1, j, k] * (1 - c) + field[i + 1, j, k + 1] * c) * (1 - b)
    high += (field[i + 1, j + 1, k] * (1 - c) + field[i + 1, j + 1, k + 1] * c) * b
    return low * (1 - a) + high * a


@compiled()
def _outward(field, z, y, x):
    """Unit vector out of the body whose blurred mask ``field`` is.

    From 26 points on a sphere: a difference over one voxel would show the voxels' steps on every facet.
    """
    dz, dy, dx = 0.0, 0.0, 0.0
    for i in range(-1, 2):
        for j in range(-1, 2):
            for k in range(-1, 2):
                length = math.sqrt(i * i + j * j + k * k)
                if length > 0.0:
                    reach = _REACH / length
                    value = _sample(field, z + reach * i, y + reach * j, x + reach * k)
                    dz, dy, dx = dz - value * reach * i, dy - value * reach * j, dx - value * reach * k
    length = math.sqrt(dz * dz + dy * dy + dx * dx) + 1e-12
    return dz / length, dy / length, dx / length


@compiled()
def _smooth_step(low, high, value):
    t = min(1.0, max(0.0, (value - low) / (high - low)))
    return t * t * (3 - 2 * t)


@compiled()
def _label_under(labels, opaque, z, y, x, n):
    """The opaque label under a point of a surface with outward normal n; 0 if there is none near."""
    for depth in range(6):
        i = round(z - 0.5 * depth * n[0])
        j = round(y - 0.5 * depth * n[1])
        k = round(x - 0.5 * depth * n[2])
        if 0 <= i < labels.shape[0] and 0 <= j < labels.shape[1] and 0 <= k < labels.shape[2]:
            value = labels[i, j, k]
            if opaque[value]:
                return value
    return 0


@compiled()
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled()
def _backlight(direction, forward):
    """What a ray sees behind the sample, 0…1: the condenser's light comes from near the axis."""
    return 0.30 + 0.70 * _smooth_step(_DARK, _BRIGHT, _dot(direction, forward))


@compiled()
def _lamp(direction, light):
    """What a mirror shows in this direction: a soft lamp in a dim room."""
    return 0.35 + 2.2 * _smooth_step(0.90, 0.97, _dot(direction, light))


@compiled()
def _surface(field, z, y, x, d):
    """Where the level 0.5 lies within a step before a point on its far side, by bisection."""
    near, far = -_STEP, 0.0
    for _ in range(4):
        middle = (near + far) / 2
        if _sample(field, z + middle * d[0], y + middle * d[1], x + middle * d[2]) >= 0.5:
            far = middle
        else:
            near = middle
    return z + far * d[0], y + far * d[1], x + far * d[2]


@compiled()
def _reflected(d, n):
    c = -2 * _dot(d, n)
    return d[0] + c * n[0], d[1] + c * n[1], d[2] + c * n[2]


@compiled()
def _refracted(d, n, ratio):
    """Direction behind a surface (Snell), n against d; ratio : index before / behind. And whether it gets there."""
    c = -_dot(d, n)
    k = 1.0 - ratio * ratio * (1.0 - c * c)
    if k < 0.0:  # total reflection
        return _reflected(d, n), False
    q = ratio * c - math.sqrt(k)
    return (ratio * d[0] + q * n[0], ratio * d[1] + q * n[1], ratio * d[2] + q * n[2]), True


@compiled()
def _lit(n, d, up, light):
    """Brightness of a matt solid, and its gloss."""
    facing = max(0.0, -_dot(n, d))
    lambert = max(0.0, _dot(n, light))
    half = (light[0] - d[0], light[1] - d[1], light[2] - d[2])
    gloss = max(0.0, _dot(n, half)) / math.sqrt(_dot(half, half))
    matt = 0.28 + 0.10 * _dot(n, up) + 0.62 * lambert + 0.22 * facing
    return matt, 0.35 * gloss**40


@compiled()
def _cast_rays(solid, filled, labels, opaque, colours, camera, middle, extent, rays, tint, background):
    """Pictures of two blurred masks (z, y, x) float32: (rays, rays, 3) float64, 0…1.

    labels : (z, y, x) uint8 of the same grid; camera : rows right, up, forward; middle : of the field [voxels];
    extent : width of the picture [voxels]; tint : attenuation of red, green, blue in liquor [1/voxel]
    """
    right, up, forward = camera[0], camera[1], camera[2]
    light = -0.50 * right + 0.62 * up - 0.60 * forward
    picture = np.empty((rays, rays, 3))
    sides = solid.shape
    reach = extent + sides[0] + sides[1] + sides[2]
    for row in range(rays):
        for column in range(rays):
            u = ((column + 0.5) / rays - 0.5) * extent
            v = (0.5 - (row + 0.5) / rays) * extent
            first, last = 0.0, 2.0 * reach
            start = middle + u * right + v * up - reach * forward
            for axis in range(3):
                if abs(forward[axis]) > 1e-9:
                    near = (0.0 - start[axis]) / forward[axis]
                    far = (sides[axis] - 1.001 - start[axis]) / forward[axis]
                    first, last = max(first, min(near, far)), min(last, max(near, far))
                elif not 0 <= start[axis] <= sides[axis] - 1.001:
                    last = -1.0
            for channel in range(3):
                picture[row, column, channel] = background[channel]
            first, last = first + 1e-6, last - 1e-6
            if first < last:
                entry = start + first * forward
                _follow(
                    picture[row, column],
                    entry,
                    solid,
                    filled,
                    labels,
                    opaque,
                    colours,
                    camera,
                    light,
                    tint,
                    background,
                )
    return picture


@compiled()
def _follow(pixel, entry, solid, filled, labels, opaque, colours, camera, light, tint, background):
    """Follow one ray through liquor to a solid or to the backlight; writes ``pixel`` (3,)."""
    up, forward = camera[1], camera[2]
    z, y, x = entry[0], entry[1], entry[2]
    d = (forward[0], forward[1], forward[2])
    weight, path = 1.0, 0.0  # share of the light that is left to find; length in liquor so far
    wet, surfaces, fill = False, 0, 0.0
    pixel[:] = 0.0
    depth, height, width = filled.shape
    while True:
        inside = 0 <= z < depth - 1 and 0 <= y < height - 1 and 0 <= x < width - 1
        if not inside or surfaces > _MOST_SURFACES:
            seen = weight * _backlight(d, forward)
            for channel in range(3):
                pixel[channel] += seen * background[channel] * math.exp(-tint[channel] * path)
            return
        before = fill
        if not wet and filled[int(z + 0.5), int(y + 0.5), int(x + 0.5)] == 0.0:
            # The blur reaches farther than this, so that no surface is stepped over.
            fill, step = 0.0, 2.0
        else:
            fill, step = _sample(filled, z, y, x), _STEP
        crossed = fill < 0.5 if wet else fill >= 0.5
        body = fill >= 0.4 and _sample(solid, z, y, x) >= 0.5
        n = (0.0, 0.0, 0.0)
        if body:
            z, y, x = _surface(solid, z, y, x, d)
        elif crossed:
            # Back to where the level is 0.5, by the secant.
            back = step * min(1.0, max(0.0, (fill - 0.5) / (fill - before))) if fill != before else 0.0
            z, y, x = z - back * d[0], y - back * d[1], x - back * d[2]
            path -= back if wet else 0.0
            n = _outward(filled, z, y, x)
            # What lies right under the surface of all that is not air may be a solid without liquor on it.
            body = not wet and _sample(solid, z - n[0], y - n[1], x - n[2]) >= 0.5
        if body:
            n = _outward(solid, z, y, x)
            value = _label_under(labels, opaque, z, y, x, n)
            matt, gloss = _lit(n, d, up, light)
            if wet:  # the indices on both sides are alike
                gloss *= 0.4
            for channel in range(3):
                lit = matt * colours[value, channel] + gloss
                pixel[channel] += weight * lit * math.exp(-tint[channel] * path)
            return
        if crossed:
            surfaces += 1
            if wet:
                n = (-n[0], -n[1], -n[2])
            else:
                c = min(1.0, max(0.0, -_dot(d, n)))
                share = _MIRRORED + (1.0 - _MIRRORED) * (1.0 - c) ** 5  # Schlick's reflectance
                pixel[:] += weight * share * _lamp(_reflected(d, n), light)
                weight *= 1.0 - share
            d, passed = _refracted(d, n, _INDEX if wet else 1.0 / _INDEX)
            wet = wet != passed
            fill = 0.5
            z, y, x = z + 0.3 * d[0], y + 0.3 * d[1], x + 0.3 * d[2]
        z, y, x = z + step * d[0], y + step * d[1], x + step * d[2]
        path += step if wet else 0.0
