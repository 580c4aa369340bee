"""Compiled fits of smooth patches to the stepped surfaces of a label volume.

Checked input throughout: ``labels`` (z, y, x) uint8; ``codes`` (z, y, x) int32, 256 + k for candidate k and a label
elsewhere; ``voxels`` (candidate, 3) int32. A patch is a polynomial z = f(i, j) of the height along one axis over
the other two (cyclic order), about the candidate that anchors it; below it lies what is "in".
"""

from typing import Any

import numba
import numpy as np

from tomoforge.compilation import compiled

_TOLERANCE = 0.07  # beyond half a voxel, that a step may lie from the patch: the fit's own error
_LADDER = (1.5, 2.3, 3.2, 4.3, 5.7, 7.5, 10.0, 13.0, 17.0, 22.0)  # radii of windows, in columns
_TERMS = 6
_LINEAR = 3  # terms of a plane, all that the smallest windows bear
_SEARCH = 2  # steps up and down to look for a column's surface
_TURNS = 24  # of making a patch meet the voxels that it misses
_HOPELESS = 1.5  # voxels that a patch misses a column by, which no larger window mends
_FAILURES = 2  # windows in a row without a patch, before larger ones are given up
_GOOD = 5.0  # radius of a patch that spares its neighbours one of their own


@compiled()
def candidates(labels: np.ndarray, codes: np.ndarray, voxels: np.ndarray) -> int:
    """Number of voxels with another label among their 26 neighbours; listed and coded where there is room."""
    nz, ny, nx = labels.shape
    count = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                own = labels[z, y, x]
                mixed = False
                for k in range(max(z - 1, 0), min(z + 2, nz)):
                    for j in range(max(y - 1, 0), min(y + 2, ny)):
                        for i in range(max(x - 1, 0), min(x + 2, nx)):
                            mixed = mixed or labels[k, j, i] != own
                if mixed:
                    if len(voxels):
                        voxels[count, 0], voxels[count, 1], voxels[count, 2] = z, y, x
                        codes[z, y, x] = 256 + count
                    count += 1
    return count


@compiled()
def _factor(matrix: np.ndarray, terms: int) -> None:
    """Cholesky in place; the ridge leaves out what the columns do not determine."""
    ridge = 1e-9 * matrix[0, 0]
    for k in range(terms):
        matrix[k, k] += ridge
        for m in range(k):
            matrix[k, k] -= matrix[k, m] ** 2
        matrix[k, k] = np.sqrt(max(matrix[k, k], 1e-3 * ridge))
        for n in range(k + 1, terms):
            for m in range(k):
                matrix[n, k] -= matrix[n, m] * matrix[k, m]
            matrix[n, k] /= matrix[k, k]


@compiled()
def _solve(factor: np.ndarray, vector: np.ndarray, terms: int) -> None:
    for k in range(terms):
        for m in range(k):
            vector[k] -= factor[k, m] * vector[m]
        vector[k] /= factor[k, k]
    for k in range(terms - 1, -1, -1):
        for m in range(k + 1, terms):
            vector[k] -= factor[m, k] * vector[m]
        vector[k] /= factor[k, k]


@compiled()
def _polynomial(c: np.ndarray, i: float, j: float) -> Any:
    return c[0] + c[1] * i + c[2] * j + c[3] * i * i + c[4] * i * j + c[5] * j * j


@compiled()
def _is_in(label: int, kind: int, below: int, above: int) -> Any:
    """Kind 0: ``below`` against all others; kind 1: all others against ``above``."""
    return label == below if kind == 0 else label != above


@compiled()
def _normal(labels: np.ndarray, z: int, y: int, x: int) -> Any:
    """Where the others lie, seen from a voxel: a rough outward normal, not of unit length."""
    nz, ny, nx = labels.shape
    own = labels[z, y, x]
    a, b, c = 0, 0, 0
    for k in range(-3, 4):
        for j in range(-3, 4):
            for i in range(-3, 4):
                if k * k + j * j + i * i <= 10:
                    inside = 0 <= z + k < nz and 0 <= y + j < ny and 0 <= x + i < nx
                    if inside and labels[z + k, y + j, x + i] != own:
                        a, b, c = a + k, b + j, c + i
    return a, b, c


@compiled()
def _patch(
    labels: np.ndarray, at: np.ndarray, axis: int, kind: int, best: np.ndarray, work: np.ndarray
) -> Any:
    """Largest radius to which a patch about voxel ``at`` agrees with every column, and whether it met a third label.

    ``best`` (6,) becomes its coefficients, heights from the voxel's centre; ``work`` (column, 3) is scratch.
    """
    b, c = (axis + 1) % 3, (axis + 2) % 3
    shape, stride = labels.shape, (labels.shape[1] * labels.shape[2], labels.shape[2], 1)
    flat = labels.reshape(-1)
    here = at[0] * stride[0] + at[1] * stride[1] + at[2]
    up = stride[axis]
    below, above = flat[here], flat[here + up]
    radius, third = 0.0, False
    best[:] = 0.0
    best[0] = 0.5
    matrix, vector, guess = np.empty((_TERMS, _TERMS)), np.empty(_TERMS), best.copy()
    last = best.copy()
    basis, change, failures = np.empty(_TERMS), np.empty(_TERMS), 0
    for wanted in _LADDER:
        terms = _TERMS if wanted > 2.5 else _LINEAR
        matrix[:], vector[:] = 0.0, 0.0
        reach, count = int(wanted), 0
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach + 1):
                square = (i * i + j * j) / (wanted * wanted)
                if square > 1.0:
                    continue
                if not (0 <= at[b] + i < shape[b] and 0 <= at[c] + j < shape[c]):
                    continue
                start = int(np.floor(_polynomial(guess, float(i), float(j))))
                column = here + i * stride[b] + j * stride[c]
                found, outside = -1000, False
                for step in range(2 * _SEARCH + 1):
                    k = start + ((step + 1) // 2 if step % 2 else -(step // 2))
                    if not (0 <= at[axis] + k and at[axis] + k + 1 < shape[axis]):
                        outside = True
                        continue
                    low, high = flat[column + k * up], flat[column + (k + 1) * up]
                    if _is_in(low, kind, below, above) and not _is_in(high, kind, below, above):
                        # Where the wall or the gap is one voxel thick there is no surface to smooth.
                        if at[axis] + k >= 1 and not _is_in(flat[column + (k - 1) * up], kind, below, above):
                            return radius, third
                        if at[axis] + k + 2 < shape[axis] and _is_in(
                            flat[column + (k + 2) * up], kind, below, above
                        ):
                            return radius, third
                        third = third or (low != below) or (high != above)
                        found = k
                        break
                if found == -1000:
                    if outside:
                        continue
                    return radius, third
                _basis(i / wanted, j / wanted, basis)
                weight = 1.0 - 0.8 * square
                for m in range(terms):
                    vector[m] += weight * basis[m] * (found + 0.5)
                    for n in range(m + 1):
                        matrix[m, n] += weight * basis[m] * basis[n]
                work[count, 0], work[count, 1], work[count, 2] = i / wanted, j / wanted, found + 0.5
                count += 1
        if count < 6:
            return radius, third
        _factor(matrix, terms)
        _solve(matrix, vector, terms)
        # Least squares may miss columns that another patch would not: the worst one is met by the least change in
        # the fit's own measure, then the next.
        worst = 0.0
        for turn in range(_TURNS):
            missed = 0
            excess = 0.0
            for n in range(count):
                off = _polynomial(vector, work[n, 0], work[n, 1]) - work[n, 2]
                if abs(off) > abs(excess):
                    missed = n
                    excess = off
            worst = abs(excess)
            if worst <= 0.5 + _TOLERANCE or worst > _HOPELESS or turn == _TURNS - 1:
                break
            _basis(work[missed, 0], work[missed, 1], basis)
            change[:] = basis
            _solve(matrix, change, terms)
            leverage = 0.0
            for m in range(terms):
                leverage += basis[m] * change[m]
            amount = (excess - 0.5 if excess > 0.0 else excess + 0.5) / leverage
            for m in range(terms):
                vector[m] -= amount * change[m]
        for m in range(1, terms):
            vector[m] /= wanted if m < _LINEAR else wanted * wanted
        guess[:] = vector
        if worst <= 0.5 + _TOLERANCE:
            # The largest window may hang over an edge by part of a voxel and bend: the one before it does not.
            best[:] = last if radius > 2.5 else vector
            last[:] = vector
            radius = wanted
            failures = 0
        else:
            failures += 1
            if failures > _FAILURES or worst > _HOPELESS:
                break
    return radius, third


@compiled()
def _basis(u: float, v: float, basis: np.ndarray) -> None:
    basis[0], basis[1], basis[2] = 1.0, u, v
    basis[3], basis[4], basis[5] = u * u, u * v, v * v


@compiled()
def _served(codes: np.ndarray, at: np.ndarray, axis: int, axes: np.ndarray, radii: np.ndarray) -> bool:
    """Whether a neighbour at an even place has a patch of the same axis that reaches well beyond here."""
    for z in range(max(at[0] - 1, 0), min(at[0] + 2, codes.shape[0])):
        for y in range(max(at[1] - 1, 0), min(at[1] + 2, codes.shape[1])):
            for x in range(max(at[2] - 1, 0), min(at[2] + 2, codes.shape[2])):
                m = codes[z, y, x] - 256
                if m < 0:
                    continue
                b, c = (axis + 1) % 3, (axis + 2) % 3
                place = (z, y, x)
                if (
                    place[b] % 2 == 0
                    and place[c] % 2 == 0
                    and radii[m] >= _GOOD
                    and axes[m] in (axis, axis + 3)
                ):
                    return True
    return False


@compiled()
def _fit(
    labels: np.ndarray,
    codes: np.ndarray,
    at: np.ndarray,
    axes: np.ndarray,
    radii: np.ndarray,
    sparse: bool,
    best: np.ndarray,
) -> Any:
    """Axis + 3·kind and radius of a candidate's patch, whose coefficients ``best`` (6,) becomes; (−1, 0) for none."""
    z, y, x = at[0], at[1], at[2]
    normal = _normal(labels, z, y, x)
    size = (abs(normal[0]), abs(normal[1]), abs(normal[2]))
    axis, most = -1, 0.7 * max(size[0], size[1], size[2])
    own = labels[z, y, x]
    for a in range(3):
        if size[a] > most:
            k, j, i = z + (a == 0), y + (a == 1), x + (a == 2)
            if k < labels.shape[0] and j < labels.shape[1] and i < labels.shape[2] and labels[k, j, i] != own:
                axis, most = a, size[a]
    if axis < 0:
        return -1, 0.0
    even = at[(axis + 1) % 3] % 2 == 0 and at[(axis + 2) % 3] % 2 == 0
    if even != sparse or (not sparse and _served(codes, at, axis, axes, radii)):
        return -1, 0.0
    work = np.empty((int(4 * _LADDER[-1] ** 2), 3))
    radius, third = _patch(labels, at, axis, 0, best, work)
    kind = 0
    if third or radius == 0.0:
        other = np.zeros(_TERMS)
        second, _ = _patch(labels, at, axis, 1, other, work)
        if second > radius:
            radius, kind = second, 1
            best[:] = other
    return axis + 3 * kind, radius


@compiled(parallel=True)
def fit_patches(
    labels: np.ndarray,
    codes: np.ndarray,
    voxels: np.ndarray,
    axes: np.ndarray,
    radii: np.ndarray,
    patches: np.ndarray,
    sparse: bool,
) -> None:
    """A patch for candidates that have a face across the main direction of their normal.

    ``sparse`` takes those at even places only; the others come in a second call, where no good patch lies near.

    axes : (candidate,) int8, axis + 3·kind; radii : (candidate,) float32, 0 where there is no patch; patches :
    (candidate, 6) float32 coefficients.
    """
    for n in numba.prange(len(voxels)):
        best = np.zeros(_TERMS)
        axis, radius = _fit(labels, codes, voxels[n], axes, radii, sparse, best)
        if radius > 0.0:
            axes[n], radii[n] = axis, radius
            for k in range(_TERMS):
                patches[n, k] = best[k]
