"""What the Forge and Models pages show, published as the flows publish it: a set, fidelity, decisions, an ablation."""

from pathlib import Path

import numpy as np
import pandas as pd

from tomoforge.results import Picture, Table, publish

CLASSES = ("liquor", "loop", "crystal", "mean")
MEASURES = ("recall", "iou", "f1", "f2", "precision")
CASES = [f"{n:02x}{'ab' * 31}" for n in range(6)]
HOLDOUT_SHA = "5e" * 32
OLD, NEW = "model-0123456789abcdef0123", "model-fedcba98765432100123"
ARMS = ("only real", "only synthetic", "real + synthetic")


def publish_methods(root: Path, picture: Picture) -> None:
    """Publish all of it under ``root``; ``picture`` stands for every picture."""
    publish_sets(root, picture)
    publish_fidelity(root, picture)
    publish_decisions(root, picture)
    publish_comparison(root, picture)


def samples_table(count: int, seed: int) -> pd.DataFrame:
    """As ``tasks/sample_sets.py`` makes it: lengths in m, angles in rad."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "sample": range(count),
            "seed": rng.integers(1, 2**31, count),
            "tries": np.where(np.arange(count) % 9, 1, 2),
            "crystal_size": rng.normal(128e-6, 22e-6, count),
            "crystal_aspect": rng.uniform(1, 4, count),
            "fraction_crystal": rng.uniform(0.002, 0.03, count),
            "fraction_liquor": rng.uniform(0.02, 0.15, count),
            "fraction_loop": rng.uniform(0.005, 0.02, count),
            "crystal_loop_share": np.zeros(count),
            "tilt": rng.uniform(0, 0.14, count),
            "habit": rng.choice(["lysozyme_tetragonal", "insulin_cubic", "myoglobin"], count),
            "mount": rng.choice(["nylon", "polymer"], count),
            "liquor_kind": rng.choice(["drop", "film", "partial"], count),
            "voxel_size": np.full(count, 1e-6),
        }
    )


def publish_sets(root: Path, picture: Picture) -> None:
    """Two sets of which the newer has rejections, and one of its samples on its own."""
    for seed, count in ((1, 30), (2, 18)):
        rejections = pd.DataFrame(
            {
                "sample": [0, 9, 9],
                "seed": [11, 12, 13],
                "reason": ["crystal_too_small", "crystal_too_small", "liquor_missing"],
                "message": ["12 voxels", "9 voxels", "no liquor"],
            }
        )
        rejections = rejections if seed == 2 else rejections.iloc[:0]
        publish(
            root,
            "sample_sets",
            f"samples-{seed}-abcdef012345-0000000{seed}",
            title=f"Set of {count} of {count} samples, seed {seed}",
            summary={
                "samples_requested": count,
                "samples_forged": count,
                "passed_at_first_try": count - (2 if seed == 2 else 0),
                "passed_at_second_try": 2 if seed == 2 else 0,
            },
            pictures={"contact_sheet": picture, "distributions": picture},
            tables={
                "samples": Table(
                    samples_table(count, seed), "A row each sample; lengths in m, angles in rad."
                ),
                "rejections": Table(rejections, "Every rejected try with its reason."),
            },
            provenance={"labels": [f"sample-{seed}-{n}" for n in range(count)]},
            run={"published_at": f"2026-01-0{seed}T04:00:00+00:00"},
        )


def publish_fidelity(root: Path, picture: Picture) -> None:
    """A report with a fitted distance and a calibration."""
    rows = [
        (images, model, scaling, ssim + 0.01 * (scaling != "none"), psnr, 60)
        for images, shift in (("projections", 0.0), ("slices", -0.1))
        for model, ssim, psnr in (
            ("wave optics", 0.85 + shift, 23.5),
            ("absorption only", 0.55 + shift, 22.0),
        )
        for scaling in ("none", "one factor")
    ]
    metrics = pd.DataFrame(rows, columns=["images", "model", "scaling", "ssim", "psnr_db", "count"])
    calibration = pd.DataFrame(
        [
            ("gain", "counts a photon", 2.0, 0.01, 2.01, 0.01),
            ("photons", "a pixel and flat", 2e4, 70.0, 19900.0, 70.0),
            ("column_gain", "of the light", 0.021, 0.001, 0.020, 0.001),
            ("beam_motion", "px", 0.0, 0.01, 0.0, 0.01),
            ("hot_counts", "counts", np.nan, np.nan, np.nan, np.nan),
        ],
        columns=["parameter", "unit", "real", "real_error", "simulated", "simulated_error"],
    )
    low = np.arange(40.0)
    parts = []
    for frames, offset in (("flats", 4000), ("darks", 80)):
        shares = [100 * np.exp(-(((low - centre) / 6) ** 2)) / 10.63 for centre in (20, 20.5)]
        parts.append(
            pd.DataFrame(
                {"frames": frames, "low": offset + low, "high": offset + low + 1, "real": shares[0]}
            ).assign(simulated=shares[1])
        )
    distances = pd.DataFrame(
        {"distance_mm": [1.0, 10.0, 50.0], "ssim": [0.62, 0.85, 0.3], "psnr_db": [22.7, 23.4, 11.1]}
    )
    publish(
        root,
        "fidelity",
        "fidelity-0123456789abcdef0123-01234567",
        title="Fidelity of the simulation of loop.nxs",
        summary={"ssim_projections_wave": 0.85, "psnr_db_projections_wave": 23.5, "distance_mm": 10.0},
        pictures={"projection": picture, "slice": picture, "distances": picture},
        tables={
            "metrics": Table(metrics, "SSIM and PSNR against the real scan."),
            "distances": Table(distances, "A few projections at each distance that was tried."),
            "calibration": Table(calibration, "What real and simulated flats and darks measure."),
            "calibration_counts": Table(pd.concat(parts, ignore_index=True), "How counts are spread."),
        },
        warnings=["the distance was not recorded; 10 mm fits best of 3 tried"],
        sources={"scan": "scan-22"},
        run={"published_at": "2026-01-01T03:00:00+00:00"},
    )


def means_table(level: float, *, columns: dict[str, str] | None = None) -> pd.DataFrame:
    """As ``mean_scores`` makes it."""
    rows = [
        (name, measure, mean := level - 0.05 * n + 0.01 * m, mean - 0.03, mean + 0.03, len(CASES))
        for n, name in enumerate(CLASSES)
        for m, measure in enumerate(MEASURES)
    ]
    frame = pd.DataFrame(rows, columns=["class", "measure", "mean", "low", "high", "cases"])
    for name, value in (columns or {}).items():
        frame.insert(0, name, value)
    return frame


def publish_decisions(root: Path, picture: Picture) -> None:
    """A first champion, and a challenger that was promoted over it, with all that a decision has."""
    rng = np.random.default_rng(5)
    gate = pd.DataFrame(
        {
            "set": "holdout",
            "class": CLASSES,
            "champion": [0.88, 0.69, 0.9, 0.82],
            "challenger": [0.9, 0.68, 0.94, 0.84],
            "difference": [0.02, -0.01, 0.04, 0.017],
            "low": [0.01, -0.03, 0.02, 0.005],
            "high": [0.03, 0.01, 0.06, 0.03],
            "worst_case": [0.0, -0.04, 0.01, -0.002],
            "cases": len(CASES),
        }
    )
    by_case = pd.DataFrame(
        [
            ("holdout", case, name, *rng.normal(0.01, 0.02, len(MEASURES)))
            for case in CASES
            for name in CLASSES
        ],
        columns=["set", "case", "class", *MEASURES],
    )
    differences = pd.DataFrame(
        [
            ("holdout", name, measure, 0.01 * n - 0.01, 0.01 * n - 0.03, 0.01 * n + 0.01, len(CASES))
            for n, name in enumerate(CLASSES)
            for measure in MEASURES
        ],
        columns=["set", "class", "measure", "difference", "low", "high", "cases"],
    )
    worst = pd.DataFrame(
        {"case": CASES[:2], "score": [0.61, 0.7], "worst_class": ["loop", "loop"], "worst_score": [0.31, 0.5]}
    )
    audit = {"evidence": {"sets": {"holdout": HOLDOUT_SHA}}}
    common = {"sources": {"model": "model-41"}, "provenance": {"audit": audit}}
    publish(
        root,
        "promotions",
        "decision-00003-aaaaaa-00000003",
        title=f"Promoted {OLD}",
        summary={
            "decision": "promoted",
            "model": OLD,
            "champion_before": "nobody",
            "decided_by": "Ada",
            "decided_at": "2026-01-01T02:00:00+00:00",
            "reason": "the first",
            "grounds": "there was no champion",
        },
        tables={"challenger": Table(means_table(0.85), "The challenger on the hold-out.")},
        run={"published_at": "2026-01-01T02:00:10+00:00"},
        **common,
    )
    publish(
        root,
        "promotions",
        "decision-00005-bbbbbb-00000005",
        title=f"Promoted {NEW}",
        summary={
            "decision": "promoted",
            "model": NEW,
            "champion_before": OLD,
            "iou_crystal_champion": 0.9,
            "iou_crystal_challenger": 0.94,
            "decided_by": "nightly_retrain",
            "decided_at": "2026-01-02T02:00:00+00:00",
            "reason": "night 4: 3 new labelled volumes",
            "grounds": "better: +1.70 points in the mean over classes; 3 new real cases seen",
        },
        pictures={"confusion": picture, "worst_case_1": picture, "worst_case_2": picture},
        tables={
            "gate": Table(gate, "IoU of champion and challenger."),
            "challenger": Table(means_table(0.9), "The challenger on the hold-out."),
            "champion": Table(means_table(0.85), "The champion on the hold-out."),
            "differences": Table(differences, "Challenger less champion."),
            "case_differences": Table(by_case, "Challenger less champion in every case."),
            "worst_cases": Table(worst, "Where the challenger is worst."),
        },
        run={"published_at": "2026-01-02T02:00:10+00:00"},
        **common,
    )


def publish_comparison(root: Path, picture: Picture) -> None:
    """The ablation of training sources."""
    rng = np.random.default_rng(6)
    levels = dict(zip(("Otsu", *ARMS), (0.5, 0.71, 0.74, 0.83), strict=True))
    means = pd.concat([means_table(v, columns={"model": k}) for k, v in levels.items()], ignore_index=True)
    pairs = (f"{ARMS[2]} − {ARMS[0]}", f"{ARMS[1]} − {ARMS[0]}")
    differences = pd.DataFrame(
        [
            (pair, name, measure, gain, gain - 0.04, gain + 0.04, len(CASES))
            for pair, gain in zip(pairs, (0.12, 0.03), strict=True)
            for name in CLASSES
            for measure in MEASURES
        ],
        columns=["pair", "class", "measure", "difference", "low", "high", "cases"],
    )
    cases = pd.DataFrame(
        [
            (arm, seed, case, name, *np.clip(rng.normal(levels[arm], 0.04, len(MEASURES)), 0, 1))
            for arm in ARMS
            for seed in (1, 2)
            for case in CASES
            for name in ("background", *CLASSES[:3])
        ],
        columns=["arm", "seed", "case", "class", *MEASURES],
    )
    worst = pd.DataFrame({"case": CASES[:1], "score": [0.6], "worst_class": ["loop"], "worst_score": [0.3]})
    publish(
        root,
        "comparisons",
        "training-sources-0123456789abcdef-01234567",
        title="Training sources compared on 6 real cases held back, 2 seeds",
        summary={"gain_real_and_synthetic_iou_points": 12.0, "cases_tested": 6, "seeds": 2},
        pictures={"comparison": picture, "worst_1_real_and_synthetic": picture, "worst_1_only_real": picture},
        tables={
            "scores": Table(pd.DataFrame({"model": ARMS, "iou": ["0.71", "0.74", "0.83"]}), "Means."),
            "means": Table(means, "The same as numbers."),
            "differences": Table(differences, "Paired differences."),
            "cases": Table(cases, "A row each arm, seed, case and class."),
            "worst_cases": Table(worst, "The worst."),
        },
        provenance={"dataset": "dataset-0123456789abcdef0123"},
        run={"published_at": "2026-01-01T01:00:00+00:00"},
    )
