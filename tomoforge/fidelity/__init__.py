"""How near a simulated scan comes to the real one: air, labels, SSIM and PSNR, pictures of the difference."""

from tomoforge.fidelity.air import AirMargins, air_level, air_median, air_noise, scale_to_air
from tomoforge.fidelity.labels import (
    class_attenuation,
    multi_otsu_labels,
    multi_otsu_thresholds,
)
from tomoforge.fidelity.metrics import (
    Fidelity,
    compare_images,
    intensity_scale,
    pool,
    reference_range,
    ssim_map,
)

__all__ = [
    "AirMargins",
    "Fidelity",
    "air_level",
    "air_median",
    "air_noise",
    "class_attenuation",
    "compare_images",
    "intensity_scale",
    "multi_otsu_labels",
    "multi_otsu_thresholds",
    "pool",
    "reference_range",
    "scale_to_air",
    "ssim_map",
]
