"""Reconstructed volumes and their segmentations."""

from dashboard.stage import show_stage

show_stage(
    "Reconstructions & segmentations",
    "Volumes of the attenuation coefficient µ [m⁻¹], and which voxel is which material.",
    ["segmentations", "volumes", "previews"],
)
