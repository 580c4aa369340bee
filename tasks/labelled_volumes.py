"""Which volume labels belong to, and what may be learned from them: what a person drew, or approved."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.annotation import decisions
from tasks.artefacts import find_by_key
from tasks.night_labels import artefact_of, fitting_volume, volumes_by_scan
from tasks.quick_looks import open_scan
from tasks.samples import LABELS
from tasks.scans import SCAN
from tasks.segmenter import DATASET
from tomoforge.errors import InputError
from tomoforge.segmentation.case_records import Source, content_hash
from tomoforge.segmentation.dataset import read_dataset_record
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import read_labels

# Stage of a label artefact → whence its labels; predictions need somebody's approval besides.
_SOURCES: dict[str, Source] = {
    "corrected-labels": "real",
    "companion-labels": "real",
    "segmentation": "pseudo",
}


@dataclass(frozen=True)
class LabelledVolume:
    """A pair that may train or test. approval : hash of the decision that approved pseudo-labels; group : what
    must not be torn into training and validation, None for the volume alone."""

    volume: Artefact
    labels: Artefact
    source: Source
    approval: str | None = None
    group: str | None = None


def find_labels(workspace: Workspace, key: str, argument: str = "labels") -> Artefact:
    """The labels that a person named by their key. Raises InputError with the keys there are."""
    return find_by_key(workspace, "labels", key, argument, part=LABELS)


def volume_of(workspace: Workspace, labels: Artefact) -> Artefact:
    """The volume that labels were drawn or predicted on; of labels that came beside a scan, its newest reconstruction
    on their grid.

    Raises InputError where there is none.
    """
    inputs = workspace.read_provenance(labels)["inputs"]
    if "volume" in inputs:
        return Artefact(**inputs["volume"])
    made = volumes_by_scan(workspace).get(inputs["scan"]["key"], []) if "scan" in inputs else []
    fitting = fitting_volume(workspace, labels.key, made)
    if fitting is None:
        raise InputError(
            f"labels {labels.key} must belong to a volume, got none on their grid; reconstruct their scan, or import "
            "them with import_labels for the volume that is meant"
        )
    return artefact_of(workspace, "volumes", fitting)


def scan_energy(workspace: Workspace, labels: Artefact) -> float | None:
    """Photon energy [keV] of the scan that labels were drawn or predicted on, None for labels without one."""
    try:
        volume = volume_of(workspace, labels)
    except InputError:
        return None
    scan = Artefact(**workspace.read_provenance(volume)["inputs"]["scan"])
    return open_scan(workspace.path(scan) / SCAN).energy_kev


def labelled_volume(workspace: Workspace, labels: Artefact) -> LabelledVolume:
    """Labels with their volume and their source.

    Raises InputError for predicted labels that nobody approved, labels that were rejected or need correction, and
    labels of no volume.
    """
    stage = workspace.read_provenance(labels)["stage"]
    if stage not in _SOURCES:
        raise InputError(
            f"labels must be a person's or predicted ones, got {labels.key}; forged ones are gathered with their "
            "dataset"
        )
    standing = decisions(workspace).standing(content_hash(*read_labels(workspace.path(labels) / LABELS)))
    if standing is not None and standing.verdict != "approved":
        verdict = "were rejected by" if standing.verdict == "rejected" else "need correction, says"
        reason = f" ({standing.reason})" if standing.reason else ""
        raise InputError(
            f"labels {labels.key} {verdict} {standing.who}{reason}; leave them out, or decide anew"
        )
    source = _SOURCES[stage]
    if source == "pseudo" and standing is None:
        raise InputError(
            f"labels {labels.key} were predicted, and nobody has approved them; decide_labels does so"
        )
    approval = standing.sha256 if standing is not None else None
    return LabelledVolume(volume_of(workspace, labels), labels, source, approval)


def cases_of_dataset(workspace: Workspace, dataset: str) -> list[LabelledVolume]:
    """The pairs of the dataset with this key, as it has them. Raises InputError with the keys there are."""
    found = find_by_key(workspace, "datasets", dataset, "dataset")
    inputs = workspace.read_provenance(found)["inputs"].values()
    by_key = {item["key"]: Artefact(**item) for item in inputs}
    return [
        LabelledVolume(
            by_key[case["origin"]["volume"]],
            by_key[case["origin"]["labels"]],
            case["source"],
            case["origin"].get("approval"),
            case["group"],
        )
        for case in read_dataset_record(workspace.path(found) / DATASET)["cases"]
    ]


def without_repeats(cases: Sequence[LabelledVolume]) -> list[LabelledVolume]:
    """Each pair once. Raises InputError where one pair is given from two sources, or one volume with two labels."""
    kept: dict[str, LabelledVolume] = {}
    for case in cases:
        other = kept.setdefault(case.volume.key, case)
        if (other.labels, other.source) != (case.labels, case.source):
            raise InputError(
                f"volume {case.volume.key} must come once, got it as {other.source} with {other.labels.key} and as "
                f"{case.source} with {case.labels.key}; leave one out"
            )
    return list(kept.values())
