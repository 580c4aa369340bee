"""Resolution shells, and how many reflections each could hold."""

from dataclasses import dataclass

import gemmi
import numpy as np

from tomoforge.errors import InputError

BINNINGS = ("volume", "count")
# iotbx (cctbx/miller/bins.h) widens the outer limits by this part of the span of 1/d², so that rounding
# leaves no reflection outside; the same here, so that its limits are met digit by digit.
_TOLERANCE = 1e-6
# Relative tolerance on d when possible reflections are listed, as in cctbx.miller.set.complete_set.
_D_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Shells:
    """Resolution shells from low to high resolution.

    binner : gemmi's, which says which shell a reflection falls in; edges : (shell + 1,) float64, rising,
    in 1/d² [1/Å²]; low, high : float, 1/d² of the whole range without tolerance, [1/Å²].
    """

    binner: gemmi.Binner
    edges: np.ndarray
    low: float
    high: float

    def __len__(self) -> int:
        return len(self.edges) - 1

    def of(self, inverse_d_squared: np.ndarray) -> np.ndarray:
        """(reflection,) int: the shell of each reflection, from 1/d² [1/Å²]."""
        values = np.ascontiguousarray(inverse_d_squared, dtype=np.float64)
        return np.asarray(self.binner.get_bins_from_1_d2(values))

    def d_range(self, shell: int | None) -> tuple[float, float]:
        """(d_max, d_min) [Å] of a shell, or of the whole range for None."""
        low, high = (self.low, self.high) if shell is None else (self.edges[shell], self.edges[shell + 1])
        return float(low**-0.5), float(high**-0.5)


@dataclass(frozen=True)
class PossibleReflections:
    """Unique reflections that a complete data set would hold, Friedel mates as one.

    shell : (reflection,) int; centric : (reflection,) bool.
    """

    shell: np.ndarray
    centric: np.ndarray

    def count(self, shell: int | None, *, separate_friedel: bool = False) -> int:
        """How many in a shell (all for None); acentric ones twice where mates are kept apart."""
        inside = slice(None) if shell is None else self.shell == shell
        acentric = int(np.count_nonzero(~self.centric[inside]))
        return int(np.count_nonzero(self.centric[inside])) + acentric * (2 if separate_friedel else 1)

    def acentric(self, shell: int | None) -> int:
        """How many acentric reflections in a shell (all for None)."""
        inside = slice(None) if shell is None else self.shell == shell
        return int(np.count_nonzero(~self.centric[inside]))


def resolution_shells(
    inverse_d_squared: np.ndarray,
    cell: gemmi.UnitCell,
    shells: int,
    *,
    binning: str = "volume",
    d_max_angstrom: float | None = None,
    d_min_angstrom: float | None = None,
) -> Shells:
    """Shells of equal volume in reciprocal space ("volume", as iotbx) or of equally many reflections ("count").

    inverse_d_squared : (unique,) float64 [1/Å²], of the observed unique reflections; limits [Å] take the
    place of the observed ones where given. Raises InputError for an unknown binning or less than one shell.
    """
    if binning not in BINNINGS:
        raise InputError(f"binning must be one of {BINNINGS}, got {binning!r}")
    if not isinstance(shells, (int, np.integer)) or shells < 1:
        raise InputError(f"shells must be a whole number of at least 1, got {shells!r}")
    low = float(inverse_d_squared.min()) if d_max_angstrom is None else d_max_angstrom**-2
    high = float(inverse_d_squared.max()) if d_min_angstrom is None else d_min_angstrom**-2
    # One reflection alone, or several of equal d: a range of visible width.
    margin = _TOLERANCE * (high - low if high > low else high)
    outer = np.array([max(low - margin, 0.0), high + margin])

    binner = gemmi.Binner()
    if binning == "volume":
        binner.setup_from_1_d2(int(shells), gemmi.Binner.Method.Dstar3, outer, cell)
    else:
        if shells > len(inverse_d_squared):
            raise InputError(
                f"shells must not exceed the {len(inverse_d_squared)} unique reflections, got {shells}"
            )
        values = np.sort(inverse_d_squared)
        binner.setup_from_1_d2(int(shells), gemmi.Binner.Method.EqualCount, values, cell)
    inner = np.asarray(binner.limits)[:-1]  # the last limit is infinite
    return Shells(binner, np.concatenate([outer[:1], inner, outer[1:]]), low, high)


def possible_reflections(
    shells: Shells, cell: gemmi.UnitCell, group: gemmi.SpaceGroup
) -> PossibleReflections:
    """All unique reflections within the range of the shells that the space group lets be seen."""
    d_min = shells.d_range(None)[1]
    hkl = gemmi.make_miller_array(cell, group, d_min * (1 - _D_TOLERANCE), 0.0, True)
    hkl = np.ascontiguousarray(hkl, dtype=np.int32).reshape(-1, 3)
    inverse_d_squared = cell.calculate_1_d2_array(hkl)
    inside = (inverse_d_squared >= shells.low * (1 - 2 * _D_TOLERANCE)) & hkl.any(axis=1)
    hkl = np.ascontiguousarray(hkl[inside])
    return PossibleReflections(
        shell=shells.of(inverse_d_squared[inside]),
        centric=np.asarray(group.operations().centric_flag_array(hkl), dtype=bool),
    )
