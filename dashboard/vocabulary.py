"""How stored names are said to people: labels, units, the order of things, numbers.

Stored names carry their unit as a suffix (``energy_kev``); here that suffix becomes the unit.
"""

import datetime
import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of published result: its folder name, its words, the page that shows it.

    headline : summary keys shown as tiles, as far as they are there (``*`` matches anything);
    pictures, tables : what comes first, the rest follows by name.
    """

    name: str
    singular: str
    plural: str
    page: str
    headline: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "runs",
            "run",
            "runs",
            "stages/run.py",
            headline=(
                "samples_forged",
                "projections",
                "mu_*",
                "*recall*",
                "*iou*",
                "*relative_difference",
            ),
            pictures=("overview",),
            tables=("materials", "segmentation", "absorption"),
        ),
        Kind(
            "sample_sets",
            "sample set",
            "sample sets",
            "stages/forge.py",
            headline=("samples_requested", "samples_forged", "passed_at_first_try", "rejected_*"),
            pictures=("contact_sheet", "distributions"),
            tables=("samples", "rejections"),
        ),
        Kind(
            "samples",
            "sample",
            "samples",
            "stages/forge.py",
            headline=("*fraction*", "habit", "mount"),
            pictures=("labels",),
        ),
        Kind(
            "scans",
            "scan",
            "scans",
            "stages/scan.py",
            headline=("energy_kev", "pixel_size_um", "projections", "propagation_distance_mm"),
            pictures=("projection", "sinogram"),
        ),
        Kind(
            "volumes",
            "reconstruction",
            "reconstructions",
            "stages/scan.py",
            headline=("centre_px", "*spread*", "voxel_size_um", "mu_*", "contrast"),
            pictures=("axial", "coronal", "sagittal", "centres", "sinogram"),
        ),
        Kind(
            "previews",
            "preview",
            "previews",
            "stages/scan.py",
            headline=("centre_px", "*spread*", "centre_agreed", "contrast"),
            pictures=("axial*", "centres", "sinogram"),
        ),
        Kind(
            "segmentations",
            "segmentation",
            "segmentations",
            "stages/scan.py",
            headline=("model", "*fraction*", "*recall*", "*iou*", "uncertainty_*"),
            pictures=("overlay", "uncertainty"),
            tables=("metrics",),
        ),
        Kind(
            "models",
            "model",
            "models",
            "stages/models.py",
            headline=("epochs", "*dice*", "*recall*", "*loss*"),
            pictures=("training_curve",),
            tables=("metrics", "training_curve"),
        ),
        Kind(
            "nights",
            "night",
            "nights",
            "stages/run.py",
            headline=("outcome", "new_cases", "quarantined", "approved_cases"),
            tables=("cases", "decision"),
        ),
        Kind(
            "promotions",
            "decision on a model",
            "decisions on models",
            "stages/models.py",
            headline=("decision", "iou_*_challenger", "iou_*", "new_real_cases", "decided_by"),
            pictures=("confusion", "worst_case_1"),
            tables=("gate", "worst_cases", "audit"),
        ),
        Kind(
            "annotation_queues",
            "queue for annotation",
            "queues for annotation",
            "stages/annotate.py",
            headline=("queued", "ranked", "decided_already", "not_segmented"),
            pictures=("1_*",),
            tables=("queue",),
        ),
        Kind(
            "comparisons",
            "comparison of training sources",
            "comparisons of training sources",
            "stages/models.py",
            headline=("gain_*", "iou_*", "cases_*", "seeds", "iterations"),
            pictures=("comparison", "worst_*"),
            tables=("scores", "differences", "published", "seeds", "worst_cases", "cases"),
        ),
        Kind(
            "absorption",
            "absorption correction",
            "absorption corrections",
            "stages/absorption.py",
            headline=(
                "reflections",
                "mean_relative_difference",
                "largest_relative_difference",
                "transmission_*",
                "r_meas_*",
                "i_over_sigma_*",
                "median_standard_error_percent",
            ),
            pictures=("frames", "histogram", "shells", "mu_*"),
            tables=("merging", "scores", "comparison*", "mu", "shells", "factors"),
        ),
        Kind(
            "ingests",
            "inbox report",
            "inbox reports",
            "stages/run.py",
            headline=("entries", "imported", "quarantined", "failed", "deferred", "duplicate"),
            tables=("entries", "companions"),
        ),
        Kind(
            "fidelity",
            "fidelity report",
            "fidelity reports",
            "stages/forge.py",
            headline=("ssim_*", "psnr_*", "distance_mm"),
            pictures=("projection", "slice", "distances"),
            tables=("metrics", "distances", "classes"),
        ),
    )
}

# What a person must not miss, as opposed to what is worth knowing.
_SEVERE = ("outside the training domain", "do not trust", "do not use", "failed", "refused")

_UNITS = (
    ("_kg_per_m3", "kg/m³"),
    ("_g_per_cm3", "g/cm³"),
    ("_per_mm", "mm⁻¹"),
    ("_per_m", "m⁻¹"),
    ("_per_s", "s⁻¹"),
    ("_um3", "µm³"),
    ("_mm3", "mm³"),
    ("_kev", "keV"),
    ("_ev", "eV"),
    ("_um", "µm"),
    ("_nm", "nm"),
    ("_mm", "mm"),
    ("_angstrom", "Å"),
    ("_px", "px"),
    ("_pixels", "px"),
    ("_percent", "%"),
    ("_deg", "°"),
    ("_rad", "rad"),
    ("_ms", "ms"),
    ("_seconds", "s"),
    ("_s", "s"),
    ("_gib", "GiB"),
    ("_db", "dB"),
    ("_m", "m"),
)
_WORDS = {"mu": "µ", "iou": "IoU", "f1": "F1", "f2": "F2", "rms": "RMS", "rmse": "RMSE"}
_WORDS |= {"ssim": "SSIM", "psnr": "PSNR"}
_WORDS |= {"fbp": "FBP", "snr": "SNR", "id": "ID", "psf": "PSF", "roi": "ROI", "nxtomo": "NXtomo"}
_WORDS |= {"fractions": "fraction", "percentiles": "percentile"}
_LABELS = {
    "centre_px": "Rotation centre",
    "centre_opposite_px": "Centre by opposite projections",
    "contrast": "µ rests on",
    "mu_noise_per_m": "Noise of µ",
    "mu_rings_per_m": "Rings in µ",
    "edge_residual": "Signal at the detector's sides",
    "angular_completeness": "Share of the half circle measured",
    "angular_sampling": "Projections over those the width asks for",
    "mu_true_per_m": "µ put in",
    "mu_reconstructed_per_m": "µ reconstructed",
    "r_meas_corrected": "Rmeas corrected",
    "r_meas_uncorrected": "Rmeas not corrected",
    "r_meas_free": "Rmeas free of absorption",
    "i_over_sigma_corrected": "I/σ corrected",
    "i_over_sigma_uncorrected": "I/σ not corrected",
    "i_over_sigma_free": "I/σ free of absorption",
    "published_at": "Published",
    "passed": "Validation passed",
}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def split_unit(name: str) -> tuple[str, str]:
    """A stored name as (label, unit): ``energy_kev`` → ``("Energy", "keV")``."""
    stem, unit = name, ""
    for suffix, symbol in _UNITS:
        if name.endswith(suffix) and len(name) > len(suffix):
            stem, unit = name.removesuffix(suffix), symbol
            break
    else:
        # The attenuation coefficient is stored in 1/m, said or not; ratios of it have no unit.
        if name.startswith("mu_") and not re.search("relative|ratio|fraction", name):
            unit = "m⁻¹"
        elif is_relative_difference(name):
            unit = "%"
    if name in _LABELS:
        return _LABELS[name], unit
    words = [_WORDS.get(word.lower(), word) for word in re.split(r"[_\s]+", stem) if word]
    label = " ".join(words)
    # h, k, l and µ are symbols, not words.
    if len(words[0] if words else "") > 1:
        label = label[:1].upper() + label[1:]
    return label, unit


def label(name: str) -> str:
    """A stored name for a heading or a column: ``energy_kev`` → ``Energy [keV]``."""
    text, unit = split_unit(name)
    return f"{text} [{unit}]" if unit else text


def is_relative_difference(name: str) -> bool:
    """Whether a number of this name is a fraction that people read in percent."""
    return name.endswith("relative_difference")


def value_text(name: str, value: Any) -> str:
    """A summary value as text, without its unit."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name.split("_")[-1] in ("seed", "id", "version"):
            return str(value)
        return number_text(100 * value if is_relative_difference(name) else value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(value_text(name, part) for part in value)
    return str(value)


def number_text(value: float) -> str:
    """A number with four significant digits, thousands apart by thin spaces."""
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    number = float(value)
    if not math.isfinite(number):
        return "–"
    if number == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(number)))
    if not -4 <= magnitude < 6:
        mantissa, exponent = f"{number:.3e}".split("e")
        power = str(int(exponent)).translate(_SUPERSCRIPT)
        return f"{_shorten(mantissa)} × 10{power}"
    return _shorten(f"{number:,.{max(0, 3 - magnitude)}f}").replace(",", "\u202f")


def _shorten(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary with nested mappings drawn into one level: ``{"a": {"b": 1}}`` → ``{"a_b": 1}``.

    The unit stays at the end: ``{"mu_per_m": {"crystal": 1}}`` → ``{"mu_crystal_per_m": 1}``.
    """
    found: dict[str, Any] = {}
    for name, value in summary.items():
        if not isinstance(value, Mapping):
            found[str(name)] = value
            continue
        suffix = next((s for s, _ in _UNITS if str(name).endswith(s)), "")
        stem = str(name).removesuffix(suffix)
        found |= {f"{stem}_{inner}{suffix}": part for inner, part in flat(value).items()}
    return found


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that match a pattern (``*`` matches anything), in the patterns' order."""
    rest, found = list(names), []
    for pattern in patterns:
        found += [name for name in rest if fnmatch.fnmatchcase(name, pattern)]
        rest = [name for name in rest if name not in found]
    return found


def ordered(names: Iterable[str], first: Sequence[str]) -> list[str]:
    """``names`` with those matching ``first`` in front, in that order."""
    names = list(names)
    front = matching(names, first)
    return front + [name for name in names if name not in front]


def kind_word(kind: str) -> str:
    """What one result of ``kind`` is called."""
    return KINDS[kind].singular.capitalize() if kind in KINDS else kind


def is_severe(warning: str) -> bool:
    """Whether a warning says that the result is not to be used without a look at it."""
    lowered = warning.lower()
    return any(words in lowered for words in _SEVERE)


def count(number: int, singular: str, plural: str) -> str:
    """``1 scan``, ``2 scans``."""
    return f"{number} {singular if number == 1 else plural}"


def moment(published_at: Any) -> str:
    """A stored time (ISO 8601) for reading, in UTC."""
    try:
        time = datetime.datetime.fromisoformat(str(published_at))
    except ValueError:
        return "time unknown"
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def literal(text: Any) -> str:
    """Text from a file, escaped so that Markdown shows it letter by letter, on one line.

    HTML is never interpreted here; this keeps Markdown from loading pictures, making links to
    elsewhere, or turning an underscore into italics. An invisible word joiner stops what looks
    like an address from becoming a link, which no backslash does.
    """
    # Half a surrogate pair, of a file's name in another encoding, cannot be sent to a browser.
    line = " ".join(str(text).encode("utf-8", "replace").decode().split())
    line = re.sub(r"(://|www(?=\.)|@)", "\\1\u2060", line, flags=re.IGNORECASE)
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line)
