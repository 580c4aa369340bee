"""Lists of rotation angles: read from text, and matched to projections where the list is longer.

Motors log a row for every frame, flats and darks included, while cameras put projections into a folder of their
own; which rows are the projections' must then be found out, and never be guessed.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tomoforge.beamline.quantities import angle_factor
from tomoforge.errors import InputError, ScanError

_MOST_BYTES = 64 << 20
_COLUMN = re.compile(r"(angle|theta|rotation|phi|omega)", re.IGNORECASE)
_UNIT = re.compile(r"(?<![a-z])(deg|degrees?|rad|radians?|mrad)(?![a-z])", re.IGNORECASE)


def read_angles(path: Path) -> np.ndarray:
    """Angles [rad] of a text file: one a line, or the column that its header calls angle, theta or rotation.

    Degrees, unless the header says rad. Separators are commas, semicolons or blanks; # begins a comment.

    Raises
    ------
    ScanError
        If the file is missing, a line is not numbers, or several columns have no header to tell them apart.
    """
    if not path.is_file():
        raise ScanError(
            f"angles must come from a text file, but {path} does not exist; name the file that has them"
        )
    if path.stat().st_size > _MOST_BYTES:
        raise ScanError(
            f"{path} must be a list of angles, but has {path.stat().st_size} bytes; is it the right file?"
        )
    header: list[str] = []
    table: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        cells = [cell for cell in re.split(r"[,;\s]+", line.split("#")[0].strip()) if cell]
        if not cells:
            continue
        try:
            table.append([float(cell) for cell in cells])
        except ValueError:
            if table or header or not re.search(r"[A-Za-z]", line):
                raise ScanError(
                    f"{path}, line {number} must be numbers, got {line.strip()!r}; correct it, or make it a # comment"
                ) from None
            header = cells
    return _column(table, header, path)


def _column(table: list[list[float]], header: list[str], path: Path) -> np.ndarray:
    widths = {len(row) for row in table}
    if len(widths) != 1:
        raise ScanError(
            f"{path} must have one angle a line, got {'none' if not widths else 'lines of unequal length'}"
        )
    (width,) = widths
    named = [index for index, name in enumerate(header) if _COLUMN.search(name)]
    if width == 1:
        column = 0
    elif len(header) == width and len(named) == 1:
        column = named[0]
    else:
        raise ScanError(
            f"{path} has {width} columns and no header that calls one of them angle, theta or rotation; leave one "
            "column, or write such a header"
        )
    values = np.array([row[column] for row in table])
    # "angle_rad", "theta [mrad]": the unit stands in the column's name, or alone beside it.
    unit = _UNIT.search((header[column] if len(header) == width else " ".join(header)).replace("_", " "))
    return values * angle_factor(unit.group(1) if unit else "deg", str(path))


def chosen_rows(angles: np.ndarray, rows: Sequence[int], count: int, where: str) -> np.ndarray:
    """The ``rows`` (start, stop) of ``angles``, which must be ``count``.

    Raises
    ------
    ScanError
        If those rows are not there or not as many as projections.
    InputError
        If ``rows`` is not a start and a stop.
    """
    if (
        len(rows) != 2
        or not all(isinstance(row, int | np.integer) for row in rows)
        or not 0 <= rows[0] < rows[1]
    ):
        raise InputError(f"angle_rows must be (start, stop) with 0 <= start < stop, got {tuple(rows)!r}")
    start, stop = rows
    if stop > angles.size or stop - start != count:
        raise ScanError(
            f"{where}: angle_rows must choose {count} rows, one for each projection, out of {angles.size}, got "
            f"{start} to {stop}, {stop - start} rows; give the first and one past the last"
        )
    return angles[start:stop]


def moving_rows(angles: np.ndarray, count: int) -> tuple[int, int] | None:
    """The rows (start, stop) over which the motor moves, if that run is ``count`` rows and the only longest one.

    Rows repeated at one angle, before and after, are flats and darks. Steps below a quarter of the median are
    the encoder's noise, steps above four times it are the way back.
    """
    steps = np.abs(np.diff(angles))
    if not np.any(steps > 0):
        return None
    usual = float(np.median(steps[steps > 0]))
    moves = (steps > usual / 4) & (steps < usual * 4)
    edges = np.flatnonzero(np.diff(np.r_[False, moves, False]))
    runs = [(int(start), int(stop) + 1) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    longest = max((stop - start for start, stop in runs), default=0)
    best = [run for run in runs if run[1] - run[0] == longest]
    return best[0] if len(best) == 1 and longest == count else None
