"""Unit cells as their space group wants them."""

from collections.abc import Sequence

import gemmi
import numpy as np

from tomoforge.absorption.twin import named_space_group
from tomoforge.errors import InputError

_TOLERANCE = 0.01  # relative change of a length, or of an angle in radians: a refined cell is off by far less


def symmetrised_cell(cell: Sequence[float], space_group: str) -> tuple[float, ...]:
    """The cell nearest to ``cell`` that the point group leaves as it is.

    cell : a, b, c [Å], α, β, γ [degrees], as refined without constraints; space_group : Hermann–Mauguin symbol. The
    metric tensor is averaged over the group. Raises InputError for an unknown group, and where that changes a length
    or an angle by more than 1 %: then the group is another.
    """
    given = np.asarray(cell, dtype=np.float64)
    a, b, c, *angles = given
    ca, cb, cg = np.cos(np.radians(angles))
    metric = np.array(
        [[a * a, a * b * cg, a * c * cb], [a * b * cg, b * b, b * c * ca], [a * c * cb, b * c * ca, c * c]]
    )
    group = named_space_group(space_group)
    turns = [np.array(op.rot) / gemmi.Op.DEN for op in group.operations().sym_ops]
    mean = np.mean([turn.T @ metric @ turn for turn in turns], axis=0)
    lengths = np.sqrt(np.diag(mean))
    cosines = mean / np.outer(lengths, lengths)
    found = np.array([*lengths, *np.degrees(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))])
    change = np.abs(found / given - 1)
    change[3:] = np.abs(np.radians(found[3:] - given[3:]))
    if not change.max() <= _TOLERANCE:
        raise InputError(
            f"cell {np.round(given, 4).tolist()} does not fit space group {space_group!r}, which would make it "
            f"{np.round(found, 4).tolist()}; was the setting or an angle mistyped?"
        )
    # Angles that the group fixes come out to the last digits.
    exact = [90.0, 120.0, 60.0]
    return tuple(next((e for e in exact if abs(v - e) < 1e-9), float(v)) for v in found)
