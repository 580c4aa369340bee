"""What is said of a reconstruction in plain words: which contrast µ rests on, and what to distrust."""

import math
from collections.abc import Mapping
from typing import Any

from tomoforge.units import kev_to_wavelength, rad_to_deg

_WIDE_FRINGE = 1.0  # pixels: narrower fringes are lost in the pixel
_MOST_CLIPPED = 1e-3  # of the pixels
_FULL_CIRCLE = 0.98  # of the half circle measured
_FEW_ANGLES = 0.25  # of the number that the width asks for
_OUT_OF_FIELD = 0.1  # of the largest line integral, at the detector's sides

FRINGES, PAGANIN, ABSORPTION = "absorption, edge fringes left in", "Paganin, one material", "absorption"


def contrast_of(parameters: Mapping[str, Any], centre: Mapping[str, Any]) -> dict[str, Any]:
    """How µ was got from the counts, for a summary: ``contrast`` and its numbers.

    parameters : the reconstruction's settings; centre : what was settled beforehand (``centre.json``).
    """
    said: dict[str, Any] = {}
    fringe = fringe_width_px(centre)
    if parameters["delta_beta"] is not None:
        said["contrast"] = PAGANIN
        said["delta_beta"] = parameters["delta_beta"]
        said["distance_mm"] = 1e3 * centre["distance_m"]
    elif fringe > 0:
        said["contrast"] = FRINGES
        said["distance_mm"] = 1e3 * centre["scan_distance_m"]
    else:
        said["contrast"] = ABSORPTION
    if fringe > 0:
        said["fringe_width_px"] = round(fringe, 3)
    return said


def fringe_width_px(centre: Mapping[str, Any]) -> float:
    """Width √(λz) over which propagation spreads an edge [pixels]; 0 where the distance is zero or unknown."""
    distance = centre["distance_m"] or centre["scan_distance_m"] or 0.0
    return math.sqrt(kev_to_wavelength(centre["energy_kev"]) * distance) / centre["pixel_size_m"]


def contrast_warnings(parameters: Mapping[str, Any], centre: Mapping[str, Any]) -> list[str]:
    """What the way from counts to µ takes for granted."""
    if parameters["delta_beta"] is not None:
        return [
            f"Paganin's filter was used: µ is that of a single material with δ/β = {parameters['delta_beta']:g}; "
            "inside other materials it holds only where they are wide, and their edges are too smooth or keep fringes"
        ]
    fringe = fringe_width_px(centre)
    if fringe > _WIDE_FRINGE:
        return [
            f"the scan is propagated by {1e3 * centre['scan_distance_m']:g} mm and was reconstructed by absorption "
            f"alone: fringes about {fringe:.1f} px wide stand along edges, where µ is not attenuation; inside wide "
            "materials it is"
        ]
    return []


def axis_warnings(centre: Mapping[str, Any]) -> list[str]:
    """Doubts about the rotation axis and the air."""
    found = []
    if not centre["agreed"]:
        opposite = centre["opposite_px"]
        pair = "" if opposite is None else f", projections half a turn apart say {opposite:.2f} px"
        found.append(
            f"the rotation centre is uncertain: estimates spread over {centre['spread_px']:.2f} px around "
            f"{centre['centre_px']:.2f} px{pair}; look at the slices about several centres, and give rotation_centre"
        )
    if centre["turn"] == "half acquisition":
        found.append(
            "the projections of a full turn were stitched to twice the width: an error of the centre doubles there"
        )
    return found


def quality_warnings(quality: Mapping[str, Any], parameters: Mapping[str, Any], pixels: int) -> list[str]:
    """What the numbers of a reconstruction say against it. pixels : of all projections together."""
    found = []
    if quality["clipped_pixels"] > _MOST_CLIPPED * pixels:
        share = 100 * quality["clipped_pixels"] / pixels
        found.append(
            f"{share:.2g} % of the pixels transmit less than {parameters['floor']:g} and were raised to it: µ is too "
            "low where the sample is thickest"
        )
    if quality["angular_completeness"] < _FULL_CIRCLE:
        missing = 180 * (1 - quality["angular_completeness"])
        found.append(
            f"{missing:.0f} degrees of the half circle were not measured: µ is too low, and edges in that direction "
            "are missing"
            + (
                "; sirt or cgls may do better"
                if parameters["method"] in ("fbp", "astra-fbp", "gridrec")
                else ""
            )
        )
    if quality["angular_sampling"] < _FEW_ANGLES:
        found.append(
            f"there are {quality['angular_sampling']:.0%} of the projections that the width asks for: streaks"
        )
    if quality["edge_residual"] > _OUT_OF_FIELD:
        found.append(
            "the sample reaches out of the field of view, or the air beside it is not at 1: µ is offset and has a "
            "bright rim; scale to air (air_px) if there is air"
        )
    if parameters["stripes"] != "none":
        found.append(
            "stripes were removed from the sinograms: structure that is round about the axis may have gone with them"
        )
    if parameters["method"] == "gridrec":
        found.append("gridrec is not quantitative: µ is off by up to a tenth")
    return found


def axis_summary(centre: Mapping[str, Any]) -> dict[str, Any]:
    """The axis, and what else was settled beforehand, for a summary."""
    said: dict[str, Any] = {
        "centre_px": centre["centre_px"],
        "centre_spread_px": centre["spread_px"],
        "centre_agreed": centre["agreed"],
    }
    if centre["given"]:
        said["centre_given"] = True
    if centre["opposite_px"] is not None:
        said["centre_opposite_px"] = round(centre["opposite_px"], 3)
    if centre["turn"] != "half turn":
        said["turn"] = centre["turn"]
    if centre["tilt_rad"]:
        said["tilt_deg"] = round(rad_to_deg(centre["tilt_rad"]), 4)
    if centre["air_level"] is not None:
        said["air_level"] = round(centre["air_level"], 4)
    return said
