"""Overlapping spheres or discs to ones that do not overlap: soft repulsion, minimised.

Particles that overlap repel each other (and the walls) with a force equal to the overlap; FIRE descends
that energy. Below the jamming density it reaches zero. Above, it ends in a balance of squeezed
particles: then some are left out and the rest relaxes on. Radii never change.

Discs are spheres whose z stays 0. Lengths are in any one unit; results have the same bytes in each run.

References: E. Bitzek et al., "Structural relaxation made simple", Phys. Rev. Lett. 97, 170201 (2006);
C. S. O'Hern et al., "Jamming at zero temperature and zero applied stress", Phys. Rev. E 68, 011306 (2003);
hierarchical cells: K. Iwai et al., "Fast particle pair detection algorithms", Granular Matter 1 (1999).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tomoforge.compilation import compiled

_log = logging.getLogger(__name__)

# Radii are inflated by this while relaxing, so that the descent ends with a gap after finitely many steps;
# it costs 3 × 0.001 of the density that could be reached.
_INFLATION = 1e-3
# The gap asked of each pair, relative to the sum of radii: rounding in another unit or frame stays below.
_GAP = 1e-5
# Pairs nearer than this (in median radii) beyond contact are listed, and valid until one moved half of it.
_SKIN = 0.35
# Net forces below this share of the contact forces: the particles are in balance, so they are jammed.
_BALANCE = 3e-3
# Steps after which slow particles count as jammed too: near the jamming density the descent is endless.
_STEPS_BETWEEN_REMOVALS = 6000
_PEERS = 20
_DT, _DT_MAX = 0.05, 0.5


@dataclass(frozen=True, eq=False)
class Relaxed:
    """kept : (n,) indices of the particles that stayed; centres : (n, dims) float64 of these, up to a radius
    beyond joined faces;
    iterations : steps of the descent."""

    kept: np.ndarray
    centres: np.ndarray
    iterations: int


def relax(
    centres: np.ndarray,
    radii: np.ndarray,
    groups: np.ndarray,
    box: np.ndarray,
    periodic: bool,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Relaxed:
    """Move particles until none overlap, leaving out as many as it takes.

    Parameters
    ----------
    centres : (particle, dims) float64, the box's middle at the origin; radii : (particle,) float64
    groups : (particle,) int; those left out are replaced by none, but drawn so that each group keeps the
        distribution of its radii
    box : (dims,) sides; periodic : opposite faces joined, else walls
    rng : draws who is left out, and is used only where some are
    progress : called with (particles without overlap, particles)
    """
    dims = centres.shape[1]
    unit = float(np.median(radii))
    sides = np.full(3, 1e9)
    sides[:dims] = box / unit
    wraps = np.zeros(3, dtype=np.bool_)
    wraps[:dims] = periodic
    # Neighbours in space become neighbours in memory: several times faster from 10⁴ particles on.
    kept = np.lexsort(np.floor(centres / unit / 4).T)
    place = np.zeros((len(radii), 3))
    place[:, :dims] = centres[kept] / unit
    size = radii[kept] / unit
    steps, rounds = 0, 0
    while True:
        done, used = _descended(place, size, sides, wraps, dims)
        steps += used
        if progress is not None:
            squeezed = 0 if done else _count_squeezed(place, size, sides, wraps, dims)
            progress(len(kept) - squeezed, len(kept))
        if done:
            break
        squeeze, overlap = _squeeze(place, size, sides, wraps, dims)
        # Shrinking all by the mean overlap would free them; half of that volume is left out at a time,
        # and more the longer it takes, so that this ends.
        share = 0.5 * dims * overlap * 1.3 ** max(0, rounds - 6)
        count = min(len(kept) - 1, max(1, round(share * len(kept))))  # one alone always fits
        gone = _left_out(squeeze, size, groups[kept], count, rng)
        _log.debug("jammed after %d steps: %d of %d particles left out", steps, count, len(kept))
        stay = np.setdiff1d(np.arange(len(kept)), gone)
        kept, size, place = kept[stay], size[stay], np.ascontiguousarray(place[stay])
        rounds += 1
    order = np.argsort(kept)
    return Relaxed(kept[order], place[order, :dims] * unit, steps)


def largest_overlap(centres: np.ndarray, radii: np.ndarray, box: np.ndarray, periodic: bool) -> float:
    """The largest r_i + r_j − distance over all pairs (nearest images) and r − distance to the walls.

    Negative is the smallest gap; gaps beyond a third of the median radius are reported as that. Each
    pair near contact is looked at: (particle, dims), (particle,), (dims,) in one unit of length.
    """
    dims = centres.shape[1]
    sides = np.full(3, 1e9 * float(np.max(box)))
    sides[:dims] = box
    wraps = np.zeros(3, dtype=np.bool_)
    wraps[:dims] = periodic
    place = np.zeros((len(radii), 3))
    place[:, :dims] = centres
    skin = _SKIN * float(np.median(radii))
    pairs = _near_pairs(place, radii, sides, wraps, dims, skin)
    return float(max(-skin, _worst(place, radii, pairs, sides, wraps)))


# --- the descent ----------------------------------------------------------------------------------------


def _descended(
    place: np.ndarray, size: np.ndarray, sides: np.ndarray, wraps: np.ndarray, dims: int
) -> tuple[bool, int]:
    """Move ``place`` downhill: (whether no pair overlaps, steps taken)."""
    velocity = np.zeros_like(place)
    # Contacts grow with the surface; with masses that do too, large particles shake no faster than small.
    mass = (size / size.min()) ** (dims - 1)
    state = np.array([_DT, 0.1, 0.0])  # step, mixing of FIRE, steps downhill
    grown = size * (1 + _INFLATION)
    left = _STEPS_BETWEEN_REMOVALS
    while left > 0:
        place[:, wraps] -= sides[wraps] * np.floor(place[:, wraps] / sides[wraps] + 0.5)
        pairs = _near_pairs(place, grown, sides, wraps, dims, _SKIN)
        status, used = _fire(place, velocity, grown, mass, pairs, sides, wraps, state, left)
        left -= used
        if status != 0:
            return status == 1, _STEPS_BETWEEN_REMOVALS - left
    return False, _STEPS_BETWEEN_REMOVALS


def _squeeze(
    place: np.ndarray, size: np.ndarray, sides: np.ndarray, wraps: np.ndarray, dims: int
) -> tuple[np.ndarray, float]:
    """Sum of the relative overlaps of each particle (n,), and their mean over the contacts."""
    grown = size * (1 + _INFLATION)
    pairs = _near_pairs(place, grown, sides, wraps, dims, 0.0)
    sums = np.zeros(len(size))
    total, contacts = _overlap_sums(place, grown, pairs, sides, wraps, sums)
    return sums, total / max(contacts, 1)


def _count_squeezed(
    place: np.ndarray, size: np.ndarray, sides: np.ndarray, wraps: np.ndarray, dims: int
) -> int:
    return int(np.count_nonzero(_squeeze(place, size, sides, wraps, dims)[0] > _INFLATION))


def _left_out(
    squeeze: np.ndarray, size: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """``count`` particles to leave out: for each of as many drawn at random, the most squeezed of its
    peers, those of its group that are nearest in size. So each group keeps its sizes."""
    order = np.lexsort((size, groups))
    gone: set[int] = set()
    for at in rng.permutation(len(order))[:count]:
        first = max(0, min(at - _PEERS // 2, len(order) - _PEERS))
        peers = [i for i in order[first : first + _PEERS] if groups[i] == groups[order[at]] and i not in gone]
        if peers:
            gone.add(int(max(peers, key=lambda i: (squeeze[i], -i))))
    return np.array(sorted(gone), dtype=np.int64)


# --- neighbours -----------------------------------------------------------------------------------------


def _near_pairs(
    place: np.ndarray, size: np.ndarray, sides: np.ndarray, wraps: np.ndarray, dims: int, skin: float
) -> np.ndarray:
    """Pairs whose surfaces are nearer than ``skin``: (pair, 2) int32.

    Classes of size, each half the last, have grids of their own: each particle looks into the grids of
    its own class and of the larger ones, so that small ones among large ones stay few to a cell.
    """
    if len(size) == 0:
        return np.zeros((0, 2), dtype=np.int32)
    group = np.minimum(np.floor(np.log2(size.max() / size)), 15).astype(np.int64)
    classes, group = np.unique(group, return_inverse=True)
    largest = np.array([size[group == k].max() for k in range(len(classes))])
    counts = np.bincount(group, minlength=len(classes))
    grids = np.ones((len(classes), 3), dtype=np.int64)
    for k in range(len(classes)):
        # Cells hold the widest reach of the class; more cells than particles would only cost memory.
        most = math.ceil((2 * counts[k]) ** (1 / dims)) + 1
        fit = np.floor(sides[:dims] / (2 * largest[k] + skin) * (1 - 1e-12))
        grids[k, :dims] = np.clip(fit, 1, most)
    starts = np.concatenate([[0], np.cumsum(grids.prod(axis=1))])
    heads = np.full(starts[-1], -1, dtype=np.int64)
    links = np.full(len(size), -1, dtype=np.int64)
    _fill_cells(place, group, grids, starts, sides, wraps, heads, links)
    # Room for the contacts of a dense packing; where that is too little, the count says how much it takes.
    pairs = np.empty((12 * len(size), 2), dtype=np.int32)
    found = _search(place, size, group, grids, starts, sides, wraps, heads, links, skin, pairs)
    if found > len(pairs):
        pairs = np.empty((found, 2), dtype=np.int32)
        _search(place, size, group, grids, starts, sides, wraps, heads, links, skin, pairs)
    return pairs[:found]


@compiled(inline=True)
def _cell(x, n, side, wrap):
    i = math.floor((x / side + 0.5) * n)
    return i % n if wrap else min(max(i, 0), n - 1)


@compiled(inline=True)
def _nearest(d, side, wrap):
    """The difference of two coordinates, neither far outside the box, to the nearest image."""
    if wrap:
        if d > 0.5 * side:
            return d - side
        if d < -0.5 * side:
            return d + side
    return d


@compiled()
def _fill_cells(place, group, grids, starts, sides, wraps, heads, links):
    for i in range(len(place)):
        nx, ny, nz = grids[group[i]]
        x = _cell(place[i, 0], nx, sides[0], wraps[0])
        y = _cell(place[i, 1], ny, sides[1], wraps[1])
        z = _cell(place[i, 2], nz, sides[2], wraps[2])
        at = starts[group[i]] + (z * ny + y) * nx + x
        links[i] = heads[at]
        heads[at] = i


@compiled(inline=True)
def _first_offset(n, wrap):
    # Joined faces make the cells on both sides the same one where there are only two, or one.
    return -1 if not wrap or n > 2 else 0


@compiled(inline=True)
def _last_offset(n, wrap):
    return 1 if not wrap or n > 1 else 0


@compiled()
def _search(place, size, group, grids, starts, sides, wraps, heads, links, skin, pairs):
    """Count the near pairs, and write them where ``pairs`` has room."""
    found = 0
    for i in range(len(place)):
        for k in range(group[i] + 1):
            nx, ny, nz = grids[k]
            cx = _cell(place[i, 0], nx, sides[0], wraps[0])
            cy = _cell(place[i, 1], ny, sides[1], wraps[1])
            cz = _cell(place[i, 2], nz, sides[2], wraps[2])
            for oz in range(_first_offset(nz, wraps[2]), _last_offset(nz, wraps[2]) + 1):
                z = cz + oz
                if wraps[2]:
                    z %= nz
                elif z < 0 or z >= nz:
                    continue
                for oy in range(_first_offset(ny, wraps[1]), _last_offset(ny, wraps[1]) + 1):
                    y = cy + oy
                    if wraps[1]:
                        y %= ny
                    elif y < 0 or y >= ny:
                        continue
                    for ox in range(_first_offset(nx, wraps[0]), _last_offset(nx, wraps[0]) + 1):
                        x = cx + ox
                        if wraps[0]:
                            x %= nx
                        elif x < 0 or x >= nx:
                            continue
                        j = heads[starts[k] + (z * ny + y) * nx + x]
                        while j >= 0:
                            if k < group[i] or j < i:
                                dx = _nearest(place[i, 0] - place[j, 0], sides[0], wraps[0])
                                dy = _nearest(place[i, 1] - place[j, 1], sides[1], wraps[1])
                                dz = _nearest(place[i, 2] - place[j, 2], sides[2], wraps[2])
                                reach = size[i] + size[j] + skin
                                if dx * dx + dy * dy + dz * dz < reach * reach:
                                    if found < len(pairs):
                                        pairs[found, 0] = i
                                        pairs[found, 1] = j
                                    found += 1
                            j = links[j]
    return found


# --- kernels on pairs -----------------------------------------------------------------------------------


@compiled()
def _fire(place, velocity, size, mass, pairs, sides, wraps, state, steps):
    """Steps of FIRE with a fixed list of pairs. (status, steps): 0 list outdated or steps used up,
    1 no overlap, 2 in balance under load."""
    n = len(place)
    force = np.zeros((n, 3))
    moved = np.zeros((n, 3))
    for step in range(steps):
        # Energy, forces, and the worst overlap of the true radii.
        force[:] = 0.0
        energy = 0.0
        worst = -1.0
        for p in range(len(pairs)):
            i, j = pairs[p, 0], pairs[p, 1]
            dx = _nearest(place[i, 0] - place[j, 0], sides[0], wraps[0])
            dy = _nearest(place[i, 1] - place[j, 1], sides[1], wraps[1])
            dz = _nearest(place[i, 2] - place[j, 2], sides[2], wraps[2])
            square = dx * dx + dy * dy + dz * dz
            reach = size[i] + size[j]
            if square >= reach * reach:
                continue
            distance = math.sqrt(square)
            overlap = reach - distance
            worst = max(worst, overlap / reach)
            energy += 0.5 * overlap * overlap
            if distance < 1e-12:  # one upon the other: any direction will do
                dx, dy, dz, distance = 1e-12, 0.0, 0.0, 1e-12
            pull = overlap / distance
            force[i, 0] += pull * dx
            force[i, 1] += pull * dy
            force[i, 2] += pull * dz
            force[j, 0] -= pull * dx
            force[j, 1] -= pull * dy
            force[j, 2] -= pull * dz
        for axis in range(3):
            if not wraps[axis]:
                for i in range(n):
                    overlap = abs(place[i, axis]) + size[i] - 0.5 * sides[axis]
                    if overlap > 0:
                        worst = max(worst, overlap / size[i])
                        energy += 0.5 * overlap * overlap
                        force[i, axis] -= math.copysign(overlap, place[i, axis])
        if worst <= _INFLATION - _GAP:
            return 1, step
        power, force2, velocity2 = 0.0, 0.0, 0.0
        for i in range(n):
            for axis in range(3):
                power += force[i, axis] * velocity[i, axis]
                force2 += force[i, axis] ** 2
                velocity2 += velocity[i, axis] ** 2
        if force2 < _BALANCE**2 * 4 * energy:
            return 2, step
        # FIRE: turn the velocity towards the force; stop and start anew when going uphill.
        if power > 0:
            state[2] += 1
            if state[2] > 5:
                state[0] = min(1.1 * state[0], _DT_MAX)
                state[1] *= 0.99
        else:
            state[0] = max(0.5 * state[0], 0.02)
            state[1] = 0.1
            state[2] = 0
            velocity[:] = 0.0
            velocity2 = 0.0
        turn = state[1] * math.sqrt(velocity2 / force2)
        farthest = 0.0
        for i in range(n):
            square = 0.0
            for axis in range(3):
                velocity[i, axis] = (1 - state[1]) * velocity[i, axis] + turn * force[i, axis]
                velocity[i, axis] += state[0] * force[i, axis] / mass[i]
                place[i, axis] += state[0] * velocity[i, axis]
                moved[i, axis] += state[0] * velocity[i, axis]
                square += moved[i, axis] ** 2
            farthest = max(farthest, square)
        if farthest > (0.5 * _SKIN) ** 2:
            return 0, step + 1
    return 0, steps


@compiled()
def _overlap_sums(place, size, pairs, sides, wraps, sums):
    """Add each contact's relative overlap to both its particles; (their total, how many contacts)."""
    total, contacts = 0.0, 0
    for p in range(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        square = 0.0
        for axis in range(3):
            square += _nearest(place[i, axis] - place[j, axis], sides[axis], wraps[axis]) ** 2
        overlap = 1 - math.sqrt(square) / (size[i] + size[j])
        if overlap > 0:
            sums[i] += overlap
            sums[j] += overlap
            total += overlap
            contacts += 1
    return total, contacts


@compiled()
def _worst(place, size, pairs, sides, wraps):
    """The largest overlap of any listed pair, or with a wall."""
    worst = -np.inf
    for p in range(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        square = 0.0
        for axis in range(3):
            square += _nearest(place[i, axis] - place[j, axis], sides[axis], wraps[axis]) ** 2
        worst = max(worst, size[i] + size[j] - math.sqrt(square))
    for axis in range(3):
        if not wraps[axis]:
            for i in range(len(place)):
                worst = max(worst, abs(place[i, axis]) + size[i] - 0.5 * sides[axis])
    return worst
