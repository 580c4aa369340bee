"""DIALS reflection files (.refl) without DIALS: what is not touched goes back byte for byte.

The file is msgpack: ``["dials::af::reflection_table", 1 | 2, {"identifiers": {id: name}, "nrows": n,
"data": {column: [type, [n, bytes]]}}]``, the bytes little-endian, rows one after another. Types that are not known
here (shoeboxes) are carried along unread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from tomoforge.errors import InputError
from tomoforge.storage import write_bytes_atomic

FILE_TYPE = "dials::af::reflection_table"
VERSIONS = (1, 2)

# type → (numpy type of a component, shape of a row)
COLUMN_TYPES: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "bool": ("u1", ()),
        "int": ("<i4", ()),
        "std::size_t": ("<u8", ()),
        "double": ("<f8", ()),
        "vec2<double>": ("<f8", (2,)),
        "vec3<double>": ("<f8", (3,)),
        "mat3<double>": ("<f8", (3, 3)),
        "int6": ("<i4", (6,)),
        "cctbx::miller::index<>": ("<i4", (3,)),
    }
)

_MOST_BYTES = 1 << 35  # shoeboxes of a large data set fit; a file beyond is a mistake or worse
# A genuine file holds arrays of 2 and 3. msgpack makes a list as long as a header claims before it reads the
# elements, so that this bound, not the file's size, is what keeps a few bytes from asking for gigabytes.
_LONGEST_ARRAY = 64


@dataclass(frozen=True)
class ReflectionTable:
    """A DIALS reflection table, its columns decoded when asked for.

    n_rows : int; data : column → [type, [rows, bytes]] in the file's order, as stored; identifiers : experiment
    number → identifier; version : 1 or 2; keys : the header's keys in the file's order.
    """

    n_rows: int
    data: Mapping[str, Any]
    identifiers: Mapping[int, str]
    version: int = 2
    keys: tuple[str, ...] = ("identifiers", "nrows", "data")

    def __len__(self) -> int:
        return self.n_rows

    def __contains__(self, name: str) -> bool:
        return name in self.data

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns in the file's order."""
        return tuple(self.data)

    def column_type(self, name: str) -> str:
        """DIALS's name of the type of column ``name``. Raises InputError if there is none."""
        if name not in self.data:
            raise InputError(f"the reflection table has no column {name!r}; it has {', '.join(self.data)}")
        return str(self.data[name][0])

    def column(self, name: str) -> np.ndarray:
        """Column ``name`` as (row, …) array, read-only: vec3 (row, 3), mat3 (row, 3, 3), bool as bool.

        Raises
        ------
        InputError
            for a column that is not there or of a type that is not decoded here.
        """
        kind = self.column_type(name)
        if kind not in COLUMN_TYPES:
            raise InputError(f"column {name!r} is of type {kind}; {', '.join(COLUMN_TYPES)} can be decoded")
        dtype, shape = COLUMN_TYPES[kind]
        values = np.frombuffer(self.data[name][1][1], dtype=dtype).reshape(self.n_rows, *shape)
        return values != 0 if kind == "bool" else values

    def with_column(self, name: str, kind: str, values: np.ndarray) -> "ReflectionTable":
        """The table with column ``name`` of DIALS type ``kind`` added at the end, or replaced where it stands.

        Raises
        ------
        InputError
            for a type that cannot be written, a wrong shape, numbers that do not fit the type or are not finite.
        """
        if kind not in COLUMN_TYPES:
            raise InputError(f"kind must be one of {', '.join(COLUMN_TYPES)}, got {kind!r}")
        stored = [kind, [self.n_rows, _encoded(name, kind, values, self.n_rows)]]
        return replace(self, data=MappingProxyType({**self.data, name: stored}))


def read_reflections(path: str | Path) -> ReflectionTable:
    """Read a DIALS reflection file.

    Raises
    ------
    InputError
        for a file that is missing, truncated or no reflection table; for a pickle, which is never unpickled, HDF5
        or gzip; for columns whose length is not the number of rows.
    """
    return unpacked(_bytes_of(Path(path)), str(path))


def write_reflections(path: str | Path, table: ReflectionTable) -> None:
    """Write ``table`` for DIALS, whole or not at all; columns that were only carried are the same bytes."""
    write_bytes_atomic(path, packed(table))


def packed(table: ReflectionTable) -> bytes:
    """The bytes of a reflection file."""
    header = {
        "identifiers": dict(table.identifiers),
        "nrows": table.n_rows,
        "data": dict(table.data),
    }
    document = [FILE_TYPE, table.version, {key: header[key] for key in table.keys}]
    return msgpack.packb(document, use_bin_type=True, unicode_errors="surrogateescape")


def unpacked(content: bytes, name: str = "content") -> ReflectionTable:
    """The reflection table that ``content`` holds; ``name`` is for messages. Raises as read_reflections."""
    _refuse_other_formats(content, name)
    try:
        document = msgpack.unpackb(
            content,
            raw=False,
            strict_map_key=False,
            object_pairs_hook=_mapping,
            unicode_errors="surrogateescape",
            max_array_len=_LONGEST_ARRAY,
            max_ext_len=0,
        )
    except InputError as error:
        raise InputError(f"{name} is no sound reflection file: {error}") from error
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, TypeError) as error:
        # msgpack's own: incomplete input, extra bytes, claims beyond the bounds, nesting without end.
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{name} is no sound reflection file of {len(content)} bytes ({reason}); was it cut short in copying?"
        ) from error
    return _table(document, name)


def _bytes_of(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise InputError(
                f"{path} has {size} bytes, more than the {_MOST_BYTES} that are read; is it a .refl?"
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _refuse_other_formats(content: bytes, name: str) -> None:
    remedy = "convert it in a DIALS environment: flex.reflection_table.from_file(old).as_msgpack_file(new)"
    if not content:
        raise InputError(f"{name} is empty; was it cut short in copying?")
    if (content[:1] == b"\x80" and content[1:2] in b"\x00\x01\x02\x03\x04\x05" and len(content) > 1) or (
        content[:1] in b"c(" and content.endswith(b".")
    ):
        raise InputError(f"{name} is a pickle, which could run any program and is never read; {remedy}")
    if content.startswith(b"\x89HDF\r\n"):
        raise InputError(f"{name} is an HDF5 reflection file, which is not read; {remedy}")
    if content.startswith(b"\x1f\x8b"):
        raise InputError(f"{name} is compressed with gzip; unpack it first (gunzip)")
    if content[:1] != b"\x93":
        raise InputError(
            f"{name} is no DIALS reflection file: expected a msgpack array of 3, got the bytes {content[:8].hex(' ')}"
        )


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, (str, int)):
            raise InputError(f"a key is of type {type(key).__name__}, expected a name or a number")
        if key in result:
            raise InputError(f"the key {key!r} occurs twice")
        result[key] = value
    return result


def _table(document: Any, name: str) -> ReflectionTable:
    if not (isinstance(document, list) and len(document) == 3 and document[0] == FILE_TYPE):
        raise InputError(f"{name} is msgpack but no DIALS reflection table ({FILE_TYPE!r} must come first)")
    version, header = document[1:]
    if isinstance(version, bool) or version not in VERSIONS:
        raise InputError(f"{name} is a reflection table of version {version!r}; versions {VERSIONS} are read")
    if not isinstance(header, dict) or not {"nrows", "data"} <= set(header):
        raise InputError(f"{name} lacks 'nrows' or 'data' in its header; was it written by DIALS?")
    unknown = set(header) - {"identifiers", "nrows", "data"}
    if unknown:
        raise InputError(f"{name} has unknown keys {sorted(map(str, unknown))}, which DIALS would refuse too")
    n_rows, data, identifiers = header["nrows"], header["data"], header.get("identifiers", {})
    if isinstance(n_rows, bool) or not isinstance(n_rows, int) or n_rows < 0:
        raise InputError(f"{name}: nrows must be a number of rows, got {n_rows!r}")
    if not isinstance(data, dict) or not isinstance(identifiers, dict):
        raise InputError(f"{name}: 'data' and 'identifiers' must be maps")
    for column, stored in data.items():
        _check_column(name, column, stored, n_rows)
    return ReflectionTable(
        n_rows, MappingProxyType(data), MappingProxyType(identifiers), version, tuple(header)
    )


def _check_column(name: str, column: Any, stored: Any, n_rows: int) -> None:
    if not isinstance(column, str):
        raise InputError(f"{name}: column names must be text, got {column!r}")
    if not (isinstance(stored, list) and len(stored) == 2 and isinstance(stored[0], str)):
        raise InputError(f"{name}: column {column!r} must be [type, [rows, bytes]]")
    kind, content = stored
    if kind not in COLUMN_TYPES:
        return
    if not (isinstance(content, list) and len(content) == 2 and isinstance(content[1], bytes)):
        raise InputError(f"{name}: column {column!r} of type {kind} must be [type, [rows, bytes]]")
    rows, size = content[0], len(content[1])
    if rows != n_rows or isinstance(rows, bool):
        raise InputError(
            f"{name}: column {column!r} has {rows!r} rows, the table {n_rows}; the file is damaged"
        )
    if size != n_rows * _row_bytes(kind):
        raise InputError(
            f"{name}: column {column!r} of type {kind} must have {n_rows} × {_row_bytes(kind)} bytes, got {size}; "
            "the file is damaged"
        )


def _row_bytes(kind: str) -> int:
    dtype, shape = COLUMN_TYPES[kind]
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def _encoded(name: str, kind: str, values: np.ndarray, n_rows: int) -> bytes:
    dtype, shape = COLUMN_TYPES[kind]
    array = np.asarray(values)
    if array.shape != (n_rows, *shape):
        raise InputError(f"column {name!r} of type {kind} must be {(n_rows, *shape)}, got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"column {name!r} must hold numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).reshape(n_rows, -1).all(axis=1))
        raise InputError(
            f"column {name!r} must be finite, {rows.size} rows are not, the first row {rows[0]}; give rows that have "
            "no value the neutral one"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        stored = np.ascontiguousarray(array != 0 if kind == "bool" else array, dtype=dtype)
    if not np.array_equal(stored, array):
        raise InputError(f"column {name!r} does not fit {kind}: its values would change")
    return stored.tobytes()
