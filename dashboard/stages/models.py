"""Trained segmentation models."""

from dashboard.stage import show_stage

show_stage(
    "Models",
    "Trained segmenters: how training went and how well each class is found.",
    ["models"],
)
