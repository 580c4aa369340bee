"""A calibrated simulator's flats and darks measure as the real ones do, and what cannot be told is not made up."""

import numpy as np
import pytest

from tests.library.optics.test_calibration import SETTINGS, forge
from tomoforge.fidelity.calibration import check_calibration


@pytest.mark.parametrize("name", ["default", "14 bit, drifting"])
def test_check_calibration__forged_frames_measure_as_the_real_ones(name):
    detector, photons = SETTINGS[name]
    flats, darks, _ = forge(detector, photons, 3)
    found = check_calibration(flats, darks, 1)
    assert found is not None and found.warnings == ()
    table = found.parameters.set_index("parameter")
    assert table.loc["gain", "real"] == pytest.approx(detector.gain, rel=0.02)  # as calibrate's own test
    for parameter in ("gain", "photons", "offset", "read_noise", "column_gain", "beam_ripple"):
        row = table.loc[parameter]
        # Two estimates and a drawn pattern: five of their errors together.
        error = np.hypot(row["real_error"], row["simulated_error"])
        assert abs(row["simulated"] - row["real"]) < 5 * error + 1e-3 * abs(row["real"]), parameter
    assert (table["unit"] != "").all()


def test_check_calibration__counts_are_shares_over_the_same_bins():
    flats, darks, _ = forge(*SETTINGS["default"], 3, flats=4, darks=4)
    found = check_calibration(flats, darks, 1)
    assert found is not None
    for name, part in found.counts.groupby("frames"):
        # All but the thousandth that lies outside the bins.
        for column in ("real", "simulated"):
            assert 99.5 < part[column].sum() <= 100 + 1e-9, (name, column)
        # Alike, and so is their middle: within a bin.
        middles = [np.average(part["low"], weights=part[c]) for c in ("real", "simulated")]
        assert abs(middles[0] - middles[1]) < (part["high"] - part["low"]).iloc[0]


def test_check_calibration__says_nothing_where_the_photons_are_not_known():
    flats, darks, _ = forge(*SETTINGS["default"], 3, flats=2, darks=2)
    assert check_calibration(flats[:1], darks, 1) is None


def test_check_calibration__same_seed_same_numbers():
    flats, darks, _ = forge(*SETTINGS["default"], 3, flats=3, darks=3, shape=(48, 64))
    first, second = (check_calibration(flats, darks, 5) for _ in range(2))
    assert first is not None and second is not None
    assert first.parameters.equals(second.parameters) and first.counts.equals(second.counts)
