"""Absorption factors of the reflections, and what dividing by them does to the data."""

from dashboard.absorption_view import show_correction
from dashboard.stage import show_stage

show_stage(
    "Absorption",
    "Transmission of each reflection, traced through the labelled volume, and what correcting by it does to the data.",
    ["absorption"],
    body=show_correction,
)
