"""Trained segmentation models."""

from dashboard.stage import show_stage

show_stage(
    "Models",
    "Trained segmenters: how training went, how well each class is found, which one was promoted and why, and "
    "what is worth annotating next, and what forged cases are worth.",
    ["models", "nights", "promotions", "annotation_queues", "comparisons"],
)
