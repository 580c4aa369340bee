"""A workspace with a result of every kind, published as the flows publish, with real pictures."""

import io
import shutil
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from tests.dashboard.methods_example import publish_methods
from tomoforge.results import Picture, Table, publish
from tomoforge.scan import write_frame_batch, write_nxtomo
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import write_labels, write_volume

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
OUTSIDE = "outside the training domain: median µ is 3.1 times that of the training set"


@pytest.fixture(scope="session")
def app() -> Path:
    """The script that `streamlit run` is given."""
    return APP


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace that the dashboard is pointed at."""
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


@pytest.fixture(scope="session")
def example_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, drawn and published once; tests work on copies."""
    root = tmp_path_factory.mktemp("example") / "published"
    publish_example(root)
    return root


@pytest.fixture
def example(workspace: Path, example_once: Path) -> Path:
    """The published folder of that workspace, with two runs and all their parts."""
    return Path(shutil.copytree(example_once, workspace / "published"))


def publish_example(root: Path) -> None:
    """Publish one result of every kind, a second scan and a second run, under ``root``."""
    labels = _labels()
    _publish_scans(root, labels)
    _publish_models(root, labels)
    _publish_absorption(root)
    _publish_queue(root, labels)
    publish_methods(root, Picture(_slices(labels, "viridis", None), "Three planes through the centre."))
    _publish_runs(root, labels)


def png(draw, width: float = 9, height: float = 3.8) -> bytes:
    """The PNG of what ``draw(figure)`` draws."""
    figure = plt.figure(figsize=(width, height), dpi=100, layout="constrained")
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _labels(size: int = 96) -> np.ndarray:
    """(y, x) uint8: a crystal in its liquor in a loop."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    labels = np.zeros((size, size), np.uint8)
    labels[x**2 + 1.3 * y**2 < 0.16] = 1
    labels[np.abs(np.hypot(x, y) - 0.42) < 0.02] = 2
    labels[(np.abs(x + 0.2 * y) < 0.22) & (np.abs(y) < 0.14)] = 3
    return labels


def _slices(image: np.ndarray, cmap: str, unit: str | None) -> bytes:
    def draw(figure):
        for axes, name in zip(figure.subplots(1, 3), ("z", "y", "x"), strict=True):
            shown = axes.imshow(image if name == "z" else image.T, cmap=cmap)
            axes.set_title(f"{name} = 48")
            axes.set_xlabel("voxel")
        if unit:
            figure.colorbar(shown, ax=figure.axes, label=unit)

    return png(draw)


def _image(image: np.ndarray, x: str, y: str, unit: str) -> bytes:
    def draw(figure):
        axes = figure.subplots()
        figure.colorbar(axes.imshow(image, cmap="gray", aspect="auto"), ax=axes, label=unit)
        axes.set(xlabel=x, ylabel=y)

    return png(draw)


def _publish_scans(root: Path, labels: np.ndarray) -> None:
    publish(
        root,
        "samples",
        "forge_sample-11",
        title="Thick plate in a nylon loop",
        summary={
            "fractions": {"liquor": 0.214, "loop": 0.031, "crystal": 0.127},
            "habit": "monoclinic plate, {001} {110}",
            "mount": "nylon loop",
            "liquor": "wetting relaxation of a Mantaflow drape, contact angle 32°",
            "voxel_size_um": 1.0,
            "seed": 20260101,
        },
        pictures={
            "labels": Picture(
                _slices(labels, "viridis", None),
                "Labels in three planes through the centre; 1 µm voxels.",
            )
        },
        provenance={"git_revision": "0123456789abcdef", "packages": {"numpy": "1.26.4"}},
    )
    path = (labels > 0).sum(0)[None, :] * np.ones((120, 1)) * 2e-3
    rng = np.random.default_rng(1)
    counts = 1000 * np.exp(-path) + rng.normal(0, 12, path.shape)
    pictures = {
        "projection": Picture(
            _image(counts, "column [px]", "row [px]", "counts"), "First projection, 0°, in counts."
        ),
        "sinogram": Picture(
            _image(-np.log(counts / 1000), "column [px]", "angle [°]", "−ln T"),
            "Sinogram of the middle row, line integral of µ.",
        ),
    }
    numbers = {"energy_kev": 4.0, "pixel_size_um": 0.5, "projections": 180, "passed": True}
    publish(
        root,
        "scans",
        "scan-21",
        title="Simulated scan of the thick plate",
        summary={**numbers, "propagation_distance_mm": 5.0, "name": "forged-0001"},
        pictures=pictures,
        sources={"sample": "forge_sample-11"},
        run={"published_at": "2026-01-02T05:00:00+00:00", "seconds": 41.2},
    )
    publish(
        root,
        "scans",
        "scan-22",
        title="Crystal 7 of visit mx1234",
        summary={**numbers, "projections": 1800, "passed": False},
        warnings=["the beam drifted by 4.1 % between the first and the last flat"],
        pictures={"projection": pictures["projection"]},
        run={"published_at": "2026-01-01T05:00:00+00:00"},
    )
    publish(
        root,
        "volumes",
        "volume-31",
        title="Reconstruction of the simulated scan",
        summary={
            "centre_px": 47.52,
            "centre_spread_px": 0.08,
            "voxel_size_um": 0.5,
            "mu_percentiles_per_m": {"p1": -410.0, "p50": 13.2, "p99": 7105.0},
        },
        pictures={
            "slices": Picture(
                _slices(np.array([0, 6300, 4100, 6900])[labels], "gray", "µ [1/m]"),
                "Three planes through the centre, µ in 1/m.",
            )
        },
        sources={"scan": "scan-21"},
    )


def _publish_models(root: Path, labels: np.ndarray) -> None:
    metrics = pd.DataFrame(
        {
            "class": ["liquor", "loop", "crystal"],
            "recall": [0.9412, 0.8123, 0.9878],
            "iou": [0.8921, 0.6817, 0.9723],
            "f1": [0.943, 0.8107, 0.986],
            "f2": [0.9419, 0.8117, 0.9871],
            "precision": [0.9448, 0.809, 0.9842],
        }
    )
    epochs = np.arange(40)
    curve = pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": 0.9 * np.exp(-epochs / 9.0) - 0.7,
            "validation_loss": 0.9 * np.exp(-epochs / 8.0) - 0.62,
        }
    )
    publish(
        root,
        "models",
        "model-41",
        title="2D full-resolution segmenter",
        summary={"epochs": 40, "mean_dice": 0.913, "configuration": "2d", "champion": True},
        tables={
            "metrics": Table(metrics, "On the test set, per class."),
            "training_curve": Table(curve, "Loss (dice + cross entropy) per epoch."),
        },
    )
    publish(
        root,
        "segmentations",
        "segment-51",
        title="Segmentation of the simulated scan",
        summary={"fractions": {"liquor": 0.2, "loop": 0.029, "crystal": 0.13}, "model": "model-41"},
        warnings=[OUTSIDE, "the loop touches the border of the volume"],
        pictures={"overlay": Picture(_slices(labels, "cividis", None), "Labels over µ in three planes.")},
        tables={"metrics": Table(metrics, "Against the forged truth, per class.")},
        sources={"volume": "volume-31", "model": "model-41"},
    )


def _publish_absorption(root: Path) -> None:
    rng = np.random.default_rng(2)
    factors = pd.DataFrame(rng.integers(-20, 20, (2400, 3)), columns=["h", "k", "l"])
    factors["rotation_deg"] = np.linspace(0, 360, len(factors), endpoint=False)
    factors["spacing_angstrom"] = rng.uniform(1.8, 20.0, len(factors))
    turned = np.cos(2 * np.radians(factors["rotation_deg"]))
    factors["absorption_factor"] = 0.56 + 0.1 * turned + rng.uniform(-0.04, 0.04, len(factors))
    factors["standard_error"] = rng.uniform(4e-4, 8e-4, len(factors))
    factors["sampling_error"], factors["mu_error"] = factors["standard_error"], np.nan
    by_source = factors[["rotation_deg", "spacing_angstrom"]].assign(
        truth=1.0045 * factors["absorption_factor"], labels=factors["absorption_factor"]
    )
    comparison = pd.DataFrame(
        {
            "quantity": ["mean |ΔA|/A", "largest |ΔA|/A", "mean ΔA/A", "rms ΔA/A"],
            "relative_difference": [0.0045, 0.031, -0.0045, 0.006],
        }
    )

    def draw(figure):
        axes = figure.subplots()
        axes.hist(factors["absorption_factor"], bins=40, color="#0072B2")
        axes.set(xlabel="transmission $A_h$", ylabel="reflections")

    publish(
        root,
        "absorption",
        "absorption-61",
        title="Absorption factors of the simulated crystal",
        summary={
            "reflections": 2400,
            "data": "twin",
            "transmission_minimum": float(factors["absorption_factor"].min()),
            "transmission_maximum": float(factors["absorption_factor"].max()),
            "median_standard_error_percent": 0.11,
            "mu_crystal_per_m": 6921.0,
            "mean_relative_difference": 0.0045,
            "largest_relative_difference": 0.031,
        },
        pictures={"histogram": Picture(png(draw), "Transmission of 2400 reflections.")},
        tables={
            "merging": Table(
                _merging(), "Merging statistics, overall. Relative differences are from 'truth'."
            ),
            "factors": Table(factors, "Absorption factor of each reflection, with its standard error."),
            "factors_by_source": Table(by_source, "Absorption factor by every source of labels."),
            "comparison_truth": Table(comparison, "Against the labels “truth”."),
        },
        sources={"segmentation": "segment-51", "volume": "volume-31"},
    )


def _merging() -> pd.DataFrame:
    """As tomoforge/absorption/merging_tables.py makes it, the first source being what the others are compared with."""
    table = pd.DataFrame(
        {
            "statistic": ["observations", "i_over_sigma", "r_meas", "cc_half", "anomalous_cc", "df_over_f"],
            "truth": [2400.0, 135.73, 0.0160, 0.9998, 0.925, 0.0395],
            "labels": [2400.0, 135.20, 0.0168, 0.9997, 0.915, 0.0396],
            "not corrected": [2400.0, 134.75, 0.1158, 0.9889, -0.037, 0.0453],
        }
    )
    for name in ("labels", "not corrected"):
        table[f"{name}: relative difference"] = table[name] / table["truth"] - 1
    return table


def _publish_queue(root: Path, labels: np.ndarray) -> None:
    """As tasks/annotation_queue.py publishes it; the volumes themselves lie in no workspace."""
    table = pd.DataFrame(
        {
            "position": [1, 2],
            "subject": ["volume-31", "volume-32"],
            "priority": [1.0, 0.25],
            "uncertainty": [0.412, 0.118],
            "distance": [0.9, 0.0],
            "mu": [0.9, 0.0],
            "noise": [0.0, 0.0],
            "voxel_size": [0.0, 0.0],
            "slice_z": [48, 10],
            "slice_y": [40, 20],
            "slice_x": [44, 30],
            "labels_sha256": ["a" * 64, "b" * 64],
            "labels": ["segmentation-51", "segmentation-52"],
        }
    )
    for column, name in (("to_correct", "annotation/queue/{}/labels.tif"), ("opened_by", "napari {}")):
        table[column] = [name.format(f"{subject}-0123456789ab") for subject in table["subject"]]
    publish(
        root,
        "annotation_queues",
        "annotation-queue-12ab34cd",
        title="What is worth annotating: 2 volumes",
        summary={
            "queued": 2,
            "ranked": 2,
            "decided_already": 1,
            "labelled_already": 3,
            "not_segmented": 0,
            "model": "model-41",
        },
        pictures={
            f"{position:02d}_{subject}": Picture(
                _slices(labels, "magma", None),
                "Where the model is least sure: above its labels, below how unsure it is.",
            )
            for position, subject in zip(table["position"], table["subject"], strict=True)
        },
        tables={"queue": Table(table, "The most worthwhile first.")},
        sources={"model": "model-41"},
        run={"published_at": "2026-01-02T05:30:00+00:00"},
    )


def _publish_runs(root: Path, labels: np.ndarray) -> None:
    materials = pd.DataFrame(
        {
            "material": ["liquor", "loop", "crystal"],
            "mu_true_per_m": [6312.0, 4104.0, 6921.0],
            "mu_reconstructed_per_m": [6290.5, 3921.7, 6890.2],
            "difference_percent": [-0.34, -4.44, -0.44],
            "note": ["", "thinner than three voxels", ""],
        }
    )
    classes = pd.DataFrame(
        {
            "class": ["liquor", "loop", "crystal"],
            "recall": [0.94, 0.81, 0.99],
            "iou": [0.89, 0.68, 0.97],
        }
    )
    sources = {
        "sample": "forge_sample-11",
        "scan": "scan-21",
        "volume": "volume-31",
        "segmentation": "segment-51",
        "model": "model-41",
        "absorption": "absorption-61",
        "dataset": "dataset-not-published",
    }
    overview = Picture(_slices(labels, "viridis", None), "Slice, labels and factors of the newest scan.")
    for identifier, title, day in (
        ("end_to_end-1", "Demo of yesterday", "2026-01-01"),
        ("end_to_end-2", "Demo", "2026-01-02"),
    ):
        publish(
            root,
            "runs",
            identifier,
            title=title,
            summary={
                "samples_forged": 4,
                "projections": 180,
                "mu_crystal_per_m": 6890.2,
                "mean_relative_difference": 0.0045,
                "seed": 7,
            },
            pictures={"overview": overview},
            tables={
                "materials": Table(materials, "Attenuation put in and found again, per material."),
                "segmentation": Table(classes, "Per class, on samples never seen in training."),
            },
            warnings=["the loop is thinner than three voxels"] if day == "2026-01-02" else [],
            sources=sources,
            provenance={"git_revision": "0123456789abcdef", "parameters": {"seed": 7}},
            run={"published_at": f"{day}T06:30:00+00:00", "seconds": 312.4},
        )


# --- results whose artefacts lie in the workspace --------------------------------------------------------


@pytest.fixture(scope="session")
def stored_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a scan, its volume, a segmentation of it and the labels it was forged from."""
    root = tmp_path_factory.mktemp("stored")
    _store(Workspace(root))
    return root


@pytest.fixture
def stored(workspace: Path, stored_once: Path) -> Path:
    """The workspace of ``stored_once``, copied for this test; the dashboard is pointed at it."""
    return Path(shutil.copytree(stored_once, workspace))


STORED = {
    "samples": f"sample-{'0a' * 10}-00000001",
    "scans": f"scan-{'1b' * 10}-00000002",
    "volumes": f"volume-{'2c' * 10}-00000003",
    "segmentations": f"segmentation-{'3d' * 10}-00000004",
}
STORED_SHAPE = (36, 96, 130)  # z, y, x: all unequal, and three levels


def stored_truth() -> np.ndarray:
    """(z, y, x) uint8: a liquor box with a crystal at one side of it, so that no two axes look alike."""
    labels = np.zeros(STORED_SHAPE, np.uint8)
    labels[6:30, 20:70, 30:110] = 1
    labels[6:30, 18:20, 30:110] = 2
    labels[10:20, 30:50, 60:100] = 3
    return labels


def _store(workspace: Workspace) -> None:
    truth = stored_truth()
    volume = np.array([0.0, 4000.0, 3000.0, 6000.0], np.float32)[truth]
    volume += np.random.default_rng(3).normal(0, 150, volume.shape).astype(np.float32)
    predicted = truth.copy()
    predicted[:, :, 95:100] = np.minimum(predicted[:, :, 95:100], 1)
    voxel = 2e-6

    def keep(kind: str, published_as: str, build, inputs=()) -> Artefact:
        key = STORED[published_as].rsplit("-", 1)[0]
        with workspace.draft(kind, key) as draft:
            build(draft.path)
            record = {"stage": key.split("-")[0], "inputs": dict(inputs), "parameters": {}}
            return workspace.commit(draft, kind, record)

    def scan(folder: Path) -> None:
        angles = np.linspace(0, np.pi, 12, endpoint=False)
        path = volume.sum(1) * voxel  # one look along y: every angle shows it, brighter by the angle
        frames = 100 + 9900 * np.exp(-path[None] * (1 + angles[:, None, None] / 10))
        (folder / "batches").mkdir()
        for first in (0, 6):
            batch = frames[first : first + 6].astype(np.uint16)
            write_frame_batch(folder / "batches" / f"{first}.h5", batch)
        flats, darks = np.full((2, *path.shape), 10000, np.uint16), np.full((2, *path.shape), 100, np.uint16)
        write_nxtomo(
            folder / "scan.nxs", darks=darks, flats=flats, batches=["batches/0.h5", "batches/6.h5"],
            angles=angles, energy_kev=4.0, pixel_size=voxel, propagation_distance=None, title="box",
        )  # fmt: skip

    keep("labels", "samples", lambda folder: write_labels(folder / "labels.ome.zarr", truth, voxel))
    keep("scans", "scans", scan)
    made = keep("volumes", "volumes", lambda folder: write_volume(folder / "volume.ome.zarr", volume, voxel))

    def segmentation(folder: Path) -> None:
        write_labels(folder / "labels.ome.zarr", predicted, voxel)
        unsure = np.where(predicted != truth, 0.45, 0.05).astype(np.float32)
        write_volume(folder / "uncertainty.ome.zarr", unsure, voxel)

    keep("labels", "segmentations", segmentation, {"volume": asdict(made)})
    root = workspace.folder("published")
    sources = {"sample": STORED["samples"]}
    about = {"energy_kev": 4.0, "pixel_size_um": 2.0, "projections": 12}
    publish(root, "samples", STORED["samples"], title="Box", summary={"habit": "box"})
    publish(root, "scans", STORED["scans"], title="Scan of the box", summary=about, sources=sources)
    slices = {"axial": Picture(_slices(truth[15], "gray", None), "Middle axial slice.")}
    sources = {"scan": STORED["scans"]}
    publish(
        root, "volumes", STORED["volumes"], title="Reconstruction of the box", pictures=slices, sources=sources,
        summary={"centre_px": 64.5, "centre_spread_px": 0.1, "centre_agreed": True, "voxel_size_um": 2.0},
    )  # fmt: skip
    sources = {**sources, "sample": STORED["samples"], "volume": STORED["volumes"]}
    publish(
        root, "segmentations", STORED["segmentations"], title="Segmentation of the box", sources=sources,
        summary={"uncertainty_crystal": 0.05},
    )  # fmt: skip
