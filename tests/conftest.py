"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# As the flows' workers have it. Numba otherwise tries TBB first and warns of the old one that Debian's blender brings.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")
# Now, so that it counts the threads before a test's cluster tells its workers to use one.
import numba  # noqa: F401

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans and oracle tables that lies beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder does not lie beside this checkout")
    return SHARED_DATA
