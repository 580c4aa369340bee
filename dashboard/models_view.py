"""The Models page's own parts: models side by side, decisions, ablations, training curves, the history."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import charts, data, model_tables, view
from dashboard.choices import choose_many, choose_one, switch
from dashboard.model_tables import METRICS
from dashboard.tables import table_of
from dashboard.vocabulary import label, literal, moment
from tomoforge.errors import StorageError
from tomoforge.results import Published

_CURVES_FIRST, _LINES = 4, 6
_MEANING = {
    "recall": "the part of a class that was found",
    "iou": "overlap over union of a class",
    "f1": "harmonic mean of recall and precision, the Dice coefficient",
    "f2": "as F1, recall counts twice",
    "precision": "the part of what was called a class that is one",
}


# --- all models -----------------------------------------------------------------------------------------


def show_side_by_side(published: data.Listing) -> None:
    """The champion, scores of all models by class, the newest decision, the history, the training curves."""
    champion = model_tables.champion_key(published)
    decisions = model_tables.decisions_of(published)
    _show_tiles(published, champion, decisions)
    _show_damaged(model_tables.models_of(published), ("metrics", "training_curve"))
    _show_damaged(decisions, ("challenger", "champion", "gate"))
    _show_scores(published, champion)
    _show_newest_decision(decisions, published)
    _show_history(published)
    _show_curves(published, champion)
    _show_links(published)
    item = model_tables.find_model(champion or "", published) or published.of("models").items[0]
    said = "The champion" if champion else "The newest model"
    st.subheader(f"{said}: {literal(item.title)}", anchor=False)
    view.show_link(item, published)
    view.show_provenance(item)


def _show_tiles(published: data.Listing, champion: str | None, decisions: Sequence[Published]) -> None:
    promoted = sum(item.summary.get("decision") == "promoted" for item in decisions)
    refused = sum(item.summary.get("decision") == "refused" for item in decisions)
    holdout = next((h for item in decisions if (h := model_tables.holdout_of(item))), "")
    model = model_tables.find_model(champion, published) if champion else None
    dataset = model_tables.dataset_of(model) if model is not None else ""
    tiles = st.columns(4)
    tiles[0].metric("Models", len(published.of("models").items), border=True)
    tiles[1].metric("Promoted, refused", f"{promoted}, {refused}", border=True)
    tiles[2].metric("Comparisons", len(published.of("comparisons").items), border=True)
    tiles[3].metric("Champion", model_tables.short_key(champion)[-8:] if champion else "–", border=True)
    if champion:
        st.markdown(f"★ **Champion** {literal(champion)}")
    else:
        st.caption(
            "No promotion is published: `python -m flows promote` compares a model and makes it champion."
        )
    facts = [("Trained on the data set", dataset), ("Frozen hold-out, SHA-256", holdout)]
    for words, value in facts:
        if value:
            st.caption(f"{words}: {literal(value)}")


def _show_damaged(items: Sequence[Published], names: Sequence[str]) -> None:
    for item in items:
        for name in names:
            if name not in item.tables:
                continue
            try:
                data.read_table(item, name)
            except StorageError as error:
                st.warning(
                    f"The table “{literal(name)}” cannot be shown: {literal(error)}. It is of {literal(item.title)}.",
                    icon=":material/broken_image:",
                )


def _show_scores(published: data.Listing, champion: str | None) -> None:
    st.subheader("Scores by class", anchor=False)
    scores = model_tables.scores_of(published)
    if not scores:
        st.caption(
            "No scores are published yet. `python -m flows promote` scores a model on the frozen hold-out; "
            "`python -m flows train_segmenter --folds 5` cross-validates one."
        )
        return
    metric = _choose_metric()
    frame = model_tables.all_scores(scores, champion)
    part = frame[(frame["measure"] == metric) & (frame["class"] != "background")].dropna(subset=["mean"])
    drawn = part.rename(columns={"mean": "value"})[["name", "class", "value", "low", "high", "cases"]]
    if drawn.empty:
        st.caption(f"No model was published with {literal(label(metric))}.")
    else:
        charts.draw(
            charts.intervals(
                drawn,
                f"{label(metric)}, mean over the cases",
                group="name",
                panel="class",
                panels=model_tables.class_order(drawn["class"]),
            ),
            f"{label(metric)}: {_MEANING[metric]}. Points are means over the cases, bars their 95 % bootstrap "
            "intervals over cases where they are published; ★ is the champion. Compare models on the same cases only.",
        )
    st.caption("All runs, classes and metrics: mean [interval].")
    view.show_frame(model_tables.runs_by_classes(scores, champion, published), "models-scores")
    with st.expander("The same as numbers, a row each mean", icon=":material/table_rows:"):
        view.show_frame(frame, "models-scores-numbers")


def _choose_metric() -> str:
    # IoU first: it is what decides.
    return switch("Metric", ["iou", "recall", "f1", "f2", "precision"], "metric", words=label)


def _show_newest_decision(decisions: Sequence[Published], published: data.Listing) -> None:
    for item in decisions:
        if model_tables.gate_differences(item) is not None:
            st.subheader("Challenger against champion, newest decision", anchor=False)
            st.markdown(f"**{literal(item.title)}**, {literal(moment(item.summary.get('decided_at')))}")
            _show_gate(item, name="newest")
            view.show_link(item, published)
            return


def _show_history(published: data.Listing) -> None:
    st.subheader("Promotion history", anchor=False)
    frame = model_tables.history(published)
    if frame.empty:
        st.caption("No decision on a model is published yet.")
        return
    dated = frame.dropna(subset=["moment"])
    if len(dated) > 1:
        shown = dated.assign(model=dated["model"].map(model_tables.short_key))
        charts.draw(
            charts.timeline(shown),
            "Every decision on a model by the time at which it was made; the newest first in the table.",
        )
    text = frame.assign(moment=frame["moment"].map(lambda t: "" if pd.isna(t) else moment(t.isoformat())))
    view.show_frame(text, "models-history")


def _show_curves(published: data.Listing, champion: str | None) -> None:
    st.subheader("Training curves", anchor=False)
    found = {}
    for item in model_tables.models_of(published):
        curve = model_tables.curve_of(item)
        if curve is not None:
            found[item.identifier] = (item, curve)
    if not found:
        st.caption("No readable training curve is published.")
        return

    def words(identifier: str) -> str:
        item = found[identifier][0]
        star = "★ " if champion in (identifier, model_tables.artefact_key(item)) else ""
        return f"{star}{item.title} · {identifier}"

    columns = model_tables.common_first([curve for _, curve in found.values()])
    left, right = st.columns([3, 1])
    with left:
        chosen = choose_many("Models", list(found), "models", first=_CURVES_FIRST, words=words)
    with right:
        column = choose_one("Quantity", columns, "curve", words=label)
    if len(chosen) > _LINES:
        st.caption(f"The first {_LINES} of {len(chosen)} models are drawn; more could not be told apart.")
    frame = model_tables.overlaid({words(i): found[i][1] for i in chosen[:_LINES]}, column)
    if frame.empty:
        st.caption("None of these models recorded this quantity.")
        return
    charts.show_chart(
        charts.curves(
            frame, "epoch", "value", x_title="epoch", y_title=f"{label(column)}, no unit", group="model"
        ),
        f"{label(column)} over the epochs; folds of a cross-validation are averaged.",
        frame,
        "models-curves",
    )


def _show_links(published: data.Listing) -> None:
    items = published.of("comparisons").items[:5]
    if items:
        st.subheader("Ablations", anchor=False)
        st.caption("What training on real, on forged and on both kinds of cases is worth.")
        for item in items:
            view.show_link(item, published)


# --- one model, one decision ----------------------------------------------------------------------------


def show_dataset(item: Published) -> None:
    """What a result was trained or tested on, by its hash."""
    dataset, holdout = model_tables.dataset_of(item), model_tables.holdout_of(item)
    if dataset:
        st.markdown(f"**Data set** {literal(dataset)}")
    if holdout:
        st.markdown(f"**Frozen hold-out**, SHA-256 {literal(holdout)}")


def show_decision(item: Published) -> frozenset[str]:
    """Champion and challenger: differences by class and by case, scores, worst cases. Returns the tables shown."""
    show_dataset(item)
    if model_tables.gate_differences(item) is not None:
        st.subheader("Difference by class", anchor=False)
        _show_gate(item, name=item.identifier)
    _show_all_measures(item)
    return _show_case_differences(item)


def _show_gate(item: Published, *, name: str) -> None:
    frame = model_tables.gate_differences(item)
    if frame is None:
        return
    sets = list(dict.fromkeys(frame["set"]))
    charts.show_chart(
        charts.intervals(
            frame,
            "challenger − champion [points of IoU]",
            group="class",
            panel="set" if len(sets) > 1 else None,
            panels=sets,
            reference=0.0,
        ),
        "Mean difference over the cases with its bootstrap interval, in points of IoU (0.01): right of zero the "
        f"challenger is better. Cases of the {' and the '.join(sets)} set.",
        frame,
        f"gate-differences-of-{name}",
    )


def _show_all_measures(item: Published) -> None:
    """Differences of a chosen metric with intervals, where they are published."""
    if table_of(item, "differences", ("set", "class", "measure", "difference", "low", "high")) is None:
        return
    st.subheader("Difference in each metric", anchor=False)
    metric = _choose_metric()
    frame = model_tables.metric_differences(item, metric, group="set")
    if frame is None or frame.empty:
        st.caption(f"No difference in {literal(label(metric))} was published.")
        return
    sets = list(dict.fromkeys(frame["set"]))
    charts.show_chart(
        charts.intervals(
            frame,
            f"challenger − champion [points of {label(metric)}]",
            group="class",
            panel="set" if len(sets) > 1 else None,
            panels=sets,
            reference=0.0,
        ),
        f"{label(metric)}: {_MEANING[metric]}. Mean difference over the cases with its bootstrap interval.",
        frame,
        f"{metric}-differences-of-{item.identifier}",
    )


def _show_case_differences(item: Published) -> frozenset[str]:
    st.subheader("Difference in each case", anchor=False)
    metric = st.query_params.get("metric", "iou")
    metric = metric if metric in METRICS else "iou"
    frame = model_tables.case_differences(item, metric)
    if frame is None or frame.empty:
        st.caption("No differences by case were published with this decision; newer ones have them.")
        return frozenset()
    _show_strips(frame, metric, "challenger − champion", f"{metric}-cases-of-{item.identifier}")
    return frozenset({"case_differences"})


def _show_strips(frame: pd.DataFrame, metric: str, what: str, name: str) -> None:
    charts.show_chart(
        charts.strips(
            frame,
            f"{what} [points of {label(metric)}]",
            lane="class",
            lanes=model_tables.class_order(frame["class"]),
        ),
        f"A point each case: {what} in points of {label(metric)} (0.01); hover for the case. The table has the case "
        "with the largest loss first.",
        frame,
        name,
    )


# --- ablations ------------------------------------------------------------------------------------------


def show_comparison(item: Published) -> None:
    """An ablation: scores of the arms, differences with intervals, differences by case."""
    show_dataset(item)
    metric = _choose_metric()
    st.subheader("Ablation: what was trained on what", anchor=False)
    means = table_of(item, "means", ("model", "class", "measure", "mean", "low", "high"))
    if means is None:
        st.caption(
            "The means were published as text alone, in the table “Scores” below; newer ones have a chart."
        )
    else:
        part = means[(means["measure"] == metric) & (means["class"] != "background")]
        drawn = part.rename(columns={"mean": "value"}).dropna(subset=["value"])
        charts.show_chart(
            charts.intervals(
                drawn[["model", "class", "value", "low", "high"]],
                f"{label(metric)}, mean over the cases",
                group="model",
                panel="class",
                panels=model_tables.class_order(drawn["class"]),
            ),
            f"{label(metric)}: {_MEANING[metric]}. Means over the cases with 95 % bootstrap intervals; arms are "
            "averaged over seeds.",
            drawn,
            f"{metric}-means-of-{item.identifier}",
        )
    st.subheader("Differences of the arms", anchor=False)
    frame = model_tables.metric_differences(item, metric, group="pair")
    if frame is None:
        st.caption("No differences of this metric were published.")
    else:
        pairs = list(dict.fromkeys(frame["pair"]))
        charts.show_chart(
            charts.intervals(
                frame,
                f"difference [points of {label(metric)}]",
                group="class",
                panel="pair",
                panels=pairs,
                reference=0.0,
            ),
            "Paired differences over the cases with their intervals, in points (0.01): right of zero the arm named "
            "first is better.",
            frame,
            f"{metric}-differences-of-{item.identifier}",
        )
        _show_arm_cases(item, metric, pairs)


def _show_arm_cases(item: Published, metric: str, pairs: Sequence[str]) -> None:
    cases = table_of(item, "cases", ("arm", "seed", "case", "class", metric))
    pairs = [pair for pair in pairs if pair.count(" − ") == 1]
    if cases is None or not pairs:
        return
    st.subheader("Difference in each case", anchor=False)
    pair = choose_one("Arms", pairs, "pair")
    first, second = pair.split(" − ")
    frame = model_tables.arm_case_differences(cases, first, second, metric)
    if not frame.empty:
        _show_strips(frame, metric, pair, f"{metric}-cases-of-{item.identifier}")


def show_worst_cases(item: Published) -> frozenset[str]:
    """The table of the worst cases and their pictures beside it. Returns the tables shown."""
    worst = table_of(item, "worst_cases", ("case", "score", "worst_class", "worst_score"))
    names = worst_pictures(item)
    if worst is None and not names:
        return frozenset()
    st.subheader("Worst cases", anchor=False)
    if worst is not None:
        st.caption(literal(item.tables["worst_cases"][1]))
        view.show_frame(worst, f"{item.kind}-{item.identifier}-worst_cases")
    if names:
        words = {name: label(name) for name in names}
        name = choose_one("Picture", names, "picture", words=lambda n: words[n])
        view.show_picture(item, name)
    return frozenset({"worst_cases"} if worst is not None else ())


def worst_pictures(item: Published) -> list[str]:
    """Names of the pictures of worst cases."""
    return sorted(name for name in item.pictures if name.startswith("worst_"))
