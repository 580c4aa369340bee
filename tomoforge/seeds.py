"""Random draws that do not depend on who else draws, in which order, or on how many workers.

Each component (and each angle, sample, …) owns a child of one ``numpy.random.SeedSequence``, addressed by
name and indices, so that switching one component off shifts no other draw.
"""

import zlib

import numpy as np

from tomoforge.errors import InputError


def component_sequence(seed: int, component: str, *indices: int) -> np.random.SeedSequence:
    """The SeedSequence child that belongs to ``component`` (and ``indices``) of the run ``seed``."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed must be a non-negative integer, got {seed!r}")
    key = (zlib.crc32(component.encode()), *(int(i) for i in indices))
    return np.random.SeedSequence(entropy=int(seed), spawn_key=key)


def component_rng(seed: int, component: str, *indices: int) -> np.random.Generator:
    """A generator of its own for ``component`` (and ``indices``) of the run ``seed``."""
    return np.random.Generator(np.random.PCG64DXSM(component_sequence(seed, component, *indices)))


def component_seed(seed: int, component: str, *indices: int) -> int:
    """A 32-bit seed for libraries that want a plain integer."""
    return int(component_sequence(seed, component, *indices).generate_state(1)[0])
