"""Settings of a fidelity report, as people write them."""

from typing import Annotated

from pydantic import Field

from tomoforge.config import NotNegative, Positive, Settings

Pixels = Annotated[int, Field(ge=0)]


class FidelitySettings(Settings):
    """How the twin of a real scan is made: labels, materials, optics."""

    air_margins_px: tuple[Pixels, Pixels, Pixels, Pixels] = Field(
        (0, 0, 0, 0),
        description="Columns at the left and right and rows at the top and bottom that show air at every angle; the "
        "scan is scaled to them. All 0: it is taken as it is.",
    )
    classes: Annotated[int, Field(ge=2, le=8)] = Field(
        3, description="Grey classes with air, for multi-Otsu labels."
    )
    smoothing_px: NotNegative = Field(
        0.7, description="Gaussian on the volume before multi-Otsu and on the labels after it [voxels]."
    )
    formulas: tuple[str, ...] = Field(
        (),
        description="Chemical formula of each label, for δ/β alone: its density is scaled to the measured µ. Chosen "
        "by µ from a list if not given.",
    )
    distance_mm: Positive | None = Field(
        None, description="Sample to detector [mm]; that of the file, else fitted among distances_mm."
    )
    distances_mm: tuple[Positive, ...] = Field(
        (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0),
        min_length=1,
        description="Distances to try [mm]; the one of best SSIM of a few projections is taken.",
    )
    photons: Positive | None = Field(
        None,
        description="Photons a pixel in air; from the noise of the air margins, else 20000, if not given.",
    )
    psf_sigma_px: NotNegative = Field(0.4, description="Point spread of the detector, rms [pixels].")
    oversampling: Annotated[int, Field(ge=1, le=8)] = Field(2, description="Wave samples across a pixel.")
