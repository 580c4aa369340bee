"""What is published of models, put side by side: scores, differences, decisions, curves. No drawing here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dashboard import data
from dashboard.tables import table_of
from tomoforge.results import Published

# The five metrics; of each a higher one is better.
METRICS = ("recall", "iou", "f1", "f2", "precision")
MEAN = "mean"  # the row that averages the classes
_LONG = ("class", "measure", "mean", "low", "high", "cases")
_ROLES = {"challenger": "model", "champion": "champion_before"}  # table of a decision → key in its summary
_MOST = 30  # models and decisions that are read for one page


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one set of cases. key : of the model's artefact, or the published identifier;
    means : class, measure, mean, low, high, cases."""

    key: str
    title: str
    cases: str
    means: pd.DataFrame = field(compare=False)


def models_of(published: data.Listing) -> list[Published]:
    """The newest models, as many as a page reads."""
    return list(published.of("models").items[:_MOST])


def decisions_of(published: data.Listing) -> list[Published]:
    """The newest decisions on models by the time at which they were made, as many as a page reads."""
    items = published.of("promotions").items
    return sorted(items, key=lambda item: str(item.summary.get("decided_at") or ""), reverse=True)[:_MOST]


def champion_key(published: data.Listing) -> str | None:
    """Key of the model that the latest promotion or rollback made champion; None where none is published."""
    for item in decisions_of(published):
        if item.summary.get("decision") in ("promoted", "rolled back") and item.summary.get("model"):
            return str(item.summary["model"])
    marked = [item for item in models_of(published) if item.summary.get("champion") is True]
    return artefact_key(marked[0]) if marked else None


def artefact_key(item: Published) -> str:
    """The key of the artefact behind a published item: the identifier without its digest of eight letters."""
    stem, _, digest = item.identifier.rpartition("-")
    return stem if stem and len(digest) == 8 else item.identifier


def find_model(key: str, published: data.Listing) -> Published | None:
    """The newest published form of a model, by its artefact's key or its identifier."""
    if "models by key" not in published.remembered:
        by_key: dict[str, Published] = {}
        for item in published.of("models").items:
            by_key.setdefault(item.identifier, item)
            by_key.setdefault(artefact_key(item), item)
        published.remembered["models by key"] = by_key
    return published.remembered["models by key"].get(key)


def scores_of(published: data.Listing) -> list[Scores]:
    """Scores of all models that are known: of decisions on the frozen hold-out, else as a model was published with.

    A model has one entry for each set of cases, the newest.
    """
    found: dict[tuple[str, str], Scores] = {}
    for item in decisions_of(published):
        for table, role in _ROLES.items():
            key = item.summary.get(role)
            means = table_of(item, table, _LONG)
            if means is None or not key:
                continue
            holdout = short_hash(holdout_of(item))
            where = "hold-out" + (f" {holdout}" if holdout else "")
            found.setdefault((str(key), where), Scores(str(key), _title(str(key), published), where, means))
    for item in models_of(published):
        metrics = table_of(item, "metrics", ("class", *METRICS))
        if metrics is not None:
            key, where = artefact_key(item), "with the model"
            found.setdefault((key, where), Scores(key, item.title, where, long_means(metrics)))
    return list(found.values())


def _title(key: str, published: data.Listing) -> str:
    item = find_model(key, published)
    return item.title if item is not None else "not published"


def long_means(metrics: pd.DataFrame) -> pd.DataFrame:
    """A table of classes × metrics as a row each class and metric, intervals read from "0.83 [0.79, 0.86]"."""
    rows = []
    for row in metrics.to_dict("records"):
        for measure in METRICS:
            mean, low, high = read_interval(row.get(measure))
            rows.append((row["class"], measure, mean, low, high, math.nan))
    return pd.DataFrame(rows, columns=list(_LONG))


def read_interval(value: Any) -> tuple[float, float, float]:
    """Mean, low and high of "0.83 [0.79, 0.86]" or of a plain number; NaN for what is not there."""
    text = str(value).replace("[", " ").replace("]", " ").replace(",", " ").split()
    try:
        numbers = [float(part) for part in text]
    except ValueError:
        return math.nan, math.nan, math.nan
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    return (numbers[0] if len(numbers) == 1 else math.nan), math.nan, math.nan


def interval_text(mean: float, low: float, high: float) -> str:
    """A mean with its interval for reading; a dash for none."""
    if pd.isna(mean):
        return "–"
    return f"{mean:.3f}" if pd.isna(low) or pd.isna(high) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def name_of(scores: Scores, champion: str | None) -> str:
    """How a model is called in a chart: the champion marked, the key short."""
    star = "★ " if scores.key == champion else ""
    return f"{star}{short_key(scores.key)} · {scores.cases}"


def short_key(key: str) -> str:
    """``model-84622ca2e0ab88602110`` → ``model-84622ca2``: enough to tell models apart."""
    stem, dash, digest = key.rpartition("-")
    return f"{stem}{dash}{digest[:8]}"


def all_scores(scores: Iterable[Scores], champion: str | None) -> pd.DataFrame:
    """All of them under each other: name, key, title, cases_of, class, measure, mean, low, high, cases."""
    parts = []
    for item in scores:
        part = item.means[item.means["measure"].isin(METRICS)][list(_LONG)].copy()
        heads = {
            "name": name_of(item, champion),
            "key": item.key,
            "title": item.title,
            "cases_of": item.cases,
        }
        for place, (column, value) in enumerate(heads.items()):
            part.insert(place, column, value)
        parts.append(part)
    columns = ["name", "key", "title", "cases_of", *_LONG]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def runs_by_classes(scores: Sequence[Scores], champion: str | None, published: data.Listing) -> pd.DataFrame:
    """The table of runs × classes × five metrics, intervals as text; the champion first."""
    rows = []
    for item in sorted(scores, key=lambda s: s.key != champion):
        at = item.means.drop_duplicates(["class", "measure"]).set_index(["class", "measure"])
        model = find_model(item.key, published)
        for name in class_order(item.means["class"]):
            row: dict[str, Any] = {
                "model": ("★ " if item.key == champion else "") + short_key(item.key),
                "class": name,
            }
            for measure in METRICS:
                values = (
                    [float(at.at[(name, measure), c]) for c in ("mean", "low", "high")]
                    if (name, measure) in at.index
                    else [math.nan] * 3
                )
                row[measure] = interval_text(values[0], values[1], values[2])
            row["scored_on"] = item.cases
            row["dataset"] = short_hash(dataset_of(model)) if model is not None else ""
            rows.append(row)
    return pd.DataFrame(rows)


def class_order(classes: Iterable[Any]) -> list[str]:
    """The classes in one order on every chart, others as they come, their mean and the background last."""
    known = {"liquor": 0, "loop": 1, "crystal": 2, MEAN: 4, "background": 5}
    names = list(dict.fromkeys(str(name) for name in classes))
    return sorted(names, key=lambda name: known.get(name, 3))


# --- differences ----------------------------------------------------------------------------------------


def gate_differences(item: Published) -> pd.DataFrame | None:
    """Challenger − champion of IoU by class and set, with its interval: class, set, value, low, high [points]."""
    gate = table_of(item, "gate", ("set", "class", "difference", "low", "high"))
    if gate is None or gate["difference"].isna().all():
        return None
    return _points(gate, "set")


def metric_differences(item: Published, measure: str, *, group: str) -> pd.DataFrame | None:
    """Differences of one measure by class with intervals, from the table ``differences``: as ``gate_differences``,
    ``group`` instead of set."""
    table = table_of(item, "differences", (group, "class", "measure", "difference", "low", "high"))
    if table is None:
        return None
    part = table[table["measure"] == measure]
    return _points(part, group) if not part.empty else None


def _points(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """In points, hundredths of the measure."""
    columns = {"class": table["class"].astype(str), group: table[group].astype(str)}
    values = {
        new: 100 * pd.to_numeric(table[old], errors="coerce")
        for new, old in (("value", "difference"), ("low", "low"), ("high", "high"))
    }
    frame = pd.DataFrame({**columns, **values}).dropna(subset=["value"]).reset_index(drop=True)
    return frame[frame["class"] != "background"].reset_index(drop=True)


def case_differences(item: Published, measure: str) -> pd.DataFrame | None:
    """Challenger − champion of each case and class: case, set, class, value [points]."""
    table = table_of(item, "case_differences", ("set", "case", "class", measure))
    if table is None:
        return None
    frame = pd.DataFrame(
        {
            "case": table["case"].astype(str),
            "set": table["set"].astype(str),
            "class": table["class"].astype(str),
            "value": 100 * pd.to_numeric(table[measure], errors="coerce"),
        }
    )
    frame = frame[frame["class"] != "background"].dropna(subset=["value"])
    return frame.sort_values("value", kind="stable").reset_index(drop=True)


def arm_case_differences(cases: pd.DataFrame, first: str, second: str, measure: str) -> pd.DataFrame:
    """First − second arm of a comparison in each case and class, seeds averaged: as ``case_differences``."""
    kept = cases[cases["class"] != "background"]
    mean = kept.groupby(["arm", "case", "class"], sort=False)[measure].mean()
    if first not in mean.index or second not in mean.index:
        return pd.DataFrame(columns=["case", "set", "class", "value"])
    found = (100 * (mean.loc[first] - mean.loc[second])).dropna().rename("value").reset_index()
    found.insert(1, "set", f"{first} − {second}")
    return found.sort_values("value", kind="stable").reset_index(drop=True)


# --- history, curves, hashes ----------------------------------------------------------------------------


def history(published: data.Listing) -> pd.DataFrame:
    """Decisions on models, the newest first: moment, decision, reason, model, instead_of, by."""
    rows = []
    for item in decisions_of(published):
        reason = "; ".join(str(r) for r in (item.summary.get("grounds"), item.summary.get("reason")) if r)
        rows.append(
            {
                "moment": pd.to_datetime(str(item.summary.get("decided_at")), errors="coerce", utc=True),
                "decision": str(item.summary.get("decision") or "unknown"),
                "model": str(item.summary.get("model") or ""),
                "instead_of": str(item.summary.get("champion_before") or ""),
                "by": str(item.summary.get("decided_by") or ""),
                "reason": reason or "; ".join(item.warnings),
            }
        )
    return pd.DataFrame(rows, columns=["moment", "decision", "reason", "model", "instead_of", "by"])


def curve_of(item: Published) -> pd.DataFrame | None:
    """A model's training curve with the mean of the classes' pseudo-Dice; folds are averaged by epoch."""
    curve = table_of(item, "training_curve", ("epoch",))
    if curve is None or curve.empty or not pd.api.types.is_numeric_dtype(curve["epoch"]):
        return None
    curve = curve.select_dtypes("number")
    dice = [name for name in curve.columns if str(name).startswith("pseudo_dice_")]
    if dice and "pseudo_dice" not in curve:
        curve = curve.assign(pseudo_dice=curve[dice].mean(axis=1))
    curve = curve.drop(columns="fold", errors="ignore").groupby("epoch", as_index=False).mean()
    return curve if len(curve.columns) > 1 else None


def common_first(curves: Sequence[pd.DataFrame]) -> list[str]:
    """The quantities of training curves, those that most of them have first."""
    counted: dict[str, int] = {}
    for name in (str(column) for curve in curves for column in curve.columns if column != "epoch"):
        counted[name] = counted.get(name, 0) + 1
    return sorted(counted, key=lambda name: -counted[name])


def overlaid(curves: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """One quantity of several training curves: model, epoch, value."""
    parts = [
        pd.DataFrame({"model": name, "epoch": curve["epoch"], "value": curve[column]})
        for name, curve in curves.items()
        if column in curve
    ]
    frame = (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["model", "epoch", "value"])
    )
    return frame.dropna(subset=["value"])


def dataset_of(item: Published) -> str:
    """Key and checksum of the data set that a model was trained on or a comparison made of; empty if not said."""
    inputs = item.provenance.get("inputs")
    dataset = inputs.get("dataset") if isinstance(inputs, Mapping) else item.provenance.get("dataset")
    if isinstance(dataset, Mapping):
        return " ".join(str(dataset[name]) for name in ("key", "checksum") if dataset.get(name))
    return str(dataset) if isinstance(dataset, str) else ""


def holdout_of(item: Published) -> str:
    """SHA-256 of the frozen hold-out that a decision rests on; empty if not said."""
    audit = item.provenance.get("audit")
    evidence = audit.get("evidence") if isinstance(audit, Mapping) else None
    sets = evidence.get("sets") if isinstance(evidence, Mapping) else None
    return str(sets.get("holdout") or "") if isinstance(sets, Mapping) else ""


def short_hash(text: str) -> str:
    """Enough of the last word's hash to compare by eye."""
    return text.split()[-1].rpartition("-")[2][:12] if text.split() else ""
