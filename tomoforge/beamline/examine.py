"""Open a scan and judge it in one go: what cannot be read is refused, with a rule, like what cannot be trusted."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tomoforge.beamline import read_scan
from tomoforge.beamline.containment import unwritten_frames
from tomoforge.beamline.findings import Finding, Refused, ScanReport
from tomoforge.beamline.validation import validate_scan
from tomoforge.errors import MissingComponentError, ScanError
from tomoforge.scan import FrameStack, Scan

# By which rule a reader's message is filed, the first that fits; readers say what they found and what to do.
_RULES = (
    ("being written", r"open for write|unable to lock|still being written\b(?!.* otherwise)"),
    ("path leaves the inbox", r"leaves|outside|lead out|\(out of "),
    ("missing files", r"lead nowhere|links lead|sources are not all there|files that are missing|dangling"),
    ("square pixels", r"must be square"),
    ("flats and darks present", r"has no (flats|darks)|no (flats|darks) (and|:)|has no .*\b(flats|darks)\b"),
    ("energy and pixel size given", r"photon energy|pixel size at the sample|energy_kev|pixel_size_um"),
    ("a scan", r"no projections"),
    ("frames against image keys", r"image_key|image keys"),
    ("frames against angles", r"angle"),
    ("shapes", r"shape|matching projections|\(frame, y, x\)|same size"),
    ("real counts", r"real counts|dtype|must hold"),
    ("readable file", r"cannot be opened|damaged|cannot be read|truncated|not a TIFF"),
    ("a scan", r"entry|entries|no TIFF|folder|does not exist|not an? .*scan"),
)  # fmt: skip


def examine_scan(
    path: str | Path,
    *,
    energy_kev: float | None = None,
    pixel_size_um: float | None = None,
    allow_missing: Collection[str] = (),
    root: str | Path | None = None,
    angle_rows: tuple[int, int] | None = None,
    flats: str | Sequence[str] | None = None,
    darks: str | Sequence[str] | None = None,
    frames: int | None = 32,
) -> tuple[Scan | None, ScanReport]:
    """Open and validate a scan; the arguments are those of ``read_scan``, and ``frames`` of ``validate_scan``.

    Returns
    -------
    scan : Scan, or None where it cannot be opened
    report : ScanReport; ``report.verdict`` is "passed", "warned" or "refused"

    Raises
    ------
    InputError
        If an argument itself is wrong: that is no fault of the scan.
    """
    given: dict[str, Any] = {"root": root, "angle_rows": angle_rows, "flats": flats, "darks": darks}
    try:
        scan = read_scan(
            path,
            energy_kev=energy_kev,
            pixel_size_um=pixel_size_um,
            allow_missing=allow_missing,
            **{name: value for name, value in given.items() if value is not None},
        )
    except Refused as error:
        return None, ScanReport.of((), (error.finding,))
    except MissingComponentError as error:
        return None, ScanReport.of((), (Finding("readable file", str(error), "install it"),))
    except ScanError as error:
        return None, ScanReport.of((), (filed(str(error), str(path)),))
    except (OSError, RuntimeError, KeyError, MemoryError) as error:
        # Damage that no reader foresaw still belongs to this scan alone.
        finding = Finding(
            "readable file",
            f"{Path(path).name} cannot be read: {type(error).__name__}: {error}",
            "copy the scan again",
        )
        return None, ScanReport.of((), (finding,))
    unwritten = _unwritten(scan)
    if unwritten:
        return scan, ScanReport.of((), unwritten)  # its frames would be judged by their fill values
    return scan, validate_scan(scan, frames=frames)


def filed(message: str, path: str = "") -> Finding:
    """A reader's message as a finding: what follows its last semicolon is the remedy; ``path`` says nothing."""
    said = message.replace(path, "") if path else message
    rule = next((name for name, pattern in _RULES if re.search(pattern, said, re.I | re.S)), "a scan")
    reason, _, remedy = message.rpartition("; ")
    return Finding(rule, reason or message, remedy if reason else "correct the file, or write it again")


def _unwritten(scan: Scan) -> list[Finding]:
    frames = scan.projections
    if not isinstance(frames, FrameStack):
        return []
    try:
        missing = unwritten_frames(Path(frames.path), frames.dataset)
    except (OSError, KeyError, RuntimeError) as error:
        return [Finding("readable frames", f"{frames.dataset} cannot be looked at: {error}", "copy it again")]
    if missing <= 0:
        return []
    return [
        Finding(
            "frames never written",
            f"{missing} chunks of {frames.dataset} were never stored and read as fill values",
            "if the scan goes on, wait; otherwise write it again with the frames that were taken",
        )
    ]
