"""Where an NXtomo entry is in a file, and where its frames, keys and angles are in the entry.

Reference: NeXus application definition NXtomo, https://manual.nexusformat.org. Names are tried first, then the
classes NXdetector and NXdata, because facilities name these groups after their cameras.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from tomoforge.beamline.links import LinkedFile, LinkedGroup, listed, object_identity
from tomoforge.beamline.quantities import small_values, text
from tomoforge.errors import ScanError

_DEEPEST_ENTRY = 4  # groups below the root; facilities use one and two

FRAMES = ["instrument/detector/data", "data/data"]
IMAGE_KEY = ["instrument/detector/image_key", "data/image_key"]
ANGLES = ["sample/rotation_angle", "data/rotation_angle"]


# --- the entry ------------------------------------------------------------------------------------------


def nxtomo_entries(linked: LinkedFile) -> dict[str, h5py.Group]:
    """Groups, by their path, whose ``definition`` is NXtomo; each once, however many names lead to it."""
    found: dict[str, h5py.Group] = {}
    seen = {object_identity(linked.file["/"])}
    level = [("", linked.file["/"])]
    for _ in range(_DEEPEST_ENTRY):
        below = []
        for path, parent in level:
            for name, group in linked.groups(parent):
                if object_identity(group) in seen:
                    continue
                seen.add(object_identity(group))
                below.append((f"{path}/{name}", group))
                if _is_nxtomo(LinkedGroup(linked, group)):
                    found[f"{path}/{name}"] = group
        level = below
    return found


def _is_nxtomo(group: LinkedGroup) -> bool:
    try:
        definition = group.dataset("definition")
    except ScanError:
        return False
    # Another dataset of that name may be of any size: only a single text is worth reading.
    if definition is None or definition.size != 1 or definition.dtype.kind not in "SOU":
        return False
    return text(definition[()]).strip() == "NXtomo"


def nxtomo_entry(linked: LinkedFile, entry: str | None = None) -> LinkedGroup:
    """The NXtomo entry of a file, or the one named ``entry`` where there are several.

    Raises
    ------
    ScanError
        If there is none (every dangling link is then named), or several that are not the same scan, or
        ``entry`` is none of them.
    """
    found = nxtomo_entries(linked)
    if entry is not None:
        chosen = linked.get(linked.file["/"], entry)
        for group in found.values():
            if chosen is not None and object_identity(chosen) == object_identity(group):
                return LinkedGroup(linked, group)
        raise ScanError(
            f"entry {entry!r} is not an NXtomo entry of {linked.path}; those are {listed(list(found)) or 'none'}"
        )
    if not found:
        raise ScanError(
            f"{linked.path} has no NXtomo entry: no group at the root or up to {_DEEPEST_ENTRY - 1} levels below has "
            f"the definition 'NXtomo'{_dangling(linked, linked.file['/'], '; besides, ')}; or convert the raw file "
            "with the beamline's tool"
        )
    groups = [LinkedGroup(linked, group) for group in found.values()]
    if len(groups) > 1 and len({_contents(group) for group in groups}) > 1:
        raise ScanError(
            f"{linked.path} has {len(found)} NXtomo entries, {listed(list(found))}; choose with entry="
        )
    return groups[0]


def _contents(entry: LinkedGroup) -> tuple:
    """What tells entries apart: equal for two that link the same frames, keys and angles."""
    members = (first_dataset(entry, names) for names in (FRAMES, IMAGE_KEY, ANGLES))
    parts = tuple(None if member is None else object_identity(member) for member in members)
    return parts if None not in parts else object_identity(entry.group)


def _dangling(linked: LinkedFile, group: h5py.Group, before: str) -> str:
    links = linked.dangling(group)
    if not links:
        return ""
    return (
        f"{before}{len(links)} links lead to nothing that may be read: {listed(links, len(links))}. "
        "Bring those files beside it"
    )


# --- what is in it --------------------------------------------------------------------------------------


def first_dataset(entry: LinkedGroup, names: list[str]) -> h5py.Dataset | None:
    """The first of ``names`` that leads to a dataset."""
    for name in names:
        dataset = entry.dataset(name)
        if dataset is not None:
            return dataset
    return None


def required_dataset(entry: LinkedGroup, names: list[str], what: str) -> h5py.Dataset:
    """A dataset at one of ``names``, or under the last part of the first in any NXdetector or NXdata.

    Raises
    ------
    ScanError
        If there is none, or several different ones.
    """
    dataset = first_dataset(entry, names)
    if dataset is not None:
        return dataset
    others = {object_identity(found): found for found in _by_class(entry, names[0].rsplit("/", 1)[1])}
    if what == "frames":
        others = {key: found for key, found in others.items() if found.ndim == 3}
    if len(others) == 1:
        return next(iter(others.values()))
    path = entry.linked.path
    if others:
        places = listed(sorted(str(found.name) for found in others.values()))
        raise ScanError(
            f"{path}: {entry.name} has {what} at {len(others)} places, {places}; leave one, or link it at {names[0]}"
        )
    cause = _dangling(entry.linked, entry.group, "; ") or "; was the scan interrupted before it was written?"
    raise ScanError(f"{path}: {entry.name} has no {what} at {' or '.join(names)}{cause}")


def _by_class(entry: LinkedGroup, name: str) -> Iterator[h5py.Dataset]:
    """Datasets ``name`` of the groups of class NXdetector and NXdata, or what those call their signal."""
    below = list(entry.linked.groups(entry.group))
    for parent_name, parent in list(below):
        if _class(parent) == "NXinstrument":
            below += [(f"{parent_name}/{child}", group) for child, group in entry.linked.groups(parent)]
    for path, group in below:
        if _class(group) not in ("NXdetector", "NXdata"):
            continue
        names = [name]
        if name == "data" and "signal" in group.attrs:
            names.insert(0, text(group.attrs["signal"]))
        dataset = first_dataset(entry, [f"{path}/{each}" for each in names])
        if dataset is not None:
            yield dataset


def _class(group: h5py.Group) -> str:
    return text(group.attrs.get("NX_class", ""))


def image_keys(entry: LinkedGroup) -> np.ndarray:
    """(frame,) int64: 0 projection, 1 flat, 2 dark, 3 invalid, among which alignment frames are counted.

    Raises
    ------
    ScanError
        If there are none, or they are none of these numbers.
    """
    control = first_dataset(entry, [f"{name}_control" for name in IMAGE_KEY])
    path = entry.linked.path
    # Some writers leave the plain keys out, since the control keys say more.
    stored = first_dataset(entry, IMAGE_KEY) if control is not None else None
    if stored is None:
        stored = control if control is not None else required_dataset(entry, IMAGE_KEY, "image keys")
    keys = _whole(stored, path)
    if control is not None and control.size == keys.size:
        # Control keys mark projections repeated after the scan, at angles out of order, by −1.
        keys = np.where(_whole(control, path) < 0, 3, keys)
    unknown = sorted(set(keys.tolist()) - {0, 1, 2, 3})
    if unknown:
        raise ScanError(
            f"{path}: image_key must be 0, 1, 2 or 3, got also [{listed([str(key) for key in unknown])}]"
        )
    return keys


def _whole(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    values: np.ndarray = small_values(dataset).ravel()
    if not np.array_equal(values, np.round(values)):
        raise ScanError(
            f"{path}: {dataset.name} must hold whole numbers, got {values[values != np.round(values)][0]}"
        )
    return values.astype(np.int64)
