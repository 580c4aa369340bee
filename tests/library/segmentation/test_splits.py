"""Splits: every case held back once, sources spread, groups whole, the hold-out frozen."""

import dataclasses
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.case_records import CaseRecord
from tomoforge.segmentation.fingerprint import VolumeFingerprint
from tomoforge.segmentation.splits import (
    Holdout,
    check_split,
    folds_of,
    read_holdout,
    single_split,
    stratified_folds,
    write_holdout,
)
from tomoforge.volumes import LABEL_NAMES


def record(name, source="real", group=None, volume=None, present=(0, 1, 2, 3)):
    return CaseRecord(
        identifier=name,
        source=source,
        group=group or name,
        origin={},
        volume=f"/{name}.zarr",
        labels=f"/{name}-labels.zarr",
        shape=(8, 8, 8),
        voxel_size=1e-6,
        present=present,
        volume_sha256=(volume or name).ljust(64, "0"),
        labels_sha256=name.ljust(64, "1"),
        fingerprint=VolumeFingerprint({}, 1.0, 1e-6),
        intensities={},
    )


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(2, 5))
def test_stratified_folds__hold_every_case_back_once_and_spread_the_sources(counts, folds):
    sources = {f"s{s}c{c}": f"s{s}" for s, count in enumerate(counts) for c in range(count)}
    if len(sources) < folds:
        with pytest.raises(InputError, match="folds must be 2 to the number"):
            stratified_folds(sources, folds)
        return
    found = stratified_folds(sources, folds)
    assert sorted(case for split in found for case in split["val"]) == sorted(sources)
    for split in found:
        assert sorted(split["train"] + split["val"]) == sorted(sources)
    spread = [Counter(sources[case] for case in split["val"]) for split in found]
    for source in set(sources.values()):
        assert max(s[source] for s in spread) - min(s[source] for s in spread) <= 1
    sizes = [len(split["val"]) for split in found]
    assert max(sizes) - min(sizes) <= 1
    assert found == stratified_folds(dict(reversed(sources.items())), folds)


def test_stratified_folds__a_large_group_does_not_drive_another_source_out_of_its_fold():
    sources = {f"a{n}": "forged" for n in range(4)} | {f"b{n}": "real" for n in range(4)}
    groups = {case: "one" if case[0] == "a" else case for case in sources}
    found = stratified_folds(sources, 2, groups=groups)
    assert sorted(len(split["val"]) for split in found) == [2, 6]
    assert [sum(case[0] == "b" for case in split["val"]) for split in found] == [2, 2]


def test_folds_of__a_sample_reconstructed_twice_is_never_on_both_sides():
    records = [record(f"r{n}", group=f"sample{n // 2}") for n in range(8)]
    records += [record(f"f{n}", "forged") for n in range(4)]
    for split in folds_of(records, 4):
        groups = [{r.group for r in records if r.identifier in split[side]} for side in ("train", "val")]
        assert not groups[0] & groups[1]
        assert sorted(name[0] for name in split["val"]) == ["f", "r", "r"]
    assert single_split(records)["val"] == ["r6", "r7"]  # too few groups of either source: the last of all


def test_single_split__falls_back_to_the_last_group_and_to_the_only_one():
    pair = [record("a", group="one"), record("b", group="two"), record("c", group="two")]
    assert single_split(pair) == {"train": ["a"], "val": ["b", "c"]}
    assert single_split(pair[1:]) == {"train": ["b", "c"], "val": ["b", "c"]}


def test_check_split__every_class_must_occur_where_it_is_learnt():
    records = [record("a", present=(0, 1, 2)), record("b")]
    check_split({"train": ["b"], "val": ["a"]}, records, LABEL_NAMES)
    with pytest.raises(InputError, match=r"got \['crystal'\] in none of \['a'\]"):
        check_split({"train": ["a"], "val": ["b"]}, records, LABEL_NAMES)


def test_holdout__refuses_the_volume_under_any_labels_and_the_group():
    holdout = Holdout.freeze([record("a", group="crystal 7"), record("b")])
    holdout.refuse([record("c"), record("d", "forged")])
    with pytest.raises(InputError, match="case relabelled: its volume is in the frozen hold-out"):
        holdout.refuse([record("relabelled", volume="a")])
    with pytest.raises(InputError, match="case again: its group 'crystal 7' is in the frozen hold-out"):
        holdout.refuse([record("again", group="crystal 7")])


def test_holdout__is_of_real_cases_each_once():
    with pytest.raises(InputError, match="real cases alone"):
        Holdout.freeze([record("a"), record("b", "forged")])
    with pytest.raises(InputError, match="at least one"):
        Holdout.freeze([])
    with pytest.raises(InputError, match="more than once"):
        Holdout.freeze([record("a"), record("a")])
    one, two = (
        Holdout.freeze(records) for records in ([record("a"), record("b")], [record("b"), record("a")])
    )
    assert one == two
    assert one.sha256 != Holdout.freeze([record("a")]).sha256


def test_holdout__frozen_on_disk_and_tampering_is_seen(tmp_path):
    path, holdout = tmp_path / "holdout.json", Holdout.freeze([record("a"), record("b")])
    write_holdout(path, holdout)
    write_holdout(path, holdout)
    assert read_holdout(path) == holdout
    with pytest.raises(StorageError, match="frozen"):
        write_holdout(path, Holdout.freeze([record("a")]))
    stored = dataclasses.asdict(holdout)
    stored["volumes"] = stored["volumes"][:1]
    path.write_text(json.dumps(stored))
    with pytest.raises(StorageError, match="was changed"):
        read_holdout(path)
    path.write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        read_holdout(path)
