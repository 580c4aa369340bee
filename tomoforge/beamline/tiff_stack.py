"""Read a folder of TIFF files, with its flats, darks and angles beside it, into a Scan.

TIFF files carry frames and nothing else: which are flats and darks is told by names, the angles by a text file,
and everything by a sidecar ``scan.json`` or ``scan.yaml`` where there is one. What is not told is not guessed.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from tomoforge.beamline.links import listed
from tomoforge.beamline.quantities import Stored, beam, check_given
from tomoforge.beamline.references import Sources, load_references, require_references
from tomoforge.beamline.sidecar import Sidecar, find_sidecar, read_sidecar
from tomoforge.beamline.stack_angles import hdf5_files, stack_angles
from tomoforge.beamline.tiff_frames import TiffFrames, check_inside, tiff_files
from tomoforge.errors import ScanError
from tomoforge.scan import Scan
from tomoforge.units import mm_to_m, um_to_m

# A word at the beginning of a name or after a separator, so that "halfdark" is nobody's dark.
_ROLES = {
    "flats": re.compile(r"(?<![a-z])(flat|white)", re.IGNORECASE),
    "darks": re.compile(r"(?<![a-z])dark", re.IGNORECASE),
    "others": re.compile(r"(?<![a-z])(label|mask|segment)", re.IGNORECASE),
}


def read_tiff_stack(
    path: str | Path,
    *,
    energy_kev: float | None = None,
    pixel_size_um: float | None = None,
    allow_missing: Collection[str] = (),
    root: str | Path | None = None,
    angle_rows: tuple[int, int] | None = None,
    flats: Sources = None,
    darks: Sources = None,
) -> Scan:
    """Open a folder of TIFF files, or one multi-page TIFF, as a Scan; projections are read when indexed.

    Parameters
    ----------
    path : folder, or multi-page TIFF file whose folder has the rest
    energy_kev : float [keV], photon energy; wins over the sidecar's
    pixel_size_um : float [µm], detector pixel at the sample; wins over the sidecar's
    allow_missing : names out of "flats" and "darks" that may be absent; they then have no frames
    root : folder that symbolic links and names in the sidecar may not lead out of; by default the stack's own
    angle_rows : (start, stop), which rows of the angles are the projections'; wins over the sidecar's
    flats, darks : files that hold them instead (``references.load_references``)

    Returns
    -------
    scan : Scan, named after the folder or file

    Raises
    ------
    ScanError
        If there are no projections, or several series of them; a number is missing from a series; frames differ
        in shape; there are no angles, or more or fewer than projections and nothing to tell which; flats or
        darks are missing and not waived; or a name leads out of ``root``. The message says what to do.
    InputError
        If a given value is not positive, or ``allow_missing`` has another name.
    """
    path = Path(path)
    check_given(energy_kev, pixel_size_um, allow_missing)
    folder = path if path.is_dir() else path.parent
    allowed = folder.resolve() if root is None else Path(root).resolve()
    check_inside(path, allowed)
    beside = find_sidecar(folder)
    if beside is not None:
        check_inside(beside, allowed)
    sidecar = read_sidecar(beside) if beside is not None else Sidecar()
    files = _by_role(folder, tiff_files(folder, allowed))
    projections = TiffFrames.open(_projections(path, folder, sidecar, files["projections"], allowed))
    count = projections.shape[0]
    given = {"flats": flats, "darks": darks}
    own = {"flats": sidecar.flats, "darks": sidecar.darks}
    require_references(
        {role: bool(given[role] or own[role] or files[role]) for role in given},
        allow_missing,
        path,
        {"flats": f"{folder}/flat*", "darks": f"{folder}/dark*"},
    )
    references = {
        role: _references(role, given[role], own[role], files[role], folder, allowed, projections)
        for role in given
    }
    angles = stack_angles(folder, sidecar, count, angle_rows or sidecar.angle_rows, allowed)
    energy, pixel = beam(
        path,
        energy_kev,
        pixel_size_um,
        lambda: None if sidecar.energy_kev is None else Stored(sidecar.energy_kev, str(beside)),
        lambda: (
            None if sidecar.pixel_size_um is None else Stored(um_to_m(sidecar.pixel_size_um), str(beside))
        ),
    )
    return Scan(
        projections=projections,
        flats=references["flats"],
        darks=references["darks"],
        angles=angles,
        energy_kev=energy,
        pixel_size=pixel,
        propagation_distance=None if sidecar.distance_mm is None else mm_to_m(sidecar.distance_mm),
        name=path.stem if path.is_file() else path.resolve().name,
    )


# --- which file is what ---------------------------------------------------------------------------------


def _by_role(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by what their names, below ``folder``, say they are; all others are projections."""
    found: dict[str, list[Path]] = {"projections": [], "flats": [], "darks": [], "others": []}
    for file in files:
        name = str(file.relative_to(folder))
        role = next((role for role, pattern in _ROLES.items() if pattern.search(name)), "projections")
        found[role].append(file)
    return found


def _projections(path: Path, folder: Path, sidecar: Sidecar, files: list[Path], allowed: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if sidecar.projections is not None:
        files = _matching(folder, sidecar.projections, allowed)
    if not files:
        wanted = sidecar.projections or "*.tif or *.tiff other than flats and darks"
        raise ScanError(
            f"{path} has no projections: no file is called {wanted}; name them by projections: in scan.json, or if "
            f"this is no TIFF stack, give the file of the scan{_hdf5_hint(folder)}"
        )
    series = {_series(file) for file in files}
    if len(series) > 1 and sidecar.projections is None:
        names = listed([f"{file.parent.relative_to(folder)}/{name}" for file, name in _examples(files)])
        raise ScanError(
            f"{path} has {len(series)} series of TIFF files that are neither flats nor darks, {names}; say which are "
            "the projections by projections: (a pattern) in scan.json"
        )
    _check_numbers(files, path)
    return files


def _matching(folder: Path, pattern: str, allowed: Path) -> list[Path]:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise ScanError(
            f"{folder}: names in the sidecar must lie below its folder, got {pattern!r}, which could lead outside root "
            f"{allowed}; move the files there and name them by a relative pattern"
        )
    # tiff_files has judged the links of all of them.
    wanted = {file.resolve() for file in folder.glob(pattern)}
    return [file for file in tiff_files(folder, allowed) if file.resolve() in wanted]


def _series(file: Path) -> tuple[Path, str]:
    """Folder and name with the last number left out: equal for the frames of one camera run."""
    return file.parent, re.sub(r"\d+(?=\D*$)", "#", file.stem)


def _examples(files: Sequence[Path]) -> list[tuple[Path, str]]:
    found: dict[tuple[Path, str], Path] = {}
    for file in files:
        found.setdefault(_series(file), file)
    return [(file, file.name) for file in found.values()]


def _check_numbers(files: Sequence[Path], path: Path) -> None:
    """Refuse a series from which numbers are missing: angles would be given to the wrong frames."""
    for series in {_series(file) for file in files}:
        names = [file for file in files if _series(file) == series]
        found = [re.search(r"(\d+)\D*$", file.stem) for file in names]
        numbers = [int(match.group(1)) for match in found if match]
        if len(numbers) != len(names) or len(numbers) < 3:
            continue
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in numbers if numbers.count(number) > 1)
            raise ScanError(
                f"{path}: number {twice} stands for several files of {series[1]}; leave one of them"
            )
        # Cameras may count by tens: the step is the commonest one.
        steps = np.diff(numbers)
        step = int(np.bincount(steps).argmax())
        absent = sorted(set(range(numbers[0], numbers[-1] + 1, step)) - set(numbers))
        if absent or np.any(steps % step):
            raise ScanError(
                f"{path}: the numbers of {names[0].name} to {names[-1].name} must have no gaps, but "
                f"{listed([str(number) for number in absent]) or 'they are uneven'} are missing; copy those files, or "
                "number the files anew and leave out the angles of the lost ones"
            )


def _references(
    role: str,
    given: Sources,
    own: str | list[str] | None,
    files: list[Path],
    folder: Path,
    allowed: Path,
    projections: TiffFrames,
) -> np.ndarray:
    if given is not None:
        return load_references(given, role)
    if own is not None:
        sources: list[str | Path] = []
        for source in [own] if isinstance(own, str) else own:
            if re.search(r"[*?\[]", source):
                matching = _matching(folder, source, allowed)
                if not matching:
                    raise ScanError(
                        f"{role}: no TIFF file in {folder} is called {source}; correct the sidecar"
                    )
                sources += [file.absolute() for file in matching]
            else:
                sources.append(source)
        return load_references(sources, role, root=allowed, folder=folder)
    if not files:
        return np.empty((0, *projections.shape[1:]), projections.dtype)
    return load_references([file.absolute() for file in files], role, root=allowed)


def _hdf5_hint(folder: Path) -> str:
    names = [file.name for file in hdf5_files(folder, folder.resolve())]
    return f", as {listed(names)}" if names else ""
