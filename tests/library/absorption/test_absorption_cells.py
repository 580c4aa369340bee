"""Cells refined without constraints, as their space group wants them."""

import gemmi
import numpy as np
import pytest

from tomoforge.absorption.cells import symmetrised_cell
from tomoforge.errors import InputError

GROUPS = {
    "P 43 21 2": (79.35, 79.36, 37.74, 90.01, 89.99, 90.02),
    "P 1 21 1": (31.0, 37.0, 45.0, 90.01, 103.2, 89.99),
    "P 61 2 2": (92.0, 92.05, 130.0, 90.0, 90.01, 119.98),
    "F 2 3": (120.0, 120.1, 119.9, 90.02, 90.0, 89.98),
    "R 3:R": (54.0, 54.1, 53.9, 61.0, 61.1, 60.9),
}


@pytest.mark.parametrize("group", GROUPS)
def test_symmetrised_cell__is_what_the_group_allows_and_near(group: str):
    found = symmetrised_cell(GROUPS[group], group)
    assert gemmi.UnitCell(*found).is_compatible_with_spacegroup(gemmi.SpaceGroup(group), eps=1e-9)
    assert np.allclose(found, GROUPS[group], rtol=2e-3, atol=0)
    assert symmetrised_cell(found, group) == pytest.approx(found, rel=1e-12, abs=0)


def test_symmetrised_cell__tetragonal_is_the_mean_square_of_a_and_b():
    a, b = 79.0, 79.4
    found = symmetrised_cell((a, b, 37.0, 90, 90, 90), "P 43 21 2")
    assert found == pytest.approx((np.sqrt((a * a + b * b) / 2),) * 2 + (37.0, 90, 90, 90), rel=1e-12, abs=0)


def test_symmetrised_cell__another_group_is_refused():
    with pytest.raises(InputError, match="does not fit space group 'P 43 21 2'"):
        symmetrised_cell((60, 70, 80, 90, 90, 90), "P 43 21 2")
    with pytest.raises(InputError, match="P 99"):
        symmetrised_cell((60, 70, 80, 90, 90, 90), "P 99")
