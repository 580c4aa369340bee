"""The twin as a diffraction program would have left it: an experiment file and a reflection file of DIALS."""

import uuid
from dataclasses import replace
from pathlib import Path

from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.reflections import read_reflection_set, twin_experiment
from tomoforge.absorption.detector import box_detector
from tomoforge.absorption.dials import write_experiments, write_reflections
from tomoforge.absorption.twin_files import integrated_table
from tomoforge.config import RotationSettings
from tomoforge.storage import Artefact, Workspace

TWIN_EXPT, TWIN_REFL = "twin.expt", "twin.refl"


@task(name="export-twin", **OPTIONS)
def export_twin(
    workspace: Workspace, measured: Artefact, *, rotation: RotationSettings, energy_kev: float, seed: int
) -> Artefact:
    """``measured`` of ``tasks.reflections.measure_twin`` with the same settings as DIALS files, as measured and not
    corrected: kind ``corrections``."""
    table = read_reflection_set(workspace, measured).table
    # DIALS joins the two files by this; the same twin has the same one.
    identifier = str(uuid.uuid5(uuid.NAMESPACE_OID, measured.key))
    experiment = replace(twin_experiment(rotation, energy_kev, seed), identifier=identifier)

    def build(folder: Path) -> None:
        panels = box_detector()
        write_experiments(folder / TWIN_EXPT, [experiment], panels)
        write_reflections(folder / TWIN_REFL, integrated_table(table, experiment, panels))

    return produce(
        workspace,
        "corrections",
        "twin-files",
        parameters={"rotation": rotation.model_dump(), "energy_kev": energy_kev, "seed": seed, "layout": 1},
        inputs={"reflections": measured},
        packages=("absorption",),
        build=build,
    )
