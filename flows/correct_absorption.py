"""Absorption factors of diffraction data through labelled samples: trace, correct, merge, compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.lists import Names
from flows.report import FlowReport, where_results_lie
from flows.segment_scan import segment_real, segmenter_of
from tasks.absorption import correct, holds_crystal, settle_orientation
from tasks.absorption_surface import draw_surface
from tasks.attenuation import settle_mu
from tasks.cluster import Compute, open_compute
from tasks.correction_report import SUBJECT, Correction, publish_correction
from tasks.labelled_volumes import find_labels, scan_energy
from tasks.merging import merge, write_corrected
from tasks.predictions import PredictionSettings
from tasks.reflections import measure_twin, read_reflection_set, take_reflections, twin_reflections
from tasks.scans import material_mu
from tasks.segmentation_error import check_drawable, draw_labels, with_segmentation_error
from tasks.twin_export import TWIN_EXPT, TWIN_REFL, export_twin
from tomoforge.config import (
    ClusterSettings,
    DiffractionSettings,
    OpticsSettings,
    Positive,
    ReconstructionSettings,
    RotationSettings,
    Seed,
    TracingSettings,
)
from tomoforge.errors import InputError
from tomoforge.storage import Artefact, Workspace
from tomoforge.units import wavelength_to_kev


@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def correct_absorption(
    labels: str | None = None,
    truth: str | None = None,
    manual: str | None = None,
    ensemble: Names = (),
    scan: str | None = None,
    model: str = "champion",
    energy_kev: Positive | None = None,
    pixel_size_um: Positive | None = None,
    reflections: str | None = None,
    experiment: str | None = None,
    export: Literal["none", "dials"] = "none",
    seed: Seed = 1,
    optics: OpticsSettings = OpticsSettings(),
    diffraction: DiffractionSettings = DiffractionSettings(),
    rotation: RotationSettings = RotationSettings(),
    tracing: TracingSettings = TracingSettings(),
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Correct reflections for absorption by ray tracing through a labelled sample, and say what that does to the data.

    Without reflections the twin is corrected: a synthetic rotation experiment through the true labels.

    Args:
        labels: Key of labels in the workspace, forged, predicted or a person's.
        truth: Key of the true labels of the same sample, if they are known.
        manual: Key of labels of the same sample that a person drew, to compare with.
        ensemble: Keys of further labels of the same sample, parted by commas; their spread is the segmentation's error.
        scan: Path of a scan to be reconstructed and segmented; either this or labels.
        model: Key of the model that segments the scan; or champion.
        energy_kev: Photon energy of the scan [keV]; needed where its file does not say it.
        pixel_size_um: Detector pixel of the scan at the sample [µm]; needed where its file does not say it.
        reflections: Path of the reflections: .refl of DIALS, unmerged .mtz, .csv or .parquet; the twin's if not given.
        experiment: Path of the DIALS .expt that belongs to them; a .refl with s1 does without.
        export: Write the twin as files of DIALS, .expt and .refl, beside the corrected ones.
        seed: Of the sampling, of the twin and of draws.
        optics: The materials, and the photon energy of the tomogram and the twin where no file says it.
        diffraction: How the reflections are read, and how they lie to the tomogram.
        rotation: The twin.
        tracing: How well is traced, and where µ comes from.
        reconstruction: How a scan is reconstructed.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    if (labels is None) == (scan is None):
        raise InputError(
            "labels or scan must be given, and not both; forge_dataset and segment_scan make labels"
        )
    if export != "none" and reflections is not None:
        raise InputError(
            f"export writes the twin and must be none where reflections are given, got {export!r} with {reflections}; "
            "they come back in their own format"
        )
    if ensemble and tracing.segmentation_draws:
        raise InputError(
            "ensemble and tracing.segmentation_draws are two measures of one error; give one of them"
        )
    material_mu(optics)  # an unknown material must fail before anything is traced
    reference = {"truth": truth, "manual": manual}
    sources = {name: find_labels(workspace, key, name) for name, key in reference.items() if key}
    members = [find_labels(workspace, key, "ensemble") for key in ensemble]
    subject = find_labels(workspace, labels) if labels is not None else None
    if subject is not None and tracing.segmentation_draws:
        check_drawable(workspace, subject)
    segmenter = segmenter_of(workspace, model) if scan is not None else None
    taken = None
    if reflections is not None:
        taken = take_reflections(workspace, reflections, experiment, settings=diffraction)
    with open_compute(cluster) as compute:
        name, published = labels or "", dict[str, str]()
        if scan is not None and segmenter is not None:
            made = segment_real(
                compute,
                workspace,
                segmenter,
                scan,
                energy_kev,
                pixel_size_um,
                reconstruction,
                PredictionSettings(softmax=tracing.segmentation_draws > 0),
            )
            name, subject, published = made.name, made.labels, made.published
        assert subject is not None
        if not holds_crystal(workspace, subject):
            raise InputError(
                f"labels {subject.key} must hold crystal, got none: there is nothing to trace from"
            )
        sources[SUBJECT] = subject
        traced = Traced(compute, workspace, optics, rotation, diffraction, tracing, seed)
        done = traced.correct(name, sources, members, taken)
        source, beside = reflections, experiment
        if export == "dials":
            files = workspace.path(
                export_twin(
                    workspace, done.reflections, rotation=rotation, energy_kev=optics.energy_kev, seed=seed
                )
            )
            source, beside = str(files / TWIN_REFL), str(files / TWIN_EXPT)
        corrected = write_corrected(workspace, done.reflections, done.factors[SUBJECT], source, beside)
        shown = publish_correction(workspace, done, name=name, sources=published, corrected=corrected)
    lines = (*shown.lines, "", f"corrected  {workspace.path(corrected)}", *where_results_lie(workspace))
    artefacts = {f"factors_{source}": item.key for source, item in done.factors.items()}
    artefacts |= {"factors": done.factors[SUBJECT].key, "corrected": corrected.key}
    return FlowReport(lines, {**published, "absorption": shown.identifier}, artefacts)


@dataclass(frozen=True)
class Traced:
    """How reflections are corrected, whatever the labels: the settings that the flows share."""

    compute: Compute
    workspace: Workspace
    optics: OpticsSettings
    rotation: RotationSettings
    diffraction: DiffractionSettings
    tracing: TracingSettings
    seed: int
    index: int = 0  # of the forged sample, where its materials were drawn

    def correct(
        self,
        name: str,
        sources: Mapping[str, Artefact],
        members: Sequence[Artefact] = (),
        taken: Artefact | None = None,
    ) -> Correction:
        """Factors by every source of labels, the first being the reference and the last the subject, and the data
        merged by each.

        members : more labels of the subject, whose spread is the segmentation's error, if the settings do not have them
        drawn; taken : reflections of a file, None for the twin, to which the first source is the truth.
        """
        workspace, subject = self.workspace, list(sources.values())[-1]
        energy = self.optics.energy_kev
        if taken is not None:
            energy = wavelength_to_kev(read_reflection_set(workspace, taken).wavelength)
        mu = settle_mu(
            self.compute,
            workspace,
            subject,
            composition=self._mu(energy),
            at_scan=self._mu(scan_energy(workspace, subject) or self.optics.energy_kev),
            tracing=self.tracing,
            name=name,
        )
        found = taken or twin_reflections(
            workspace, rotation=self.rotation, energy_kev=energy, seed=self.seed
        )
        orientation = settle_orientation(
            self.compute, workspace, subject, found, mu=mu.mu, settings=self.diffraction, seed=self.seed
        )
        surface = draw_surface.submit(
            self.compute,
            workspace,
            subject,
            found,
            mu=mu.mu,
            orientation=orientation,
            tracing=self.tracing,
            seed=self.seed,
        )
        drawn = self.tracing.segmentation_draws > 0
        members = self._draws(subject) if drawn else members
        named = {**sources, **{f"member {n + 1}": item for n, item in enumerate(members)}}
        futures = {
            source: correct.submit(
                self.compute,
                workspace,
                item,
                found,
                mu=mu.mu,
                mu_error=mu.error,
                orientation=orientation,
                tracing=self.tracing,
                seed=self.seed,
                name=f"{name}, {source}",
            )
            for source, item in named.items()
        }
        factors = {source: future.result() for source, future in futures.items()}
        spread = tuple(factors.pop(source) for source in named if source not in sources)
        if taken is None:
            found = measure_twin(
                workspace,
                found,
                next(iter(factors.values())),
                rotation=self.rotation,
                energy_kev=energy,
                seed=self.seed,
            )
        merged = merge(self.compute, workspace, found, factors)
        if spread:
            factors[SUBJECT] = with_segmentation_error(workspace, factors[SUBJECT], spread, drawn=drawn)
        return Correction(found, factors, spread, merged, mu, orientation, surface.result(), drawn)

    def _draws(self, labels: Artefact) -> list[Artefact]:
        """As many label volumes as the settings say, from the probabilities that the model gave."""
        futures = [
            draw_labels.submit(
                self.compute, self.workspace, labels, number=number, tracing=self.tracing, seed=self.seed
            )
            for number in range(self.tracing.segmentation_draws)
        ]
        return [future.result() for future in futures]

    def _mu(self, energy_kev: float) -> dict[str, float]:
        return material_mu(self.optics.model_copy(update={"energy_kev": energy_kev}), self.seed, self.index)
