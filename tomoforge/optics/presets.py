"""Scans as others simulate them, to compare with: the laboratory CT of DTU's energy-material studies.

A tungsten tube of 140 kV whose anode stands at 12 degrees (mean 38.5 keV; published as an anode "12e-3 m thick", which
is SpekPy's ``th`` in degrees), absorption without wave optics, and instead of a detector Gaussian noise of 0.01 on
slices normalised to their own range.
"""

import numpy as np

from tomoforge.errors import InputError
from tomoforge.optics.scan import Beam
from tomoforge.optics.spectrum import rebinned, tube_spectrum
from tomoforge.seeds import component_rng

DTU_KVP, DTU_ANODE_DEG = 140.0, 12.0
DTU_SLICE_NOISE = 0.01


def dtu_beam(energies: int = 8) -> Beam:
    """The tube's beam as ``energies`` lines, to be scanned with ``optics="absorption"``.

    Raises MissingComponentError where SpekPy is not installed.
    """
    tube = tube_spectrum(DTU_KVP, DTU_ANODE_DEG)
    return Beam(tube.mean_energy_kev, spectrum=rebinned(tube, energies))


def dtu_slices(volume: np.ndarray, seed: int, noise: float = DTU_SLICE_NOISE) -> np.ndarray:
    """Each slice of a volume (z, y, x) [1/m] brought to 0…1 and given Gaussian noise of rms ``noise``: float32.

    A slice draws from a generator of its own. A slice without contrast becomes 0 before the noise. Raises InputError
    for a volume that is not (z, y, x) or not finite, or a noise below 0.
    """
    values = np.asarray(volume, dtype=np.float32)
    if values.ndim != 3 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"volume must be (z, y, x), finite and not empty, got shape {values.shape}")
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"noise must be zero or positive, got {noise!r}")
    out = np.empty_like(values)
    for z, plane in enumerate(values):
        low, high = float(plane.min()), float(plane.max())
        drawn = component_rng(seed, "slice noise", z).standard_normal(plane.shape, dtype=np.float32)
        out[z] = (plane - low) / (high - low if high > low else 1.0) + noise * drawn
    return out
