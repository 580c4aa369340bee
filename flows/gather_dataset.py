"""Gather labelled volumes into one dataset: whole datasets, and labels that people drew or approved."""

from collections import Counter
from dataclasses import replace

from prefect import flow

from flows.lists import Names
from flows.report import FlowReport, where_results_lie
from tasks.labelled_volumes import cases_of_dataset, find_labels, labelled_volume, without_repeats
from tasks.segmenter import build_dataset
from tomoforge.errors import InputError
from tomoforge.storage import Workspace


@flow
def gather_dataset(datasets: Names = (), labels: Names = (), as_real: Names = ()) -> FlowReport:
    """Gather labelled volumes into one dataset, to train on, to hold out, or to compare sources with.

    Args:
        datasets: Keys of datasets, parted by commas, whose cases are taken as they are.
        labels: Keys of labels that people drew or approved; each is taken with its volume.
        as_real: Keys of datasets whose forged cases play the real ones, for rehearsals and comparisons.
    """
    workspace = Workspace.default()
    cases = [case for key in datasets for case in cases_of_dataset(workspace, key)]
    cases += [replace(case, source="real") for key in as_real for case in cases_of_dataset(workspace, key)]
    cases += [labelled_volume(workspace, find_labels(workspace, key)) for key in labels]
    if not cases:
        raise InputError("datasets, labels or as_real must name what to gather, got none of them")
    cases = without_repeats(cases)
    dataset = build_dataset(
        workspace,
        [case.volume for case in cases],
        [case.labels for case in cases],
        sources=[case.source for case in cases],
        groups=[case.group for case in cases],
        approvals={case.labels.key: case.approval for case in cases if case.approval is not None},
    )
    counted = ", ".join(f"{n} {source}" for source, n in sorted(Counter(c.source for c in cases).items()))
    lines = (f"cases    {counted}", f"dataset  {dataset.key}", *where_results_lie(workspace))
    return FlowReport(lines, {}, {"dataset": dataset.key})
