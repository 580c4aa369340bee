"""The file beside a TIFF stack, scan.json or scan.yaml, that says what TIFF files cannot."""

import json
import reprlib
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tomoforge.errors import ScanError

NAMES = ("scan.json", "scan.yaml", "scan.yml")
_MOST_BYTES = 16 << 20


class Sidecar(BaseModel):
    """What a sidecar may say; every key may be left out, no other is allowed.

    energy_kev, pixel_size_um (at the sample), distance_mm (sample to detector); projections : pattern of names
    below the folder, as tiffs/*.tif; flats, darks : patterns, folders, or "file.h5:/path"; angles : text file, or
    a list in degrees; or angle_start_deg and angle_step_deg; angle_rows : (start, stop) of a longer list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    energy_kev: float | None = Field(default=None, gt=0)
    pixel_size_um: float | None = Field(default=None, gt=0)
    distance_mm: float | None = Field(default=None, ge=0)
    projections: str | None = None
    flats: str | list[str] | None = None
    darks: str | list[str] | None = None
    angles: str | list[float] | None = None
    angle_start_deg: float | None = None
    angle_step_deg: float | None = None
    angle_rows: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _one_source_of_angles(self) -> "Sidecar":
        if (self.angle_start_deg is None) != (self.angle_step_deg is None):
            raise ValueError("angle_start_deg and angle_step_deg must be given together")
        if self.angles is not None and self.angle_step_deg is not None:
            raise ValueError("angles must be given as a list or by start and step, got both")
        if self.angle_step_deg == 0:
            raise ValueError("angle_step_deg must not be 0")
        return self


def find_sidecar(folder: Path) -> Path | None:
    """The sidecar in ``folder``, or None. Raises ScanError if there are several."""
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise ScanError(
            f"{folder} must have one sidecar, got {', '.join(p.name for p in found)}; remove the old one"
        )
    return found[0] if found else None


def read_sidecar(path: Path) -> Sidecar:
    """The contents of a sidecar.

    Raises
    ------
    ScanError
        If it is no JSON or YAML, has an unknown key, or a value that cannot be; all of these are named at once.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ScanError(f"{path} must be a small file of settings, got {path.stat().st_size} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        contents = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise ScanError(f"{path} is not valid {kind}: {error}; correct it") from error
    if not isinstance(contents, dict):
        raise ScanError(f"{path} must hold keys and values, got {type(contents).__name__}")
    try:
        return Sidecar.model_validate(contents)
    except ValidationError as error:
        faults = "; ".join(_fault(list(each["loc"]), each["msg"], each["input"]) for each in error.errors())
        raise ScanError(f"{path}: {faults}. The keys are {', '.join(Sidecar.model_fields)}") from error


def _fault(place: list[int | str], message: str, value: object) -> str:
    # reprlib, because YAML lets a few lines stand for gigabytes.
    return f"{'.'.join(map(str, place)) or 'the file'}: {message}, got {reprlib.repr(value)}"
