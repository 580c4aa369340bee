"""A workspace with a result of every kind, published as the flows publish, with real pictures."""

import io
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from tomoforge.results import Picture, Table, publish

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
    factors["transmission"] = rng.uniform(0.42, 0.71, len(factors))
    comparison = pd.DataFrame(
        {
            "quantity": ["transmission, true labels", "transmission, segmented"],
            "mean": [0.5612, 0.5587],
            "relative_difference": [0.0, 0.0045],
        }
    )

    def draw(figure):
        axes = figure.subplots()
        axes.hist(factors["transmission"], bins=40, color="#0072B2")
        axes.set(xlabel="transmission $A_h$", ylabel="reflections")

    publish(
        root,
        "absorption",
        "absorption-61",
        title="Absorption factors of the simulated crystal",
        summary={
            "reflections": 2400,
            "mean_relative_difference": 0.0045,
            "largest_relative_difference": 0.031,
        },
        pictures={"histogram": Picture(png(draw), "Transmission of 2400 reflections.")},
        tables={
            "factors": Table(factors, "Transmission of each reflection."),
            "comparison": Table(comparison, "Segmented against true labels."),
        },
        sources={"segmentation": "segment-51", "volume": "volume-31"},
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
