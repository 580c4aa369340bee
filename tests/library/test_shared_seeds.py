"""Draws belong to a name and its indices, and to nothing else."""

from typing import Any

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.seeds import component_rng, component_seed


def test_component_rng__known_values() -> None:
    # Pinned: another value means that every forged sample and scan has changed without anyone saying so.
    np.testing.assert_array_equal(component_rng(1, "noise").integers(0, 1000, 5), [225, 652, 577, 389, 485])
    assert component_seed(1, "sample", 0, 0) == 2621886701


def test_component_rng__does_not_depend_on_who_else_draws() -> None:
    alone = component_rng(7, "noise", 3).random(100)
    component_rng(7, "rings").random(1000)
    component_rng(7, "noise", 2).random(10)
    np.testing.assert_array_equal(component_rng(7, "noise", 3).random(100), alone)


def test_component_rng__every_name_index_and_seed_has_its_own() -> None:
    addresses: list[tuple] = [
        (1, "noise"),
        (2, "noise"),
        (1, "rings"),
        (1, "noise", 0),
        (1, "noise", 1),
        (1, "noise", 0, 0),
        (1, "noise", 0, 1),
    ]
    draws = {component_rng(*address).integers(0, 2**63) for address in addresses}
    assert len(draws) == len(addresses)
    assert len({component_seed(*address) for address in addresses}) == len(addresses)


def test_component_rng__components_are_uncorrelated() -> None:
    n = 10_000
    a, b = (component_rng(1, name).standard_normal(n) for name in ("noise", "rings"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)  # five standard errors


def test_component_seed__fits_32_bits_and_is_a_plain_integer() -> None:
    seeds = [component_seed(1, "training", n) for n in range(100)]
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


def test_component_rng__numpy_integers_are_seeds_too() -> None:
    five: Any = np.int64(5)
    one: Any = np.int32(1)
    assert component_seed(five, "a", one) == component_seed(5, "a", 1)


@pytest.mark.parametrize("seed", [-1, 1.0, True, None, "1"])
def test_component_rng__refuses_what_is_no_seed(seed) -> None:
    with pytest.raises(InputError, match="seed must be a non-negative integer, got"):
        component_rng(seed, "noise")
