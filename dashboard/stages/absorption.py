"""Absorption factors of the reflections."""

from dashboard.stage import show_stage

show_stage(
    "Absorption",
    "Transmission of each reflection, traced through the segmented volume.",
    ["absorption"],
)
