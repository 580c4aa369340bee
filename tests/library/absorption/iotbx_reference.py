"""Random unmerged data in several space groups, and what iotbx says of them.

Run by an interpreter that has cctbx (``uv venv cctbx && uv pip install --python cctbx cctbx-base``), it prints
the statistics as JSON; ``iotbx_recorded.json`` beside this file is that output:

    cctbx/bin/python tests/library/absorption/iotbx_reference.py > tests/library/absorption/iotbx_recorded.json

Numpy's RandomState draws the data: its stream is frozen, so that both interpreters see the same numbers.
"""

import json
import sys

import numpy as np

SHELLS = 3
SEED = 20261121
# Symbol, cell [Å, degrees] and how many observations: triclinic to cubic, chiral, polar and centrosymmetric,
# primitive and centred, two unusual settings, screw axes and glide planes that forbid reflections; P 2 2 2 is
# measured in part only.
CASES = {
    "P 1": ((11.0, 13.0, 17.0, 81.0, 97.0, 108.0), 12_000),
    "P -1": ((11.0, 13.0, 17.0, 81.0, 97.0, 108.0), 9_000),
    "P 1 21 1": ((13.0, 21.0, 17.0, 90.0, 104.0, 90.0), 12_000),
    "C 1 2/c 1": ((21.0, 13.0, 17.0, 90.0, 104.0, 90.0), 9_000),
    "P 1 1 21": ((13.0, 17.0, 21.0, 90.0, 90.0, 104.0), 6_000),
    "I 1 2 1": ((21.0, 13.0, 17.0, 90.0, 95.0, 90.0), 6_000),
    "P 2 2 2": ((17.0, 19.0, 23.0, 90.0, 90.0, 90.0), 900),
    "P 21 21 21": ((17.0, 19.0, 23.0, 90.0, 90.0, 90.0), 12_000),
    "P 41 21 2": ((23.0, 23.0, 31.0, 90.0, 90.0, 90.0), 12_000),
    "P 31 2 1": ((23.0, 23.0, 29.0, 90.0, 90.0, 120.0), 12_000),
    "R 3 :H": ((27.0, 27.0, 33.0, 90.0, 90.0, 120.0), 12_000),
    "P 63 2 2": ((25.0, 25.0, 31.0, 90.0, 90.0, 120.0), 12_000),
    "I 2 3": ((31.0, 31.0, 31.0, 90.0, 90.0, 90.0), 12_000),
    "P 21 3": ((29.0, 29.0, 29.0, 90.0, 90.0, 90.0), 12_000),
    "F 4 3 2": ((43.0, 43.0, 43.0, 90.0, 90.0, 90.0), 12_000),
}
D_MIN = 2.0


def inverse_d_squared(hkl, cell):
    """1/d² [1/Å²] of hkl (n, 3) by the metric tensor."""
    a, b, c = cell[:3]
    cosines = np.cos(np.radians(cell[3:]))
    metric = (
        np.diag([a, b, c])
        @ np.array([[1, cosines[2], cosines[1]], [cosines[2], 1, cosines[0]], [cosines[1], cosines[0], 1]])
        @ np.diag([a, b, c])
    )
    return np.einsum("ni,ij,nj->n", hkl, np.linalg.inv(metric), hkl)


def random_observations(name):
    """hkl (n, 3) int, intensity (n,), sigma (n,): equivalents agree but for noise, as do most Friedel mates.

    Equivalents share d, so the intensity is a function of d alone (wild enough to tell reflections apart)
    times 1 ± 4 % by the sign of hkl, which two-fold axes keep and inversion turns. A few rows are to be
    rejected: absent by symmetry, sigma zero or negative.
    """
    cell, count = CASES[name]
    draw = np.random.RandomState(SEED + list(CASES).index(name))
    largest = [int(length / D_MIN) + 3 for length in cell[:3]]
    hkl = np.stack([draw.randint(-n, n + 1, 6 * count) for n in largest], axis=1)
    squared = inverse_d_squared(hkl, cell)
    hkl = hkl[(squared > 0) & (squared < D_MIN**-2)][:count]
    squared = inverse_d_squared(hkl, cell)
    true = (
        2e5 * np.exp(-8 * squared) * (1.1 + np.sin(3000 * squared)) * (1 + 0.04 * np.sign(hkl.prod(axis=1)))
    )
    sigma = (0.03 * true + 2e3) * draw.uniform(0.7, 1.5, len(hkl))
    intensity = true + sigma * draw.standard_normal(len(hkl))
    sigma[draw.choice(len(hkl), 20, replace=False)] = 0.0
    sigma[draw.choice(len(hkl), 10, replace=False)] = -1.0
    return hkl, intensity, sigma


def reference():
    """iotbx's statistics of every case, with Friedel mates merged and apart."""
    return {
        name: {"merged": iotbx_statistics(name, False), "apart": iotbx_statistics(name, True)}
        for name in CASES
    }


def iotbx_statistics(name, anomalous):
    from cctbx import crystal, miller
    from cctbx.array_family import flex
    from iotbx.merging_statistics import dataset_statistics

    hkl, intensity, sigma = random_observations(name)
    symmetry = crystal.symmetry(unit_cell=CASES[name][0], space_group_symbol=name)
    indices = flex.miller_index([tuple(int(i) for i in row) for row in hkl])
    # An anomalous array either way, so that iotbx sees the mates.
    chosen = miller.set(symmetry, indices, anomalous_flag=True)
    array = miller.array(
        chosen, flex.double(intensity), flex.double(sigma)
    ).set_observation_type_xray_intensity()
    result = dataset_statistics(
        array, n_bins=SHELLS, anomalous=anomalous, sigma_filtering="scala", use_internal_variance=True
    )
    return {"overall": numbers(result.overall), "shells": [numbers(shell) for shell in result.bins]}


def numbers(statistics):
    plot = statistics.anom_probability_plot_expected_delta
    values = {
        "d_max_angstrom": statistics.d_max,
        "d_min_angstrom": statistics.d_min,
        "observations": statistics.n_obs,
        "unique": statistics.n_uniq,
        "completeness": statistics.completeness,
        "multiplicity": statistics.mean_redundancy,
        "mean_intensity": statistics.i_mean,
        "i_over_sigma": statistics.i_over_sigma_mean,
        "observation_i_over_sigma": statistics.unmerged_i_over_sigma_mean,
        "r_merge": statistics.r_merge,
        "r_meas": statistics.r_meas,
        "r_pim": statistics.r_pim,
        "cc_half": statistics.cc_one_half,
        "cc_half_sigma_tau": statistics.cc_one_half_sigma_tau,
        "anomalous_cc": statistics.cc_anom,
        "r_anom": statistics.r_anom,
        "anomalous_completeness": statistics.anom_completeness,
        "df_over_f": statistics.anom_signal,
        "di_over_sigma_di": statistics.delta_i_mean_over_sig_delta_i_mean,
        "anomalous_slope": None if plot is None else plot.slope,
    }
    # Twelve digits: fewer bytes, and enough to tell any two definitions apart.
    return {name: None if value is None else float(f"{value:.12g}") for name, value in values.items()}


def iotbx_halves(equivalents):
    """The half sets that cctbx.miller.split_unmerged draws: (observation,) bool for a sorted Equivalents.

    Its generator is a Mersenne Twister started from 1; it walks over unique reflections in the order of their
    indices (mates as their negatives) and within one over observations in the order of the table.
    """
    draw = np.random.RandomState(1).random_sample
    signed = equivalents.hkl * np.where(equivalents.sign < 0, -1, 1)[:, None]
    first = np.zeros(len(equivalents.row), dtype=bool)
    for unique in np.lexsort(signed.T[::-1]):
        start, count = equivalents.start[unique], equivalents.count[unique]
        if count < 2:
            continue
        places = list(start + np.argsort(equivalents.row[start : start + count]))
        size = count // 2
        if count % 2 and draw() < 0.5:
            size += 1
        for taken in range(size):
            chosen = taken + min(count - taken - 1, int(draw() * (count - taken)))
            first[places[chosen]] = True
            places[chosen] = places[taken]
    return first


def floored_sigma_tau(equivalents):
    """CC½ (σ-τ) as iotbx has it: a unit σ for all, from which a variance of the mean below 1/n becomes 1/n."""
    counts = equivalents.count
    mean = equivalents.sums(equivalents.intensity) / counts
    scatter = equivalents.sums((equivalents.intensity - mean[equivalents.unique]) ** 2)
    several = counts > 1
    counts, mean, scatter = counts[several], mean[several], scatter[several]
    error = np.maximum(scatter / (counts - 1) / counts, 1 / counts).mean()
    spread = mean.var(ddof=1)
    return (spread - error) / (spread + error)


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in reference().items()]
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")
