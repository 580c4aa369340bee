"""Prefect flows: recipes that join the tasks. ``python -m flows`` lists them."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect import Flow

NAMES = (
    "end_to_end",
    "forge_samples",
    "simulate_scan",
    "forge_dataset",
    "reconstruct_scan",
    "ingest_beamline",
    "prune_inbox",
    "import_labels",
    "decide_labels",
    "gather_dataset",
    "train_segmenter",
    "segment_scan",
    "rank_annotations",
    "promote",
    "rollback",
    "nightly_retrain",
    "compare_training_sources",
    "correct_absorption",
    "evaluate_fidelity",
    "publish_example",
)


def __getattr__(name: str) -> "dict[str, Flow]":
    if name != "FLOWS":
        raise AttributeError(f"module 'flows' has no attribute {name!r}")
    return {flow: getattr(importlib.import_module(f"flows.{flow}"), flow) for flow in NAMES}
