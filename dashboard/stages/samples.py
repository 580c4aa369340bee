"""Forged samples and the scans, simulated or measured."""

from dashboard.stage import show_stage

show_stage(
    "Samples & scans",
    "Samples as they were forged, and scans of samples, simulated or measured.",
    ["scans", "samples", "sample_sets", "fidelity", "ingests"],
)
