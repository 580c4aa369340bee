"""The grid of directions: nodes, weights, what is interpolated exactly."""

import numpy as np
import pytest

from tomoforge.absorption.direction_grid import (
    count_nodes,
    distinct_rows,
    exact_stencils,
    grid_stencils,
)
from tomoforge.absorption.table_kernels import mixed_rows


def _units(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    corners = np.array([[1, 1, 1], [1, 1, -1], [0, 1, 1], [0, 0, 1], [-1, 0, 0], [-1, -1, -1], [0, -1, 1.0]])
    vectors = np.concatenate([vectors, corners])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _interpolated(field, directions, cells):
    stencils = grid_stencils(directions, cells)
    table = np.repeat(field(stencils.nodes)[:, None, None], 2, axis=1).astype(np.float32)
    return mixed_rows(table, stencils)[:, 0, 0]


@pytest.mark.parametrize("cells", [1, 7, 12])
def test_grid_stencils__constant_is_kept(cells):
    got = _interpolated(lambda nodes: np.ones(len(nodes)), _units(500), cells)
    np.testing.assert_allclose(got, 1, atol=2e-6)  # sixteen single-precision weights


def test_grid_stencils__error_falls_as_the_fourth_power():
    directions = _units(2000)
    field = lambda n: np.exp(n[:, 0] - 0.5 * n[:, 1] * n[:, 2])  # noqa: E731
    errors = [np.abs(_interpolated(field, directions, c) - field(directions)).max() for c in (6, 12)]
    assert errors[0] < 3e-3
    assert 10 < errors[0] / errors[1] < 24  # 2⁴ = 16 in the limit


def test_grid_stencils__nodes_are_those_needed_and_counted():
    directions = _units(40)
    stencils = grid_stencils(directions, 20)
    assert count_nodes(directions, 20) == len(stencils.nodes) < 40 * 16 + 7 * 16
    np.testing.assert_allclose(np.linalg.norm(stencils.nodes, axis=1), 1, rtol=1e-14)
    # A direction lies within a cell's diagonal of each of its middle four nodes.
    for i in range(len(directions)):
        ids = stencils.corner[i] + stencils.side * np.array([1, 1, 2, 2]) + np.array([1, 2, 1, 2])
        near = stencils.nodes[stencils.place[ids]]
        assert np.all(near @ directions[i] > np.cos(1.5 * np.radians(90 / 20)))


def test_grid_stencils__a_belt_needs_few_nodes():
    angle = np.linspace(0, 2 * np.pi, 3600)
    belt = np.stack([np.zeros(3600), np.cos(angle), np.sin(angle)], axis=1)
    assert count_nodes(belt, 18) < 400 < 2000 < count_nodes(_units(20000), 18)


def test_exact_stencils__are_the_directions_themselves():
    directions = _units(30)[np.random.default_rng(1).integers(0, 30, 100)]
    stencils = exact_stencils(directions)
    np.testing.assert_array_equal(stencils.nodes[stencils.corner], directions)
    rows, row = distinct_rows(directions)
    np.testing.assert_array_equal(rows, np.unique(directions, axis=0))
    np.testing.assert_array_equal(rows[row], directions)
