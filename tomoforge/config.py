"""Settings as people write them: units in the names, bounds checked, unknown keys refused.

Text enters here (YAML, command line, Prefect's forms) and nowhere else; the library takes frozen records in SI.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tomoforge.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ForgingSettings(Settings):
    """What is drawn into protein samples, and what drapes their liquor."""

    engine: Literal["auto", "bpy", "blender", "lens"] = Field(
        "auto",
        description="Blender as Python wheel or as executable; 'lens' does without a fluid simulation.",
    )
    blender_timeout_s: Positive = Field(180.0, description="Longest time for one Blender run [s].")
    mounts: tuple[str, ...] = Field(
        (), description="Mounts to draw from: nylon, polymer, polyimide; all if empty."
    )
    habits: tuple[str, ...] = Field((), description="Crystal habits to draw from, by name; all if empty.")
    flaws: tuple[str, ...] = Field(
        ("face_jitter", "rounding", "chips", "satellites", "intergrowths", "cracks", "dissolution"),
        description="Flaws that crystals may have, by name; 'none' for flawless ones.",
    )
    most_crystals: Annotated[int, Field(ge=1, le=10)] = Field(3, description="Most crystals in a loop.")
    bubbles: bool = Field(True, description="Gas bubbles in some of the liquors.")
    truncation: bool = Field(False, description="Whether mount and crystal may leave the field of view.")

    @field_validator("mounts", "habits", "flaws", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        if value == "none":
            return ()
        return (value,) if isinstance(value, str) else value


class OpticsSettings(Settings):
    """How forged samples are scanned."""

    energy_kev: Annotated[float, Field(ge=0.2, le=200)] = Field(5.0, description="Photon energy [keV].")
    projections: Annotated[int, Field(ge=2, le=20000)] = Field(180, description="Projections over the arc.")
    arc_deg: Annotated[float, Field(gt=0, le=360)] = Field(180.0, description="Arc of the scan [degrees].")
    distance_mm: NotNegative = Field(5.0, description="Sample to detector [mm]; 0 is absorption only.")
    photons: Positive = Field(20000.0, description="Photons a pixel and frame in the open beam.")
    flats: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="Frames of the open beam.")
    darks: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="Frames without beam.")
    oversampling: Annotated[int, Field(ge=1, le=8)] = Field(2, description="Wave samples across a pixel.")
    planes: Literal["auto"] | Annotated[int, Field(ge=1, le=257)] = Field(
        "auto",
        description="Planes that the sample is gathered in along the beam; auto keeps within 0.5 % of contrast.",
    )
    psf_sigma_px: NotNegative = Field(0.4, description="Point spread of the detector, rms [pixels].")
    ring_strength: NotNegative = Field(
        0.0005, description="Gain drift of a detector column over the scan, rms; makes rings."
    )
    model: Literal["wave", "absorption"] = Field(
        "wave", description="Wave optics, or absorption alone as the baseline."
    )
    spectrum: Literal["monochromatic", "tube", "undulator"] = Field(
        "monochromatic", description="One energy, an X-ray tube (SpekPy), or an undulator around energy_kev."
    )
    tube_kv: Annotated[float, Field(ge=10, le=200)] = Field(
        140.0, description="Peak voltage of the tube [kV]."
    )
    tube_anode_deg: Annotated[float, Field(ge=1, le=89)] = Field(12.0, description="Anode angle [degrees].")
    tube_filter: str = Field("aluminium", description="Material of the tube's filter.")
    tube_filter_mm: NotNegative = Field(2.0, description="Its thickness [mm].")
    bandwidth: Annotated[float, Field(gt=0, le=0.2)] = Field(
        0.01, description="Relative bandwidth of the undulator, full width at half maximum."
    )
    energies: Annotated[int, Field(ge=1, le=100)] = Field(
        8, description="Energies that a spectrum is summed over."
    )
    detector_like: str | None = Field(
        None,
        description="Path of a real scan whose flats and darks say what noise, patterns and photons to forge.",
    )
    liquor: str = Field("ammonium_sulfate_liquor", description="Material of label 1.")
    loop: str = Field("nylon", description="Material of label 2.")
    crystal: str = Field("ammonium_sulfate_crystal", description="Material of label 3.")


class ReconstructionSettings(Settings):
    """How a scan becomes a volume."""

    filter: Literal["ramp", "shepp-logan", "hann", "parzen"] = Field(
        "ramp", description="Filter of the back-projection."
    )
    rotation_centre: float | None = Field(
        None, description="Detector column of the axis [pixels]; searched for if not given."
    )


class TrainingSchedule(Settings):
    """How long and how large the segmenter is trained (2D nnU-Net)."""

    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(
        12, description="Epochs; an interrupted training goes on at the last."
    )
    iterations: Annotated[int, Field(ge=1, le=10000)] = Field(25, description="Batches an epoch.")
    batch_size: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Slices a batch.")
    patch: Annotated[int, Field(ge=32, le=1024)] = Field(
        128, description="Width of a training patch [voxels]."
    )
    features: Annotated[int, Field(ge=4, le=64)] = Field(8, description="Channels of the first stage.")
    stages: Annotated[int, Field(ge=2, le=8)] = Field(5, description="Resolutions of the network.")
    learning_rate: Positive = Field(4e-3, description="Initial learning rate (AdamW).")
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Threads of the training; another number gives slightly other weights."
    )


class RotationSettings(Settings):
    """The synthetic rotation experiment whose reflections get absorption factors."""

    cell: tuple[Positive, Positive, Positive, Positive, Positive, Positive] = Field(
        (79.0, 79.0, 37.0, 90.0, 90.0, 90.0), description="Cell a, b, c [Å], α, β, γ [degrees]."
    )
    space_group: str = Field("P 43 21 2", description="Hermann–Mauguin symbol.")
    resolution_a: Positive = Field(4.0, description="Smallest spacing [Å].")
    rotation_range_deg: Annotated[float, Field(gt=0, le=360)] = Field(
        90.0, description="Rotation range [degrees]."
    )
    reflections: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        1000, description="Largest number of reflections; more are thinned evenly."
    )
    target_error: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.003, description="Standard error of a factor to be reached."
    )


class ClusterSettings(Settings):
    """Where the work is done."""

    kind: Literal["local", "cuda", "address"] = Field(
        "local", description="Dask LocalCluster, dask_cuda.LocalCUDACluster, or a running scheduler."
    )
    workers: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Worker processes; one a core (local) or a GPU (cuda) if not given."
    )
    address: str | None = Field(None, description="Scheduler address, for kind 'address'.")
    memory_limit: str = Field("auto", description="Memory a worker may use, e.g. '4GiB'.")

    @model_validator(mode="after")
    def _address_belongs_to_kind(self) -> "ClusterSettings":
        if (self.kind == "address") != (self.address is not None):
            raise ValueError(
                "kind 'address' needs the scheduler's address (e.g. tls://host:8786), and only it takes one"
            )
        return self


AnySettings = TypeVar("AnySettings", bound=Settings)


def parse_settings(model: type[AnySettings], values: Mapping[str, Any]) -> AnySettings:
    """Settings from a mapping. Raises ConfigError that names every key at fault."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(model.__name__, error)) from error


def explain(where: str, error: ValidationError) -> str:
    """A validation error in sentences: key, what was wrong, what came."""
    lines = []
    for entry in error.errors(include_url=False):
        key = ".".join(str(part) for part in entry["loc"]) or where
        if entry["type"] == "extra_forbidden":
            lines.append(f"{key}: no such setting; is it misspelt?")
        else:
            lines.append(f"{key}: {entry['msg']}, got {entry['input']!r}")
    return f"{where} cannot be used:\n  " + "\n  ".join(lines)


def read_config(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if it is missing, unreadable or no mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"config {path} must be a mapping of settings, got {type(values).__name__}")
    return values
