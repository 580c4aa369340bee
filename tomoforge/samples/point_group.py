"""The 32 crystallographic point groups: their symbols, their operations, the cells that they
allow."""

import re
from collections.abc import Sequence

import gemmi
import numpy as np

from tomoforge.errors import InputError

# Symbol -> gemmi's name of the symmorphic P group with these operations. A monoclinic axis is b
# unless the symbol names another; a trigonal 32, 3m, -3m means 321, 3m1, -3m1, and the other
# setting has its own symbol.
_SPACE_GROUPS: dict[str, str] = {
    # triclinic
    **{"1": "P 1", "-1": "P -1"},
    # monoclinic
    **{"2": "P 1 2 1", "m": "P 1 m 1", "2/m": "P 1 2/m 1"},
    **{"121": "P 1 2 1", "1m1": "P 1 m 1", "12/m1": "P 1 2/m 1"},
    **{"112": "P 1 1 2", "11m": "P 1 1 m", "112/m": "P 1 1 2/m"},
    **{"211": "P 2 1 1", "m11": "P m 1 1", "2/m11": "P 2/m 1 1"},
    # orthorhombic
    **{"222": "P 2 2 2", "mm2": "P m m 2", "mmm": "P m m m"},
    **{"2mm": "P 2 m m", "m2m": "P m 2 m"},
    # tetragonal
    **{"4": "P 4", "-4": "P -4", "4/m": "P 4/m", "422": "P 4 2 2", "4mm": "P 4 m m"},
    **{"-42m": "P -4 2 m", "-4m2": "P -4 m 2", "4/mmm": "P 4/m m m"},
    # trigonal, hexagonal axes
    **{"3": "P 3", "-3": "P -3", "32": "P 3 2 1", "3m": "P 3 m 1", "-3m": "P -3 m 1"},
    **{"321": "P 3 2 1", "312": "P 3 1 2", "3m1": "P 3 m 1", "31m": "P 3 1 m"},
    **{"-3m1": "P -3 m 1", "-31m": "P -3 1 m"},
    # hexagonal
    **{"6": "P 6", "-6": "P -6", "6/m": "P 6/m", "622": "P 6 2 2", "6mm": "P 6 m m"},
    **{"-6m2": "P -6 m 2", "-62m": "P -6 2 m", "6/mmm": "P 6/m m m"},
    # cubic
    **{"23": "P 2 3", "m-3": "P m -3", "432": "P 4 3 2", "-43m": "P -4 3 m", "m-3m": "P m -3 m"},
}
_RHOMBOHEDRAL_AXES = {
    "3": "R 3:R",
    "-3": "R -3:R",
    "32": "R 3 2:R",
    "3m": "R 3 m:R",
    "-3m": "R -3 m:R",
}

# Full and older symbols -> the short one.
_SYNONYMS: dict[str, str] = {
    **{"m3": "m-3", "m3m": "m-3m", "2/m-3": "m-3", "4/m-32/m": "m-3m"},
    **{"2/m2/m2/m": "mmm", "4/m2/m2/m": "4/mmm", "6/m2/m2/m": "6/mmm", "3/m": "-6"},
    **{"-32/m": "-3m", "-32/m1": "-3m1", "-312/m": "-31m"},
}

# The 32 symbols in their standard settings.
POINT_GROUPS: tuple[str, ...] = (
    *("1", "-1", "2", "m", "2/m", "222", "mm2", "mmm"),
    *("4", "-4", "4/m", "422", "4mm", "-42m", "4/mmm"),
    *("3", "-3", "32", "3m", "-3m"),
    *("6", "-6", "6/m", "622", "6mm", "-6m2", "6/mmm"),
    *("23", "m-3", "432", "-43m", "m-3m"),
)

_CELL_RULES = {
    "cubic": "a = b = c and 90° angles",
    "hexagonal": "a = b, α = β = 90°, γ = 120°",
    "trigonal": "a = b, α = β = 90°, γ = 120°; or, for 3, -3, 32, 3m and -3m, rhombohedral axes "
    "a = b = c, α = β = γ",
    "tetragonal": "a = b and 90° angles",
    "orthorhombic": "90° angles",
    "monoclinic": "90° angles beside the two-fold axis or mirror (b unless the symbol says else)",
}

# Largest relative change of the metric tensor under an operation: rounding in printed cells passes,
# a cell refined without its symmetry does not, because its faces would not map onto each other.
_METRIC_TOLERANCE = 1e-4


def normalised_symbol(point_group: str) -> str:
    """The short symbol without spaces and with ASCII minus signs: ' −4 3 m' becomes '-43m', 'm3m'
    'm-3m', '2/m 2/m 2/m' 'mmm'."""
    text = "".join(str(point_group).split())
    for minus in ("\u2212", "\u2010", "\u2011", "\u2013", "\u00af"):
        text = text.replace(minus, "-")
    # A digit under a combining overline or macron.
    text = re.sub("([1346])[\u0304\u0305]", r"-\1", text)
    return _SYNONYMS.get(text, text)


def has_hexagonal_axes(cell: Sequence[float]) -> bool:
    """True for α, β, γ near 90°, 90°, 120°; rhombohedral and all other axes give False."""
    return all(abs(angle - ideal) < 1.0 for angle, ideal in zip(cell[3:], (90, 90, 120), strict=True))


def point_operations(point_group: str, cell: Sequence[float] | None = None) -> tuple[np.ndarray, ...]:
    """The rotation parts (3, 3) int of ``point_group`` acting on fractional coordinates, identity
    first.

    ``cell`` (a, b, c [Å], α, β, γ [°]) chooses rhombohedral axes for the trigonal groups where the
    cell has them. Raises InputError for a symbol that names none of the point groups.
    """
    symbol = normalised_symbol(point_group)
    name = _SPACE_GROUPS.get(symbol)
    if cell is not None and symbol in _RHOMBOHEDRAL_AXES and not has_hexagonal_axes(cell):
        name = _RHOMBOHEDRAL_AXES[symbol]
    if name is None:
        raise InputError(
            "point_group must be a Hermann–Mauguin symbol of one of the 32 point groups "
            f"({' '.join(POINT_GROUPS)}, or another setting of these), got {point_group!r}"
        )
    operations = gemmi.SpaceGroup(name).operations().sym_ops
    return tuple(np.array(op.rot, dtype=np.int64) // gemmi.Op.DEN for op in operations)


def unit_cell(cell: Sequence[float]) -> gemmi.UnitCell:
    """gemmi's cell of (a, b, c [Å], α, β, γ [°]); InputError where these six make no
    parallelepiped."""
    try:
        values = tuple(float(x) for x in cell)
    except (TypeError, ValueError):
        raise InputError(
            f"cell must be six positive numbers (a, b, c in Å, α, β, γ in degrees), got {cell!r}"
        ) from None
    if len(values) != 6 or not np.isfinite(values).all() or min(values) <= 0:
        raise InputError(
            f"cell must be six positive numbers (a, b, c in Å, α, β, γ in degrees), got {values}"
        )
    ca, cb, cg = np.cos(np.radians(values[3:]))
    if max(values[3:]) >= 180 or 1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg < 1e-6:
        raise InputError(f"cell must have angles that span a volume, got {values[3:]} degrees")
    return gemmi.UnitCell(*values)


def checked_operations(cell: Sequence[float], point_group: str) -> tuple[np.ndarray, ...]:
    """The operations of ``point_group``, after a check that each leaves the metric of ``cell``
    unchanged.

    Raises InputError where ``cell`` does not have the symmetry.
    """
    frame = np.array(unit_cell(cell).orth.mat.tolist())
    metric = frame.T @ frame
    # Compared relative to the lengths of the two axes that an element joins.
    lengths = np.sqrt(np.diag(metric))
    operations = point_operations(point_group, tuple(float(x) for x in cell))
    for operation in operations:
        change = np.abs(operation.T @ metric @ operation - metric) / np.outer(lengths, lengths)
        if change.max() > _METRIC_TOLERANCE:
            system = gemmi.SpaceGroup(_SPACE_GROUPS[normalised_symbol(point_group)]).crystal_system_str()
            raise InputError(
                f"cell must fit point group {point_group} ({system}: {_CELL_RULES[system]}), got "
                f"{tuple(float(x) for x in cell)}; give the constrained cell or a lower group"
            )
    return operations
