"""µ of each material for tracing: from its composition, and as the scan itself shows it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.labelled_volumes import volume_of
from tasks.quick_looks import CENTRE, open_scan
from tasks.samples import LABELS
from tasks.scans import SCAN
from tasks.volumes import VOLUME
from tomoforge.absorption.mu_comparison import compare_mu
from tomoforge.absorption.mu_measurement import MuEstimate, mu_from_composition, mu_from_projections
from tomoforge.absorption.mu_picture import mu_fit_picture
from tomoforge.absorption.mu_rays import collect_rays
from tomoforge.absorption.mu_volume import mu_from_volume
from tomoforge.config import TracingSettings
from tomoforge.errors import InputError, TomoforgeError
from tomoforge.reconstruction import normalise
from tomoforge.storage import Artefact, Workspace, write_bytes_atomic, write_json_atomic
from tomoforge.volumes import LABEL_NAMES, read_labels, read_volume

MEASURED = "mu.json"
_TIMEOUT_S = 3600.0
_PROJECTIONS = 60  # of a scan, spread over its angles
_NAMES = {label: name for name, label in LABEL_NAMES.items()}

Estimates = dict[str, dict[int, MuEstimate]]  # source → label → µ


@dataclass(frozen=True)
class Attenuation:
    """µ [1/m] and its standard error by the materials' names, as it will be traced with; compared : every pair of
    sources beside each other, empty where there is one alone; warnings : sentences; pictures : PNG by material."""

    mu: dict[str, float]
    error: dict[str, float]
    compared: pd.DataFrame
    warnings: tuple[str, ...]
    pictures: dict[str, bytes]


@task(name="settle-mu", **OPTIONS)
def settle_mu(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    *,
    composition: Mapping[str, float],
    at_scan: Mapping[str, float],
    tracing: TracingSettings,
    name: str,
) -> Attenuation:
    """µ of each material by the settings' choice, and what the other sources say.

    composition : µ [1/m] by name at the energy of the diffraction; at_scan : likewise at that of the tomogram, by whose
    ratio measured values are carried over. Labels without a volume have no measured µ.

    Raises InputError where the choice cannot be had.
    """
    share = tracing.mu_error_percent / 100
    by_label = {LABEL_NAMES[material]: value for material, value in at_scan.items()}
    estimates: Estimates = {"composition": mu_from_composition(by_label, share)}
    warnings: list[str] = []
    pictures: dict[str, bytes] = {}
    measured = _measured(compute, workspace, labels, name=name)
    if measured is not None:
        found, warnings, pictures = _read_measured(workspace, measured)
        estimates |= {source: values for source, values in found.items() if values}
    chosen = estimates.get(tracing.mu_from, {})
    missing = [material for material in composition if LABEL_NAMES[material] not in chosen]
    if missing:
        raise InputError(
            f"mu_from must be a source that knows every material; from {tracing.mu_from} there is none of "
            f"{', '.join(missing)} ({'; '.join(warnings) or 'labels without a scan of their own'}); take composition"
        )
    ratio = {material: value / at_scan[material] for material, value in composition.items()}
    compared = pd.DataFrame()
    if len(estimates) > 1:
        compared = compare_mu(estimates, names=_NAMES)
        warnings += [text for text in compared["warning"] if text]
    return Attenuation(
        {m: chosen[LABEL_NAMES[m]].mu * ratio[m] for m in composition},
        {m: chosen[LABEL_NAMES[m]].standard_error * ratio[m] for m in composition},
        compared,
        tuple(dict.fromkeys(warnings)),
        pictures,
    )


def _measured(compute: Compute, workspace: Workspace, labels: Artefact, *, name: str) -> Artefact | None:
    """µ as the volume's medians and the projections give it, None for labels without a volume of their own."""
    try:
        volume = volume_of(workspace, labels)
    except InputError:
        return None
    scan = Artefact(**workspace.read_provenance(volume)["inputs"]["scan"])
    paths = (
        str(workspace.path(labels) / LABELS),
        str(workspace.path(volume)),
        str(workspace.path(scan) / SCAN),
    )

    def build(folder: Path) -> None:
        compute.run(_measure_piece, *paths, str(folder), timeout_s=_TIMEOUT_S)

    return produce(
        workspace,
        "corrections",
        "measured-mu",
        parameters={"projections": _PROJECTIONS},
        inputs={"labels": labels, "volume": volume, "scan": scan},
        packages=("absorption",),
        build=build,
    )


def _measure_piece(labels_path: str, volume_folder: str, scan_path: str, folder: str) -> None:
    labels, voxel_size = read_labels(labels_path)
    volume, _ = read_volume(Path(volume_folder) / VOLUME)
    centre = json.loads((Path(volume_folder) / CENTRE).read_text())
    found: dict[str, dict[str, object]] = {"volume": {}, "projections": {}}
    said: list[str] = []
    present = [int(label) for label in np.unique(labels) if label]
    for label in present:
        try:
            found["volume"][str(label)] = asdict(mu_from_volume(volume, labels, label))
        except InputError as error:
            said.append(f"µ of {_NAMES[label]} from the volume: {error}")
    try:
        scan = open_scan(scan_path)
        chosen = np.unique(np.linspace(0, len(scan.angles) - 1, _PROJECTIONS).round().astype(int))
        frames = np.stack([scan.projections[int(n) : int(n) + 1][0] for n in chosen])
        rays = collect_rays(
            normalise(frames, scan.flats, scan.darks),
            labels,
            voxel_size,
            scan.angles[chosen],
            scan.pixel_size,
            rotation_centre=centre["centre_px"],
        )
        estimates = mu_from_projections(rays)
    except TomoforgeError as error:  # a scan from which µ cannot be told is no reason to stop
        said.append(f"µ from the projections: {error}")
    else:
        found["projections"] = {str(k): asdict(v) for k, v in estimates.estimates.items()}
        for label in set(estimates.estimates) - set(estimates.why_joint):
            picture = mu_fit_picture(rays, label, name=_NAMES[label])
            write_bytes_atomic(Path(folder) / f"{_NAMES[label]}.png", picture)
    write_json_atomic(Path(folder) / MEASURED, {"estimates": found, "warnings": said})


def _read_measured(workspace: Workspace, measured: Artefact) -> tuple[Estimates, list[str], dict[str, bytes]]:
    folder = workspace.path(measured)
    stored = json.loads((folder / MEASURED).read_text())
    estimates = {
        source: {int(k): MuEstimate(**{**v, "notes": tuple(v["notes"])}) for k, v in values.items()}
        for source, values in stored["estimates"].items()
    }
    pictures = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    return estimates, list(stored["warnings"]), pictures
