"""Reflection files: byte for byte, bounded, and refused by name when broken."""

import pickle
import struct
import time
import tracemalloc

import msgpack
import numpy as np
import pytest

from tests.library.absorption.diffraction_files import integrated_columns, refl_bytes
from tomoforge.absorption.dials import read_reflections, write_reflections
from tomoforge.absorption.refl_file import COLUMN_TYPES, ReflectionTable, packed, unpacked
from tomoforge.errors import InputError


def _table(n: int = 6, **columns) -> ReflectionTable:
    return unpacked(refl_bytes(integrated_columns(n) | columns, n))


def test_read_reflections__real_file_goes_back_byte_for_byte(shared_data, tmp_path):
    source = shared_data / "absorption" / "test_refl.refl"
    table = read_reflections(source)
    write_reflections(tmp_path / "same.refl", table)
    assert (tmp_path / "same.refl").read_bytes() == source.read_bytes()
    assert (len(table), table.version, len(table.columns)) == (100, 1, 33)
    assert table.identifiers == {0: "f412a6f7-b8a3-e3f8-61cf-902571f3d4ef"}


def test_with_column__real_file_keeps_every_other_byte(shared_data, tmp_path):
    source = shared_data / "absorption" / "test_refl.refl"
    table = read_reflections(source)
    factors = np.linspace(0.1, 1.0, 100)
    write_reflections(tmp_path / "new.refl", table.with_column("analytical_correction", "double", factors))
    again = read_reflections(tmp_path / "new.refl")
    assert again.columns == (*table.columns, "analytical_correction")
    assert again.column_type("analytical_correction") == "double"
    np.testing.assert_array_equal(again.column("analytical_correction"), factors)
    for name in table.columns:
        assert again.data[name] == table.data[name]
    # An independent reader sees what DIALS would.
    plain = msgpack.unpackb((tmp_path / "new.refl").read_bytes(), strict_map_key=False)
    assert plain[2]["data"]["analytical_correction"] == ["double", [100, factors.astype("<f8").tobytes()]]
    # Replacing it with what was there before is the same file again.
    other = again.with_column("analytical_correction", "double", 1 / factors)
    back = other.with_column("analytical_correction", "double", factors)
    assert packed(back) == (tmp_path / "new.refl").read_bytes()


def test_column__layouts_of_all_types():
    n = 3
    rng = np.random.default_rng(1)
    table = _table(n)
    for kind, (dtype, shape) in COLUMN_TYPES.items():
        values = rng.integers(0, 2, (n, *shape)).astype(bool if kind == "bool" else dtype)
        again = unpacked(packed(table.with_column("new", kind, values))).column("new")
        np.testing.assert_array_equal(again, values)
        assert not again.flags.writeable or kind == "bool"
    matrix = np.arange(27.0).reshape(3, 3, 3)
    stored = table.with_column("m", "mat3<double>", matrix).data["m"][1][1]
    assert stored == struct.pack("<27d", *range(27))  # row after row, each by rows


def test_unpacked__unknown_types_are_carried():
    table = _table()
    assert table.data["shoebox"] == ["Shoebox<>", [6, b"\x00\x01opaque\xff"]]
    assert packed(table) == refl_bytes(integrated_columns(), 6)
    with pytest.raises(InputError, match="of type Shoebox<>"):
        table.column("shoebox")


def test_unpacked__many_identifiers_and_no_rows():
    content = refl_bytes({"id": ("int", b"")}, 0, identifiers={i: f"e{i}" for i in range(1000)})
    table = unpacked(content)
    assert len(table) == 0 and len(table.identifiers) == 1000 and table.column("id").shape == (0,)
    assert packed(table) == content


class _Explodes:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("protocol", range(6))
def test_read_reflections__a_pickle_is_refused_and_not_loaded(tmp_path, protocol):
    path = tmp_path / "old.refl"
    path.write_bytes(pickle.dumps(_Explodes(), protocol=protocol))
    with pytest.raises(InputError, match=r"is a pickle.*never read.*as_msgpack_file"):
        read_reflections(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5 reflection file"),
        (b"\x1f\x8b\x08" + bytes(64), "gunzip"),
        (b'{"__id__": "ExperimentList"}', "no DIALS reflection file"),
        (msgpack.packb(["something else", 1, {}]), "must come first"),
        (msgpack.packb(["dials::af::reflection_table", 3, {"nrows": 0, "data": {}}]), "version 3"),
        (msgpack.packb(["dials::af::reflection_table", 1, {"data": {}}]), "lacks 'nrows' or 'data'"),
        (msgpack.packb(["dials::af::reflection_table", 1, {"nrows": -1, "data": {}}]), "nrows"),
        (msgpack.packb(["dials::af::reflection_table", 1, {"nrows": 1, "data": {}, "x": 1}]), "unknown keys"),
        (msgpack.packb(["dials::af::reflection_table", 1, {"nrows": 1, "data": []}]), "must be maps"),
        (msgpack.packb(["dials::af::reflection_table", 1, {"nrows": 1, "data": {"a": ["int", 7]}}]), "'a'"),
    ],
)
def test_unpacked__other_files_are_refused_by_name(content, message):
    with pytest.raises(InputError, match=message):
        unpacked(content)


def test_unpacked__every_truncation_is_an_error(shared_data):
    for content in (
        refl_bytes(integrated_columns(2), 2),
        (shared_data / "absorption/test_refl.refl").read_bytes(),
    ):
        for length in range(0, len(content), 1 if len(content) < 3000 else 997):
            with pytest.raises(InputError):
                unpacked(content[:length])
        with pytest.raises(InputError, match="extra"):
            unpacked(content + b"\x00")


def test_unpacked__wrong_row_counts_name_the_column():
    columns = integrated_columns(4)
    short = columns | {"lp": ("double", np.ones(3))}
    with pytest.raises(InputError, match=r"'lp' of type double must have 4 × 8 bytes, got 24"):
        unpacked(refl_bytes(short, 4))
    document = msgpack.unpackb(refl_bytes(columns, 4), strict_map_key=False)
    document[2]["data"]["qe"][1][0] = 5
    with pytest.raises(InputError, match=r"'qe' has 5 rows, the table 4"):
        unpacked(msgpack.packb(document))
    document[2]["data"]["qe"][1][0] = 4
    document[2]["nrows"] = 2**62
    with pytest.raises(InputError, match="rows, the table 4611686018427387904"):
        unpacked(msgpack.packb(document))


def test_unpacked__the_same_column_twice_is_refused():
    once = msgpack.packb({"a": ["int", [0, b""]]})
    twice = b"\x82" + 2 * once[1:]
    header = b"\x82" + msgpack.packb("nrows") + b"\x00" + msgpack.packb("data") + twice
    with pytest.raises(InputError, match="'a' occurs twice"):
        unpacked(b"\x93" + msgpack.packb("dials::af::reflection_table") + b"\x01" + header)


def _claims() -> list[bytes]:
    name = b"\x93" + msgpack.packb("dials::af::reflection_table") + b"\x01"
    return [
        b"\xdd\xff\xff\xff\xff",  # not even the right first byte
        name + b"\xdf\xff\xff\xff\xff",  # a map of four thousand million
        name + b"\xdd\x00\x03\x00\x00" * 50_000,  # arrays in arrays, each as long as the file
        name + b"\x91" * 100_000,  # nothing but nesting
        name + b"\xc6\xff\xff\xff\xff" + b"abc",  # four gigabytes of binary in three bytes
        name + b"\xc9\xff\xff\xff\xff\x01",  # an extension type
    ]


@pytest.mark.parametrize("content", _claims())
def test_unpacked__claims_beyond_the_file_allocate_nothing(content):
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(InputError):
            unpacked(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The content itself is some 250 kB; a hundred lists of 196,608 would be 150 MB.
    assert peak < 5_000_000
    assert time.process_time() - begun < 10  # a bound against endless work, not a measure of speed


def test_with_column__what_does_not_fit_is_refused():
    table = _table()
    nan = np.array([1, 2, np.nan, 4, 5, 6.0])
    cases = [
        ("double", nan, r"must be finite, 1 rows are not, the first row 2"),
        ("double", np.ones(5), r"must be \(6,\), got \(5,\)"),
        ("vec3<double>", np.ones(6), r"must be \(6, 3\)"),
        ("int", np.full(6, 0.5), "does not fit int"),
        ("int", np.full(6, 2**40), "does not fit int"),
        ("std::size_t", np.full(6, -1), "does not fit"),
        ("double", np.full(6, "a"), "must hold numbers"),
        ("Shoebox<>", np.ones(6), "kind must be one of"),
    ]
    for kind, values, message in cases:
        with pytest.raises(InputError, match=message):
            table.with_column("new", kind, values)


def test_column__a_missing_one_names_what_is_there():
    with pytest.raises(InputError, match=r"no column 's2'; it has miller_index, "):
        _table().column("s2")


def test_read_reflections__a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_reflections(tmp_path / "none.refl")
    with pytest.raises(InputError, match="cannot be read"):
        read_reflections(tmp_path)
