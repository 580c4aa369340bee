"""Reflections to be corrected, from diffraction files or of the twin: kind ``corrections``."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.progress import say
from tomoforge.absorption.cells import symmetrised_cell
from tomoforge.absorption.dials import observations, read_experiments, read_reflections
from tomoforge.absorption.geometry_fit import fitted_experiment
from tomoforge.absorption.goniometer import Experiment
from tomoforge.absorption.mtz import read_mtz
from tomoforge.absorption.observations import ABSORPTION, S1, read_observations
from tomoforge.absorption.rays import sample_rays
from tomoforge.absorption.structure_factors import canonical_indices, wilson_intensities
from tomoforge.absorption.twin import Reflections, random_orientation
from tomoforge.absorption.twin_intensities import (
    Measurement,
    TwinSweep,
    observe,
    sweep_experiment,
    sweep_reflections,
)
from tomoforge.config import DiffractionSettings, RotationSettings
from tomoforge.errors import InputError
from tomoforge.seeds import component_rng
from tomoforge.storage import Artefact, Workspace, file_checksum, replacing, write_json_atomic
from tomoforge.units import ANGSTROM, deg_to_rad, kev_to_wavelength

REFLECTIONS, ABOUT, EXPERIMENT = "reflections.parquet", "about.json", "experiment.expt"
FACTORS = "factors.parquet"  # of ``tasks.absorption``
# Directions of travel with the goniometer at zero, (x, y, z): of the laboratory for files, of the sample for the twin.
INCOMING, OUTGOING = ("in_x", "in_y", "in_z"), ("out_x", "out_y", "out_z")
# What tells the geometry where there is no .expt: its name → the columns.
_GEOMETRY = {"diffracted rays (s1)": S1, "rotation angles": ("angle_rad",)}
_MTZ_INTENSITIES = {"profile": "IPR", "summation": "I", "scaled": "I"}


@dataclass(frozen=True)
class ReflectionSet:
    """table : a row a reflection, as ``absorption.observations`` has them and with the rays' directions;
    cell : [Å], [degrees]; space_group : Hermann–Mauguin symbol; wavelength [m]; twin : bool; source : of the rows."""

    table: pd.DataFrame
    cell: tuple[float, ...]
    space_group: str
    wavelength: float
    twin: bool
    source: str

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """incoming, outgoing : (reflection, 3) float64 in (x, y, z)."""
        return self.table[list(INCOMING)].to_numpy(), self.table[list(OUTGOING)].to_numpy()


def read_reflection_set(workspace: Workspace, reflections: Artefact) -> ReflectionSet:
    """The reflections of an artefact of this module."""
    folder = workspace.path(reflections)
    about = json.loads((folder / ABOUT).read_text())
    return ReflectionSet(
        pd.read_parquet(folder / REFLECTIONS),
        tuple(about["cell"]),
        about["space_group"],
        about["wavelength_m"],
        about["twin"],
        about["source"],
    )


@task(name="take-reflections", **OPTIONS)
def take_reflections(
    workspace: Workspace, path: str | Path, experiment: str | Path | None, *, settings: DiffractionSettings
) -> Artefact:
    """The usable reflections of a ``.refl``, unmerged ``.mtz``, ``.csv`` or ``.parquet`` file, with their rays by the
    geometry of a ``.expt`` file, or by that which fits their own s1 and angles."""
    path = Path(path)
    checksums = {"file": file_checksum(path)}
    if experiment is not None:
        checksums["experiment"] = file_checksum(experiment)
    found = read_files(path, experiment, settings)

    def build(folder: Path) -> None:
        _write(folder, found)
        if experiment is not None:
            shutil.copyfile(experiment, folder / EXPERIMENT)

    return produce(
        workspace,
        "corrections",
        "reflections",
        parameters={
            "intensity": settings.intensity,
            "space_group": settings.space_group,
            "source": path.name,
        },
        inputs=checksums,
        packages=("absorption",),
        build=build,
    )


def read_files(path: Path, experiment: str | Path | None, settings: DiffractionSettings) -> ReflectionSet:
    """Reflections of a file with their rays in the laboratory, the goniometer at zero."""
    cell: Sequence[float] | None = None
    wavelength: float | None = None
    space_group = settings.space_group
    if path.suffix == ".refl":
        table = observations(read_reflections(path), settings.intensity)
    elif path.suffix == ".mtz":
        mtz = read_mtz(path, _mtz_intensity(path, settings.intensity))
        table, cell, space_group = mtz.observations, mtz.cell, space_group or mtz.space_group
        wavelength = mtz.wavelength
    elif path.suffix in (".csv", ".parquet"):
        table = read_observations(path)
    else:
        raise InputError(f"reflections must be a .refl, .mtz, .csv or .parquet file, got {path}")
    table = table.drop(columns=ABSORPTION, errors="ignore")  # of an earlier correction
    experiments = _experiments(path, experiment, table, wavelength)
    crystal = experiments[0].crystal
    if crystal is None and (cell is None or space_group is None):
        raise InputError(
            f"{experiment} must hold the crystal, its cell and space group; give the indexed one"
        )
    if crystal is not None:
        cell, space_group = cell or crystal.cell, space_group or crystal.space_group
    assert cell is not None and space_group is not None
    incoming, outgoing = sample_rays(table, experiments)
    rays = {n: c for n, c in zip((*INCOMING, *OUTGOING), np.hstack([incoming, outgoing]).T, strict=True)}
    return ReflectionSet(
        table.assign(**rays).reset_index(names="row"),
        symmetrised_cell(cell, space_group),  # refined ones keep to it only nearly
        space_group,
        experiments[0].beam.wavelength,
        False,
        path.name,
    )


def _experiments(
    path: Path, experiment: str | Path | None, table: pd.DataFrame, wavelength: float | None = None
) -> tuple[Experiment, ...]:
    """The experiments of a .expt file; without one, what fits the reflections' own s1 and angles. ``wavelength`` [m] :
    as the reflections' file says it, for the message where there is nothing to fit to."""
    if experiment is not None:
        return read_experiments(experiment)
    lacking = [what for what, names in _GEOMETRY.items() if not set(names) <= set(table.columns)]
    if lacking:
        raise InputError(
            f"experiment must be the .expt file that belongs to {path}, got none: the reflections have no "
            f"{' and no '.join(lacking)}{_why_lacking(path, wavelength)}. Give it with "
            "--experiment: integrated.expt of the same integration, or what dials.import_xds makes of an XDS one"
        )
    say(f"{path.name}: no .expt was given, the geometry is fitted to the reflections' own s1 and angles")
    return (fitted_experiment(table),)


def _why_lacking(path: Path, wavelength: float | None) -> str:
    """Why a file of this format has no geometry of its own, and what this one lacks besides."""
    if path.suffix != ".mtz":
        return ""
    besides = "" if wavelength is not None else ", and this one says no wavelength either"
    return f", for an unmerged MTZ does not keep them{besides}"


def _mtz_intensity(path: Path, intensity: str) -> str:
    """The label of the wanted intensities; files of other programs than DIALS have one pair, I."""
    import gemmi

    labels = set(gemmi.read_mtz_file(str(path)).column_labels()) if path.exists() else set()
    wanted = _MTZ_INTENSITIES[intensity]
    return wanted if wanted in labels else "I"


def experiments_of(folder: str | Path) -> tuple[Experiment, ...]:
    """The experiments that reflections of a file were read with; ``folder`` : of their artefact."""
    path = Path(folder) / EXPERIMENT
    table = pd.read_parquet(Path(folder) / REFLECTIONS)
    return _experiments(path, path if path.exists() else None, table)


@task(name="twin-reflections", **OPTIONS)
def twin_reflections(
    workspace: Workspace, *, rotation: RotationSettings, energy_kev: float, seed: int
) -> Artefact:
    """The reflections of the twin, without intensities: which, at what angle, and how their rays run."""
    found = experiment(rotation, energy_kev, seed)

    def build(folder: Path) -> None:
        rays = np.hstack([found.incoming[:, ::-1], found.outgoing[:, ::-1]])
        table = pd.DataFrame(
            {
                "row": np.arange(len(found)),
                **dict(zip("hkl", found.hkl.T, strict=True)),
                "d_angstrom": found.spacing / ANGSTROM,
                "angle_rad": found.angle,
                **dict(zip((*INCOMING, *OUTGOING), rays.T, strict=True)),
            }
        )
        cell, group = tuple(rotation.cell), rotation.space_group
        _write(folder, ReflectionSet(table, cell, group, found.wavelength, True, "twin"))

    return produce(
        workspace,
        "corrections",
        "twin",
        parameters={"rotation": _drawn(rotation), "energy_kev": energy_kev, "seed": seed},
        inputs={},
        packages=("absorption",),
        build=build,
    )


def experiment(rotation: RotationSettings, energy_kev: float, seed: int) -> Reflections:
    """The reflections of the rotation experiment, thinned to about the wanted number by whole groups of equivalents,
    since a reflection without equivalents says nothing of a correction."""
    found = sweep_reflections(
        rotation.cell,
        rotation.space_group,
        random_orientation(seed),
        kev_to_wavelength(energy_kev),
        rotation.resolution_a * ANGSTROM,
        _sweep(rotation),
    )
    if len(found) == 0:
        raise InputError(
            f"no reflection is excited within {rotation.rotation_range_deg:g}° to "
            f"{rotation.resolution_a:g} Å; widen rotation_range_deg or lower resolution_a"
        )
    if len(found) <= rotation.reflections:
        return found
    unique, group = np.unique(
        canonical_indices(found.hkl, rotation.space_group)[0], axis=0, return_inverse=True
    )
    group = group.reshape(-1)
    place = component_rng(seed, "twin.groups").permutation(len(unique))[group]
    # Whole groups in a drawn order until the number is reached.
    counted = np.bincount(place, minlength=len(unique)).cumsum()
    taken = int(np.searchsorted(counted, rotation.reflections)) + 1
    return found.select(place < taken)


def twin_experiment(rotation: RotationSettings, energy_kev: float, seed: int) -> Experiment:
    """The twin's sweep in the laboratory, as a diffraction program describes it."""
    return sweep_experiment(
        rotation.cell,
        rotation.space_group,
        random_orientation(seed),
        kev_to_wavelength(energy_kev),
        _sweep(rotation),
        _measurement(rotation),
    )


@task(name="measure-twin", **OPTIONS)
def measure_twin(
    workspace: Workspace,
    twin: Artefact,
    truth: Artefact,
    *,
    rotation: RotationSettings,
    energy_kev: float,
    seed: int,
) -> Artefact:
    """The intensities that a detector would have measured of the twin, were the absorption factors ``truth`` true."""
    found, about = experiment(rotation, energy_kev, seed), read_reflection_set(workspace, twin)
    factors = pd.read_parquet(workspace.path(truth) / FACTORS)["absorption_factor"].to_numpy()

    def build(folder: Path) -> None:
        true = wilson_intensities(
            found.hkl, rotation.cell, rotation.space_group, anomalous_ratio=rotation.anomalous, seed=seed
        )
        table = observe(found, _sweep(rotation), true, factors, _measurement(rotation), seed=seed)
        rays = about.table[["row", *INCOMING, *OUTGOING]]
        _write(folder, replace(about, table=pd.concat([rays, table], axis=1)))

    return produce(
        workspace,
        "corrections",
        "measured-twin",
        parameters={"rotation": rotation.model_dump(), "energy_kev": energy_kev, "seed": seed},
        inputs={"twin": twin, "truth": truth},
        packages=("absorption",),
        build=build,
    )


def _sweep(rotation: RotationSettings) -> TwinSweep:
    return TwinSweep(0.0, deg_to_rad(rotation.rotation_range_deg))


def _measurement(rotation: RotationSettings) -> Measurement:
    return Measurement(fractional_error=rotation.instrument_error)


def _drawn(rotation: RotationSettings) -> dict[str, Any]:
    """Of the settings, what decides which reflections there are."""
    return rotation.model_dump(exclude={"anomalous", "instrument_error"})


def _write(folder: Path, found: ReflectionSet) -> None:
    with replacing(folder / REFLECTIONS) as temporary:
        found.table.to_parquet(temporary, index=False)
    write_json_atomic(
        folder / ABOUT,
        {
            "cell": list(found.cell),
            "space_group": found.space_group,
            "wavelength_m": found.wavelength,
            "twin": found.twin,
            "source": found.source,
        },
    )
