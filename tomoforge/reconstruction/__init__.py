"""From raw counts to the attenuation volume: normalise, find the axis, back-project, look."""

from tomoforge.reconstruction.angles import angle_weights
from tomoforge.reconstruction.centre import CentreEstimate, find_centre, find_integrals_centre
from tomoforge.reconstruction.fbp import FbpPlan, fbp
from tomoforge.reconstruction.normalise import bad_pixels, line_integrals, normalise
from tomoforge.reconstruction.preview import sinogram_picture, slice_pictures

__all__ = [
    "CentreEstimate",
    "FbpPlan",
    "angle_weights",
    "bad_pixels",
    "fbp",
    "find_centre",
    "find_integrals_centre",
    "line_integrals",
    "normalise",
    "sinogram_picture",
    "slice_pictures",
]
