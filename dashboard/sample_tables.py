"""What the tables of forged sets and of fidelity reports say, put so that it can be drawn. No drawing here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dashboard.vocabulary import number_text

_UM, _DEG, _PERCENT = 1e6, 180 / math.pi, 100.0


@dataclass(frozen=True)
class Quantity:
    """A column of a set's ``samples`` table: how it is called, its unit for people, the factor to that unit."""

    column: str
    words: str
    unit: str = ""
    factor: float = 1.0

    @property
    def title(self) -> str:
        """For an axis: ``crystal size [µm]``."""
        return f"{self.words} [{self.unit}]" if self.unit else self.words


# Numbers, in the order in which they are looked at; a set stores lengths in m, angles in rad.
QUANTITIES = (
    Quantity("crystal_size", "crystal size", "µm", _UM),
    Quantity("crystal_aspect", "crystal aspect ratio"),
    Quantity("fraction_crystal", "crystal, share of the field", "%", _PERCENT),
    Quantity("fraction_liquor", "liquor, share of the field", "%", _PERCENT),
    Quantity("fraction_loop", "loop, share of the field", "%", _PERCENT),
    Quantity("crystal_wetted_share", "crystal surface wetted", "%", _PERCENT),
    Quantity("loop_wetted_share", "loop surface wetted", "%", _PERCENT),
    Quantity("crystal_loop_share", "crystal surface on the loop", "%", _PERCENT),
    Quantity("crystal_contact_angle", "contact angle on the crystal", "°", _DEG),
    Quantity("mount_contact_angle", "contact angle on the mount", "°", _DEG),
    Quantity("tilt", "tilt of the stem", "°", _DEG),
    Quantity("azimuth", "azimuth", "°", _DEG),
    Quantity("crystal_centre_x", "crystal centre, x", "µm", _UM),
    Quantity("crystal_centre_y", "crystal centre, y", "µm", _UM),
    Quantity("crystal_centre_z", "crystal centre, z", "µm", _UM),
    Quantity("packing_fraction", "packing fraction"),
    Quantity("grains", "grains in a sample"),
    Quantity("radius", "radius", "µm", _UM),
)
# Words and small counts.
CATEGORIES = (
    Quantity("habit", "habit"),
    Quantity("mount", "mount"),
    Quantity("liquor_kind", "liquor"),
    Quantity("crystals", "crystals in a sample"),
    Quantity("bubbles", "bubbles in a sample"),
    Quantity("liquor", "liquor made by"),
    Quantity("phase", "phase"),
    Quantity("tries", "tries until it passed"),
)
# Further columns that carry a unit, for the table.
_OTHERS = (Quantity("drawn_size", "", "µm", _UM), Quantity("voxel_size", "", "µm", _UM))
_SUFFIX = {"µm": "_um", "°": "_deg", "%": "_percent"}
_MOST_BINS, _MOST_BARS = 24, 14


def drawable(*tables: pd.DataFrame) -> list[Quantity]:
    """The quantities that some table has values of; a share that is nought everywhere tells nothing."""
    found = []
    for quantity in QUANTITIES:
        values = [numbers(table, quantity) for table in tables]
        if any(len(v) for v in values) and any(v.any() for v in values):
            found.append(quantity)
    return found


def countable(*tables: pd.DataFrame) -> list[Quantity]:
    """The categories that some table has values of."""
    return [c for c in CATEGORIES if any(c.column in t and t[c.column].notna().any() for t in tables)]


def numbers(table: pd.DataFrame, quantity: Quantity) -> np.ndarray:
    """The finite values of a quantity in its unit for people."""
    if quantity.column not in table:
        return np.zeros(0)
    values = pd.to_numeric(table[quantity.column], errors="coerce").to_numpy(dtype=float)
    return values[np.isfinite(values)] * quantity.factor


def histogram(sets: Mapping[str, pd.DataFrame], quantity: Quantity) -> pd.DataFrame:
    """How a quantity is spread in each set, over the same bins: set, low, high, samples, percent of the set."""
    values = {name: numbers(table, quantity) for name, table in sets.items()}
    edges = bin_edges(np.concatenate(list(values.values())))
    rows = []
    for name, found in values.items():
        counts = np.histogram(found, edges)[0]
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            rows.append((name, low, high, int(count), 100 * count / max(len(found), 1)))
    return pd.DataFrame(rows, columns=["set", "low", "high", "samples", "percent"])


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of even bins over ``values``, as many as Rice's rule has them, 24 at most."""
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        half = 0.05 * abs(low) or 0.5  # one bar of some width
        return np.array([low - half, low + half])
    count = max(5, min(_MOST_BINS, math.ceil(2 * len(values) ** (1 / 3))))
    return np.linspace(low, high, count + 1)


def counts(sets: Mapping[str, pd.DataFrame], category: Quantity) -> pd.DataFrame:
    """How often each value comes in each set, the most frequent first: set, value, samples, percent of the set."""
    parts = {}
    for name, table in sets.items():
        found = table[category.column].dropna() if category.column in table else pd.Series(dtype=object)
        parts[name] = found.map(_word).value_counts()
    frame = pd.DataFrame(parts).fillna(0).astype(int)
    frame = frame.loc[frame.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    if len(frame) > _MOST_BARS:
        rest = frame.iloc[_MOST_BARS - 1 :].sum().rename(f"{len(frame) - _MOST_BARS + 1} others")
        frame = pd.concat([frame.iloc[: _MOST_BARS - 1], rest.to_frame().T])
    rows = [
        (name, value, int(number), 100 * number / max(int(column.sum()), 1))
        for name, column in frame.items()
        for value, number in column.items()
    ]
    return pd.DataFrame(rows, columns=["set", "value", "samples", "percent"])


def spread(sets: Mapping[str, pd.DataFrame], quantities: Sequence[Quantity]) -> pd.DataFrame:
    """Of each quantity and set: number, least, quartiles, most, mean and standard deviation, in its unit."""
    rows = []
    for quantity in quantities:
        for name, table in sets.items():
            values = numbers(table, quantity)
            if not len(values):
                continue
            low, first, median, third, high = np.percentile(values, [0, 25, 50, 75, 100])
            deviation = float(values.std(ddof=1)) if len(values) > 1 else math.nan
            rows.append(
                {
                    "quantity": quantity.words,
                    "unit": quantity.unit,
                    "set": name,
                    "samples": len(values),
                    "least": low,
                    "lower quartile": first,
                    "median": median,
                    "upper quartile": third,
                    "most": high,
                    "mean": float(values.mean()),
                    "standard deviation": deviation,
                }
            )
    return pd.DataFrame(rows)


def in_readable_units(table: pd.DataFrame) -> pd.DataFrame:
    """The samples table with lengths in µm, angles in degrees and shares in percent, said in the columns' names."""
    known = {q.column: q for q in (*QUANTITIES, *_OTHERS)}
    columns = {}
    for name in table.columns:
        quantity = known.get(str(name))
        if quantity is None or quantity.factor == 1.0 or not pd.api.types.is_numeric_dtype(table[name]):
            columns[str(name)] = table[name]
        else:
            stem = str(name).removesuffix("_share") if quantity.unit == "%" else str(name)
            columns[stem + _SUFFIX[quantity.unit]] = table[name] * quantity.factor
    return pd.DataFrame(columns)


def reasons(rejections: pd.DataFrame) -> pd.DataFrame:
    """How often each reason was given, the most frequent first: reason, tries, samples."""
    if rejections.empty or "reason" not in rejections:
        return pd.DataFrame({"reason": [], "tries": [], "samples": []})
    column = "sample" if "sample" in rejections else "reason"
    found = rejections.groupby("reason")[column].agg(["size", "nunique"])
    found.columns = ["tries", "samples"]
    found = found.sort_values("tries", ascending=False, kind="stable").rename_axis("reason").reset_index()
    return found.assign(reason=found["reason"].map(_word))


def side_by_side(metrics: pd.DataFrame) -> pd.DataFrame:
    """SSIM and PSNR of the two models in one row each kind of image and scaling, and wave − absorption.

    metrics : as a fidelity report has it; empty if it is not of two models.
    """
    models = list(dict.fromkeys(metrics["model"])) if "model" in metrics else []
    wave = next((m for m in models if "wave" in str(m)), None)
    absorption = next((m for m in models if "absorption" in str(m)), None)
    if wave is None or absorption is None or not {"images", "scaling", "ssim", "psnr_db"} <= {*metrics}:
        return pd.DataFrame()
    rows = []
    for (images, scaling), part in metrics.groupby(["images", "scaling"], sort=False):
        by = part.drop_duplicates("model").set_index("model")
        if not {wave, absorption} <= set(by.index):
            continue
        row = {"images": images, "scaling": scaling}
        for metric, unit in (("ssim", ""), ("psnr", "_db")):
            first, second = (float(by.at[model, metric + unit]) for model in (wave, absorption))
            row |= {
                f"{metric}_wave{unit}": first,
                f"{metric}_absorption{unit}": second,
                f"{metric}_gain{unit}": first - second,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def calibration_ratios(calibration: pd.DataFrame) -> pd.DataFrame:
    """Simulated over measured of each parameter with its standard error: parameter, value, low, high.

    Left out is what one of the two could not tell, and what in the real frames is not above twice its error.
    """
    rows = []
    for row in calibration.to_dict("records"):
        real, simulated = (_number(row.get(name)) for name in ("real", "simulated"))
        errors = [_number(row.get(name)) for name in ("real_error", "simulated_error")]
        if math.isnan(simulated) or math.isnan(real) or real == 0 or abs(real) <= 2 * errors[0]:
            continue
        ratio = simulated / real
        parts = [
            e / abs(v) for e, v in zip(errors, (real, simulated), strict=True) if v and not math.isnan(e)
        ]
        error = abs(ratio) * math.sqrt(sum(part**2 for part in parts))
        rows.append((str(row["parameter"]).replace("_", " "), ratio, ratio - error, ratio + error))
    return pd.DataFrame(rows, columns=["parameter", "value", "low", "high"])


def calibration_text(calibration: pd.DataFrame) -> pd.DataFrame:
    """The parameters for reading, "2.005 ± 0.007": their units differ from row to row."""
    rows = []
    for row in calibration.to_dict("records"):
        texts = {
            name: _with_error(_number(row.get(name)), _number(row.get(f"{name}_error")))
            for name in ("real", "simulated")
        }
        parameter = str(row["parameter"]).replace("_", " ")
        rows.append({"parameter": parameter, **texts, "unit": str(row.get("unit") or "")})
    return pd.DataFrame(rows, columns=["parameter", "real", "simulated", "unit"])


def _with_error(value: float, error: float) -> str:
    if math.isnan(value):
        return "not told"
    return number_text(value) if math.isnan(error) else f"{number_text(value)} ± {_one_digit(error)}"


def _one_digit(error: float) -> str:
    return number_text(float(f"{error:.1g}"))


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _word(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).replace("_", " ")
