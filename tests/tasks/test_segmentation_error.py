"""Factors' errors from a segmentation's doubt: draws from the probabilities it kept, against a ball in closed form."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.absorption import correct, read_factors
from tasks.absorption_surface import PICTURE, SURFACE, draw_surface, read_surface
from tasks.predictions import SOFTMAX
from tasks.reflections import INCOMING, OUTGOING, REFLECTIONS
from tasks.samples import LABELS
from tasks.segmentation_error import check_drawable, draw_labels, segmentation_error, with_segmentation_error
from tomoforge.absorption.orientation import Orientation
from tomoforge.config import TracingSettings
from tomoforge.errors import ConfigError, InputError
from tomoforge.storage import Artefact, Workspace, write_json_atomic
from tomoforge.volumes import LABEL_NAMES, read_labels, write_labels, write_volume

VOXEL = 2e-6  # [m]
RADIUS, WIDTH, MU = 12.0, 0.8, 2e4  # [voxel], [voxel], [1/m]
SHAPE = (40, 40, 40)
DRAWS = TracingSettings(segmentation_draws=12, target_error=2e-3)


class Here:
    """Pieces of work done in the test's own process."""

    def run(self, function: Callable[..., Any], *arguments: Any, timeout_s: float) -> Any:
        return function(*arguments)

    def map(self, function: Callable[..., Any], pieces: Sequence[tuple], **_: Any) -> list[Any]:
        return [function(*piece) for piece in pieces]


def distances() -> np.ndarray:
    """Of each voxel from the middle, in voxels."""
    return np.linalg.norm(np.stack(np.indices(SHAPE)) - 19.5, axis=0)


def soft_ball(workspace: Workspace, *, softmax: bool = True, debris: bool = False) -> Artefact:
    """A crystal ball as a model predicts it whose doubt about the radius is a logistic distribution of WIDTH voxels."""
    crystal = 1 / (1 + np.exp((distances() - RADIUS) / WIDTH))
    if debris:
        crystal[:3, :3, :3] = 0.6
    # As stored, in steps of 1/1024: the sum may miss 1.
    crystal = np.round(crystal * 1024) / 1024
    shares = {name: np.zeros(SHAPE, np.float32) for name in LABEL_NAMES}
    shares |= {"crystal": crystal.astype(np.float32), "background": (1.001 - crystal).astype(np.float32)}
    origin = {
        role: {"kind": f"{role}s", "key": f"{role}-1", "path": "", "checksum": ""}
        for role in ("volume", "model")
    }
    with workspace.draft("labels", f"segmentation-{softmax:d}{debris:d}") as draft:
        write_labels(draft.path / LABELS, np.where(crystal > 0.5, 3, 0).astype(np.uint8), VOXEL, LABEL_NAMES)
        if softmax:
            for name, share in shares.items():
                write_volume(draft.path / SOFTMAX / f"{name}.ome.zarr", share, VOXEL)
        record = {"stage": "segmentation", "parameters": {"clean": True}, "inputs": origin}
        return workspace.commit(draft, "labels", record)


def straight_on(workspace: Workspace, count: int = 3) -> Artefact:
    """Reflections whose rays go on in the beam's direction, each beam another."""
    angle = np.linspace(0, 1, count)
    rays = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
    table = pd.DataFrame({"row": np.arange(count), "h": 1, "k": 0, "l": 0, "angle_rad": angle})
    table = table.assign(**dict(zip((*INCOMING, *OUTGOING), np.hstack([rays, rays]).T, strict=True)))
    with workspace.draft("corrections", "twin-1") as draft:
        table.to_parquet(draft.path / REFLECTIONS)
        about = {"cell": [9, 9, 9, 90, 90, 90], "space_group": "P 1", "wavelength_m": 1e-10}
        write_json_atomic(draft.path / "about.json", about | {"twin": True, "source": "twin"})
        return workspace.commit(draft, "corrections", {"stage": "twin", "inputs": {}})


def ball_factor(radius: np.ndarray | float) -> np.ndarray:
    """A of a ball, rays straight on: 3 (2 − e^−m (m² + 2m + 2)) / m³, m = 2µR."""
    m = 2 * MU * VOXEL * np.asarray(radius)
    return 3 * (2 - np.exp(-m) * (m**2 + 2 * m + 2)) / m**3


def traced(
    workspace: Workspace, labels: Artefact, reflections: Artefact, tracing: TracingSettings
) -> Artefact:
    return correct.fn(
        Here(), workspace, labels, reflections, mu={"crystal": MU}, mu_error={}, orientation=Orientation(np.eye(3)),
        tracing=tracing, seed=1, name="ball",
    )  # fmt: skip


def drawn(workspace: Workspace, labels: Artefact, tracing: TracingSettings, number: int) -> Artefact:
    return draw_labels.fn(Here(), workspace, labels, number=number, tracing=tracing, seed=1)


def test_segmentation_error__of_a_ball_is_that_of_its_radius(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    labels, reflections = soft_ball(workspace), straight_on(workspace)
    factors = traced(workspace, labels, reflections, DRAWS)
    volumes = [drawn(workspace, labels, DRAWS, number) for number in range(DRAWS.segmentation_draws)]
    assert len({item.key for item in volumes}) == len(volumes)
    counts = [(read_labels(workspace.path(item) / LABELS)[0] == 3).sum() for item in volumes]
    radii = (3 / (4 * np.pi) * np.array(counts)) ** (1 / 3)
    # A logistic distribution deviates by π/√3 widths; a standard deviation of 12 draws by a fifth of itself, three.
    assert np.std(radii, ddof=1) == pytest.approx(WIDTH * np.pi / np.sqrt(3), rel=0.6)
    for item, radius in zip(volumes[:4], radii, strict=False):  # each draw is a ball again
        found = read_labels(workspace.path(item) / LABELS)[0]
        assert ((found == 3) == (distances() < radius)).mean() > 0.999
    members = [traced(workspace, item, reflections, DRAWS) for item in volumes]
    table = read_factors(workspace, with_segmentation_error.fn(workspace, factors, members, drawn=True))
    before = read_factors(workspace, factors)
    wanted = np.sqrt(np.mean((ball_factor(radii) - ball_factor(RADIUS)) ** 2))
    # Sampling to 0.2 % of A in both, and a ball of voxels that is no ball by as much.
    np.testing.assert_allclose(table["segmentation_error"], wanted, rtol=0.1)
    np.testing.assert_array_equal(table["absorption_factor"], before["absorption_factor"])
    together = np.hypot(before["standard_error"], table["segmentation_error"])
    np.testing.assert_allclose(table["standard_error"], together)


def test_draw_labels__a_short_length_averages_out_and_debris_is_cleaned(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    labels = soft_ball(workspace, debris=True)
    short = DRAWS.model_copy(update={"segmentation_length_um": 4.0})

    def spread(tracing: TracingSettings) -> float:
        folders = [workspace.path(drawn(workspace, labels, tracing, number)) for number in range(6)]
        found = [read_labels(folder / LABELS)[0] for folder in folders]
        assert not any((volume[:3, :3, :3] == 3).any() for volume in found)  # cleaned as the labels were
        return float(np.std([(volume == 3).sum() for volume in found]))

    assert spread(short) < 0.3 * spread(DRAWS)


def test_check_drawable__says_what_was_kept_and_how_to_keep_more(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    check_drawable(workspace, soft_ball(workspace))
    wanted = "uncertainty alone.*segment_scan --volume volume-1 --model model-1 --prediction.softmax true"
    with pytest.raises(InputError, match=wanted):
        check_drawable(workspace, soft_ball(workspace, softmax=False))
    with workspace.draft("labels", "sample-1") as draft:
        write_labels(draft.path / LABELS, np.full((4, 4, 4), 3, np.uint8), VOXEL)
        forged = workspace.commit(draft, "labels", {"stage": "sample", "inputs": {}})
    with pytest.raises(InputError, match=r"come from sample.*--ensemble"):
        check_drawable(workspace, forged)


def test_segmentation_error__of_draws_about_the_factors_of_people_about_their_mean() -> None:
    a, others = np.array([0.5]), np.array([[0.6], [0.6]])
    np.testing.assert_allclose(
        segmentation_error(a, others, drawn=True), 0.1
    )  # all draws agree: the factor is off
    np.testing.assert_allclose(segmentation_error(a, others, drawn=False), np.std([0.5, 0.6, 0.6], ddof=1))


@pytest.mark.parametrize("given", [{"segmentation_draws": 1}, {"segmentation_length_um": 3.0}])
def test_tracing_settings__refuse_draws_that_say_nothing(given: dict[str, float]) -> None:
    from tomoforge.config import parse_settings

    with pytest.raises(ConfigError, match="segmentation_draws"):
        parse_settings(TracingSettings, given)


def surface(workspace: Workspace, mu: float) -> Artefact:
    return draw_surface.fn(
        Here(), workspace, soft_ball(workspace), straight_on(workspace), mu={"crystal": mu},
        orientation=Orientation(np.eye(3)), tracing=TracingSettings(), seed=1,
    )  # fmt: skip


def test_draw_surface__is_the_same_again_and_says_its_frame(tmp_path: Path) -> None:
    pictures = []
    for name in "ab":
        workspace = Workspace(tmp_path / name)
        made = surface(workspace, MU)
        pictures.append((workspace.path(made) / PICTURE).read_bytes())
        picture, why_not = read_surface(workspace, made)
        assert why_not is None and picture is not None and picture.png == pictures[-1]
        assert (
            "goniometer at 28.6°" in picture.caption and "frame of the labels" in picture.caption
        )  # half a radian
        values = np.load(workspace.path(made) / SURFACE)
        # A ball's A is least straight on. Sampling to 0.5 %, a ball of voxels.
        assert values.shape == (2, 61, 61) and np.nanmin(values) == pytest.approx(
            ball_factor(RADIUS), rel=0.02
        )
    assert pictures[0] == pictures[1]


def test_draw_surface__that_cannot_be_drawn_is_said_and_does_not_stop(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    picture, why_not = read_surface(workspace, surface(workspace, 1e12))
    assert picture is None and why_not is not None and "could not be drawn" in why_not
