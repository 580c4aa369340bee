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
    materials: Literal["named", "drawn"] = Field(
        "named",
        description="The three materials below, or liquor, mount and crystal drawn anew for every sample.",
    )
    liquor: str = Field("ammonium_sulfate_liquor", description="Material of label 1.")
    loop: str = Field("nylon", description="Material of label 2.")
    crystal: str = Field("ammonium_sulfate_crystal", description="Material of label 3.")


class ReconstructionSettings(Settings):
    """How a scan becomes a volume. What is not said changes nothing: the defaults keep µ as it was measured."""

    filter: Literal["ramp", "shepp-logan", "hann", "parzen"] = Field(
        "ramp", description="Filter of the back-projection."
    )
    rotation_centre: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Detector column of the axis [pixels]; searched for if not given."
    )
    centre_from: NotNegative | None = Field(
        None,
        description="Lowest column that is searched for the axis [pixels]; by the kind of turn if not given.",
    )
    centre_to: NotNegative | None = Field(None, description="Highest column that is searched [pixels].")
    centre_figure: Literal["auto", "always", "never"] = Field(
        "auto", description="A row of slices at several centres to choose from; auto where the rows disagree."
    )
    method: Literal["fbp", "sirt", "cgls", "astra-fbp", "gridrec"] = Field(
        "fbp",
        description="Filtered back-projection; SIRT or CGLS for few angles or missing wedges; ASTRA's FBP; gridrec.",
    )
    iterations: Annotated[int, Field(ge=1, le=10000)] = Field(100, description="Of SIRT or CGLS.")
    zingers: bool = Field(
        False, description="Repair flashes of single frames, and pixels that flicker or are stuck."
    )
    stripes: Literal["none", "sorting", "filtering", "fitting", "large", "all"] = Field(
        "none",
        description="Removal of stripes in sinograms, which are rings in slices; it is not quantitative.",
    )
    delta_beta: Positive | None = Field(
        None,
        description="δ/β of the one material that Paganin's filter assumes; without it phase fringes stay.",
    )
    distance_mm: NotNegative | None = Field(
        None, description="Sample to detector [mm] for Paganin's filter; the scan's if not given."
    )
    half_acquisition: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Whether a full turn with the axis near one side is stitched to twice the width; auto looks.",
    )
    air_px: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        0,
        description="Columns at each side that show air at every angle, to be scaled to 1 [pixels]; 0 scales nothing.",
    )
    tilt_deg: Literal["auto"] | Annotated[float, Field(ge=-5, le=5, allow_inf_nan=False)] = Field(
        0.0,
        description="Lean of the axis in the detector's plane [degrees]; auto measures it on opposite projections.",
    )
    floor: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-4, description="Least transmission that is believed; lower ones are raised to it and counted."
    )
    slab_rows: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Detector rows a worker holds at a time; as many as memory_gib allows if not given."
    )
    memory_gib: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] = Field(
        4.0, description="Memory that a worker may use for its slab [GiB]."
    )
    export: Literal["none", "tiff", "nrrd"] = Field(
        "none", description="The volume once more, as a stack of TIFF slices or as one NRRD file."
    )
    preview: bool = Field(True, description="Publish three slices of a real scan before the whole volume.")

    @model_validator(mode="after")
    def _bounds_are_a_pair(self) -> "ReconstructionSettings":
        if (self.centre_from is None) != (self.centre_to is None):
            raise ValueError("centre_from and centre_to bound a search together: give both, or neither")
        if self.centre_from is not None and self.centre_to is not None and self.centre_from >= self.centre_to:
            raise ValueError(
                f"centre_from must be below centre_to, got {self.centre_from:g} and {self.centre_to:g}"
            )
        return self


class TrainingSchedule(Settings):
    """How long and how large the segmenter is trained (nnU-Net); what is not given is the preset's."""

    preset: Literal["quick", "crystalseg", "nightly"] = Field(
        "quick",
        description="Minutes on two cores; the published recipe; or a night's continuation of a trained model.",
    )
    configuration: Literal["2d", "3d_lowres", "3d_fullres"] | None = Field(
        None, description="Slices, blocks of the coarsened volume, or blocks; the preset's if not given."
    )
    epochs: Annotated[int, Field(ge=1, le=10000)] | None = Field(
        None, description="Epochs; an interrupted training goes on at the last."
    )
    iterations: Annotated[int, Field(ge=1, le=10000)] | None = Field(None, description="Batches an epoch.")
    batch_size: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="Slices or blocks a batch."
    )
    patch: Annotated[int, Field(ge=32, le=1024)] | None = Field(
        None, description="Width of a training patch [voxels]."
    )
    features: Annotated[int, Field(ge=4, le=64)] | None = Field(
        None, description="Channels of the first stage."
    )
    stages: Annotated[int, Field(ge=2, le=8)] | None = Field(None, description="Resolutions of the network.")
    normalisation: Literal["instance", "batch"] | None = Field(
        None, description="Inside the network: instance forgets absolute grey values, batch keeps them."
    )
    learning_rate: Positive | None = Field(None, description="Initial learning rate.")
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Processor, or the first GPU that a worker sees."
    )
    deterministic: bool = Field(True, description="The same bytes from the same training; slower on a GPU.")
    loaders: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Processes that cut and augment batches; only 0 is deterministic."
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Threads of the training; another number gives slightly other weights."
    )

    @model_validator(mode="after")
    def _loaders_come_in_any_order(self) -> "TrainingSchedule":
        if self.deterministic and self.loaders:
            raise ValueError(
                "loaders deliver their batches in any order: set deterministic to false, or loaders to 0"
            )
        return self


class RotationSettings(Settings):
    """The twin: a synthetic rotation experiment whose true absorption is known."""

    cell: tuple[Positive, Positive, Positive, Positive, Positive, Positive] = Field(
        (79.0, 79.0, 37.0, 90.0, 90.0, 90.0), description="Cell a, b, c [Å], α, β, γ [degrees]."
    )
    space_group: str = Field("P 43 21 2", description="Hermann–Mauguin symbol.")
    resolution_a: Positive = Field(4.0, description="Smallest spacing [Å].")
    rotation_range_deg: Annotated[float, Field(gt=0, le=360)] = Field(
        180.0, description="Rotation range [degrees]."
    )
    reflections: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        1000, description="About how many reflections; more are thinned by whole groups of equivalents."
    )
    anomalous: NotNegative = Field(0.04, description="Anomalous differences over mean intensities, about.")
    instrument_error: NotNegative = Field(
        0.02, description="Relative error of every intensity, whatever its counts."
    )


class DiffractionSettings(Settings):
    """How files of reflections are read, and how their laboratory lies to the tomogram."""

    intensity: Literal["profile", "summation", "scaled"] = Field(
        "profile", description="Which intensities of a .refl or an unmerged MTZ."
    )
    space_group: str | None = Field(
        None, description="Hermann–Mauguin symbol, where it is another than the files say or they say none."
    )
    orientation: str = Field(
        "goniometer",
        description="goniometer: the tomogram was recorded on the same one, about its scanning axis; anacor; search: "
        "among 24 quarter turns of that; or the laboratory axes along array axes z, y, x, such as +x,+z,+y.",
    )
    tomography_zero_deg: Annotated[float, Field(ge=-360, le=360, allow_inf_nan=False)] = Field(
        0.0, description="Tomography angle where the goniometer stands at zero [degrees]."
    )
    rotation_sense: Literal["same", "opposite"] = Field(
        "same", description="Whether the tomography angle grows with the goniometer's, or falls."
    )

    @field_validator("orientation", mode="before")
    @classmethod
    def _axes_as_text(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, list | tuple) else value


class TracingSettings(Settings):
    """How absorption factors are traced, and where µ comes from."""

    target_error: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.003, description="Standard error of a factor to be reached, relative."
    )
    mu_from: Literal["composition", "projections", "volume"] = Field(
        "composition",
        description="µ of the named materials, or as measured in the flat-corrected projections or in the volume.",
    )
    mu_error_percent: NotNegative = Field(
        0.0, description="Standard error of µ from the composition [percent]; measured µ bring their own."
    )
    beam_height_um: Positive | None = Field(
        None,
        description="Full height of a top-hat beam [µm], along the axis; larger than the crystal if not given.",
    )
    beam_width_um: Positive | None = Field(
        None, description="Its full width [µm]; given together with the height."
    )
    surface: Literal["voxels", "smooth"] = Field(
        "voxels",
        description="Trace the labels' voxels, steps and all, or the smooth body behind them; it matters where rays "
        "that graze are absorbed strongly.",
    )
    segmentation_draws: Annotated[int, Field(ge=0, le=1000)] = Field(
        0,
        description="Label volumes drawn from the class probabilities of predicted labels, whose spread in A is the "
        "segmentation's error; 0 for none. The labels must have kept them (prediction.softmax).",
    )
    segmentation_length_um: Positive | None = Field(
        None,
        description="Over what length a boundary of a draw errs the same way [µm]; over the whole sample if not given, "
        "which comes nearest to how networks err.",
    )

    @model_validator(mode="after")
    def _several_draws(self) -> "TracingSettings":
        if self.segmentation_draws == 1:
            raise ValueError("segmentation_draws must be 0, or 2 at least to differ")
        if self.segmentation_length_um is not None and not self.segmentation_draws:
            raise ValueError("segmentation_length_um is a length of draws: give segmentation_draws too")
        return self

    @model_validator(mode="after")
    def _beam_has_two_sides(self) -> "TracingSettings":
        if (self.beam_height_um is None) != (self.beam_width_um is None):
            raise ValueError("beam_height_um and beam_width_um describe one beam: give both, or neither")
        return self


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
