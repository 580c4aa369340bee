"""HDF5 files that point to other files: which of the pointed-to are missing.

HDF5 itself is silent: a broken external link looks like an absent name, and a virtual dataset whose source
is gone reads as fill values, which would reconstruct to a plausible picture.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def dangling_links(group: h5py.Group) -> list[str]:
    """Links under ``group`` that lead nowhere, each as "name -> file:path", in file order of names."""
    return sorted(set(_dangling(group, "", set())))


def _dangling(group: h5py.Group, prefix: str, seen: set[bytes]) -> list[str]:
    found = []
    for name in group:
        link = group.get(name, getlink=True)
        full = f"{prefix}/{name}"
        try:
            member = group[name]
        except (KeyError, OSError):
            found.append(f"{full} -> {_target(link)}")
            continue
        # Only into groups of this very file, and once: soft links may make circles.
        if isinstance(member, h5py.Group) and not isinstance(link, h5py.ExternalLink):
            token = h5py.h5o.get_info(member.id).addr
            if token not in seen:
                seen.add(token)
                found += _dangling(member, full, seen)
    return found


def _target(link: h5py.ExternalLink | h5py.SoftLink | h5py.HardLink) -> str:
    if isinstance(link, h5py.ExternalLink):
        return f"{link.filename}:{link.path}"
    return str(getattr(link, "path", "?"))


def broken_virtual_sources(dataset: h5py.Dataset, depth: int = 3) -> list[str]:
    """What keeps a virtual dataset from being whole, in words; empty for whole and for ordinary datasets.

    Checks that every source file and dataset exists and is as long as the mapping needs, that the mappings
    together cover the dataset, and the same for sources that are virtual themselves, ``depth`` levels down.
    """
    if not dataset.is_virtual:
        return []
    if depth == 0:
        return [f"{dataset.name} is virtual through too many levels"]
    problems: list[str] = []
    covered = 0
    for source in dataset.virtual_sources():
        covered += source.vspace.get_select_npoints()
        if "%b" in source.file_name or "%b" in source.dset_name:
            problems.append(f"{source.file_name} is a pattern of files, which cannot be checked")
        else:
            problems += _source_problems(dataset, source, depth)
    if covered < int(np.prod(dataset.shape)):
        problems.append(f"{dataset.name} is mapped onto sources only in part")
    return problems


def _source_problems(dataset: h5py.Dataset, source: Any, depth: int) -> list[str]:
    if source.file_name == ".":
        return _dataset_problems(dataset.file, source, "this file", depth)
    # HDF5 looks beside the file that holds the virtual dataset, not beside the working directory.
    path = Path(dataset.file.filename).parent / source.file_name
    if not path.is_file():
        return [f"{source.file_name} is missing"]
    try:
        with h5py.File(path, "r") as file:
            return _dataset_problems(file, source, source.file_name, depth)
    except OSError as error:
        return [f"{source.file_name} cannot be opened ({error})"]


def _dataset_problems(file: h5py.File, source: Any, label: str, depth: int) -> list[str]:
    stored = file.get(source.dset_name)
    if not isinstance(stored, h5py.Dataset):
        return [f"{label} has no dataset {source.dset_name}"]
    if not _long_enough(stored, source):
        wanted = source.vspace.get_select_npoints()
        return [
            f"{label}:{source.dset_name} is {stored.shape}, shorter than the {wanted} values mapped onto it"
        ]
    return broken_virtual_sources(stored, depth - 1)


def _long_enough(stored: h5py.Dataset, source: Any) -> bool:
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        # The mapping takes the whole source and does not say how large that was.
        return stored.size == source.vspace.get_select_npoints()
    _, last = source.src_space.get_select_bounds()
    return len(last) == stored.ndim and all(end < size for end, size in zip(last, stored.shape, strict=True))
