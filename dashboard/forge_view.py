"""The Forge page's own parts: forged sets with their galleries and distributions, and fidelity reports."""

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from dashboard import charts, data, view
from dashboard.choices import choose_many, choose_one
from dashboard.sample_tables import (
    Quantity,
    calibration_ratios,
    calibration_text,
    countable,
    counts,
    drawable,
    histogram,
    in_readable_units,
    reasons,
    side_by_side,
    spread,
)
from dashboard.tables import table_of
from dashboard.vocabulary import count, literal, number_text, ordered, split_unit
from tomoforge.errors import StorageError
from tomoforge.results import Published

_CARDS, _CARDS_A_ROW, _CHARTS_A_ROW = 12, 4, 3
_CHARTS_FIRST = 6
_NONE = "none"
_THIS, _OTHER = "This set", "Other set"


# --- samples --------------------------------------------------------------------------------------------


def show_sample_gallery(items: Sequence[Published], shown: Published) -> None:
    """The published samples as cards, the newest first."""
    if len(items) < 2:
        return
    with st.expander(f"Gallery of {len(items)} samples", icon=":material/grid_view:", expanded=True):
        for item in _cards_page(list(items), "gallery"):
            with item[0].container(border=True, height="stretch"):
                _sample_card(item[1], here=item[1] is shown)


def _cards_page(items: list, parameter: str) -> list[tuple]:
    """(column, item) of the page of cards that the address names."""
    pages = [str(n + 1) for n in range(-(-len(items) // _CARDS))]
    page = pages[0]
    if len(pages) > 1:
        page = choose_one(
            "Page of the gallery",
            pages,
            parameter,
            words=lambda p: f"{p} of {len(pages)}: {_range(int(p), len(items))} of {len(items)}",
        )
    part = items[_CARDS * (int(page) - 1) :][:_CARDS]
    return [
        (column, item)
        for start in range(0, len(part), _CARDS_A_ROW)
        for column, item in zip(st.columns(_CARDS_A_ROW), part[start : start + _CARDS_A_ROW], strict=False)
    ]


def _range(page: int, number: int) -> str:
    return f"{_CARDS * (page - 1) + 1} to {min(_CARDS * page, number)}"


def _sample_card(item: Published, *, here: bool = False) -> None:
    _card_picture(item)
    st.markdown(f"**{literal(item.title)}**")
    facts = [
        f"{split_unit(name)[0]} {_share(item.summary[name])}"
        for name in ("fraction_crystal", "fraction_liquor", "fraction_loop")
        if isinstance(item.summary.get(name), int | float)
    ]
    if facts:
        st.caption(literal(", ".join(facts)))
    if here:
        st.caption(":material/arrow_downward: shown below")
    else:
        st.page_link(
            "stages/forge.py",
            label="Open",
            icon=":material/arrow_forward:",
            query_params={"kind": "samples", "item": item.identifier},
        )


def _card_picture(item: Published) -> None:
    names = ordered(item.pictures, ("view", "labels"))
    if not names:
        st.caption("No picture was published.")
        return
    try:
        picture = data.read_picture(item, names[0])
    except StorageError as error:
        st.caption(f"The picture cannot be shown: {literal(error)}.")
        return
    st.image(picture.png, width="stretch", alt=picture.caption)


def _share(value: float) -> str:
    return f"{number_text(round(100 * float(value), 2))} %"


# --- sets -----------------------------------------------------------------------------------------------


def show_set(item: Published, sets: Sequence[Published], published: data.Listing) -> frozenset[str]:
    """A set's gallery, its distributions beside those of another, its rejections. Returns the tables shown."""
    samples = table_of(item, "samples", ("sample",))
    st.subheader("Gallery", anchor=False)
    if "contact_sheet" in item.pictures:
        view.show_picture(item, "contact_sheet")
    else:
        st.caption("This set was published without a contact sheet.")
    if samples is None:
        return frozenset()
    _show_set_cards(item, samples, published)
    _show_distributions(item, samples, sets)
    shown = {"samples"} | _show_rejections(item, samples)
    st.subheader("All samples", anchor=False)
    st.caption("A row each sample, as its record has it; lengths in µm, angles in °, shares in %.")
    view.show_frame(in_readable_units(samples), f"sample_sets-{item.identifier}-samples")
    return frozenset(shown)


def _show_set_cards(item: Published, samples: pd.DataFrame, published: data.Listing) -> None:
    """A card each sample: what its row says, with picture and link where the sample itself is published."""
    with st.expander(f"Cards of {len(samples)} samples", icon=":material/grid_view:"):
        left, right = st.columns(2)
        chosen = samples
        if "habit" in samples:
            habits = sorted(samples["habit"].dropna().astype(str).unique())
            with left:
                habit = choose_one("Habit", ["all", *habits], "habit", words=_plain)
            chosen = samples if habit == "all" else samples[samples["habit"].astype(str) == habit]
        keys = [q for q in drawable(samples) if q.column in samples]
        with right:
            order = choose_one(
                "Order",
                ["sample", *[q.column for q in keys]],
                "order",
                words=lambda c: (
                    "by number" if c == "sample" else f"by {_words_of(keys, c)}, the largest first"
                ),
            )
        chosen = chosen.sort_values(order, ascending=order == "sample", kind="stable")
        known = _published_samples(item, published)
        for column, row in _cards_page(chosen.to_dict("records"), "cards"):
            with column.container(border=True, height="stretch"):
                _row_card(row, known.get(_index(row["sample"])), keys)


def _words_of(quantities: Sequence[Quantity], column: str) -> str:
    return next((q.words for q in quantities if q.column == column), column)


def _row_card(row: Mapping, sample: Published | None, quantities: Sequence[Quantity]) -> None:
    if sample is not None:
        _card_picture(sample)
    words = [
        _plain(row[name]) for name in ("habit", "mount", "liquor_kind") if isinstance(row.get(name), str)
    ]
    st.markdown(f"**Sample {literal(_plain(row['sample']))}**")
    st.caption(literal(", ".join(words)))
    facts = [
        f"{q.words} {number_text(round(float(row[q.column]) * q.factor, 3))} {q.unit}".strip()
        for q in quantities
        if q.column in ("crystal_size", "crystal_aspect", "fraction_crystal", "packing_fraction")
        and isinstance(row.get(q.column), int | float)
    ]
    st.caption(literal(" · ".join(facts)))
    tries = row.get("tries")
    if isinstance(tries, int | float) and tries > 1:
        st.badge(f"{int(tries)} tries", icon=":material/replay:", color="orange")
    if sample is not None:
        st.page_link(
            "stages/forge.py",
            label="Open",
            icon=":material/arrow_forward:",
            query_params={"kind": "samples", "item": sample.identifier},
        )


def _published_samples(item: Published, published: data.Listing) -> dict[int, Published]:
    """Index in the set → the published sample, by the keys of the labels in the set's provenance."""
    keys = item.provenance.get("labels")
    samples = table_of(item, "samples", ("sample",))
    if (
        not isinstance(keys, Sequence)
        or isinstance(keys, str)
        or samples is None
        or len(keys) != len(samples)
    ):
        return {}
    newest: dict[str, Published] = {}
    for sample in published.of("samples").items:
        newest.setdefault(sample.identifier.rpartition("-")[0], sample)
    rows = zip(samples["sample"], keys, strict=True)
    return {_index(number): newest[str(key)] for number, key in rows if str(key) in newest}


def _index(number: object) -> int:
    return int(number) if isinstance(number, int | float) and number == number else -1


def _show_distributions(item: Published, samples: pd.DataFrame, sets: Sequence[Published]) -> None:
    st.subheader("How the set is spread", anchor=False)
    others = {other.identifier: other for other in sets if other is not item}
    compared: Published | None = None
    if others:
        wanted = choose_one(
            "Compare with",
            [_NONE, *others],
            "with",
            words=lambda i: "no other set" if i == _NONE else f"{others[i].title} · {i}",
        )
        compared = others.get(wanted)
    tables = {_THIS: samples}
    if compared is not None:
        other = table_of(compared, "samples", ("sample",))
        if other is None:
            st.caption("The samples of the other set cannot be read; shown is this set alone.")
        else:
            tables[_OTHER] = other
            st.caption(
                literal(
                    f"{_THIS}: {item.title}, {item.identifier}. {_OTHER}: {compared.title}, {compared.identifier}."
                )
            )
    known = {q.column: q for q in (*drawable(*tables.values()), *countable(*tables.values()))}
    if not known:
        st.caption("Nothing is known of these samples that could be drawn.")
        return
    preferred = ["crystal_size", "fraction_crystal", "fraction_liquor", "habit", "mount", "liquor_kind"]
    options = [c for c in preferred if c in known] + [c for c in known if c not in preferred]
    chosen = choose_many(
        "Shown", options, "shown", first=_CHARTS_FIRST, words=lambda column: known[column].title
    )
    value, title = (
        ("percent", "share of the set [%]") if len(tables) > 1 else ("samples", "number of samples")
    )
    parts = []
    for start in range(0, len(chosen), _CHARTS_A_ROW):
        row = chosen[start : start + _CHARTS_A_ROW]
        for column, name in zip(st.columns(_CHARTS_A_ROW), row, strict=False):
            with column:
                parts.append(_show_distribution(known[name], tables, value, title))
    with st.expander("The numbers of these charts", icon=":material/table_rows:"):
        st.caption("Quartiles of each quantity over the samples.")
        view.show_frame(
            spread(tables, [known[c] for c in known if c in {q.column for q in drawable(*tables.values())}]),
            f"spread-of-{item.identifier}",
        )
        st.caption("Bars of the charts above: samples in each bin, or of each word.")
        view.show_frame(pd.concat(parts, ignore_index=True), f"distributions-of-{item.identifier}")


def _show_distribution(
    quantity: Quantity, tables: Mapping[str, pd.DataFrame], value: str, title: str
) -> pd.DataFrame:
    """One chart with its caption. Returns its bars."""
    if quantity in drawable(*tables.values()):
        frame = histogram(tables, quantity)
        medians = [
            f"{number_text(row['median'])} ({number_text(row['least'])} … {number_text(row['most'])})"
            for row in spread(tables, [quantity]).to_dict("records")
        ]
        unit = f" {quantity.unit}" if quantity.unit else ""
        charts.draw(
            charts.histogram(frame, x_title=quantity.title, y_title=title, value=value),
            f"{quantity.words.capitalize()}: median {' against '.join(medians)}{unit}, least … most.",
        )
    else:
        frame = counts(tables, quantity)
        kinds = pd.concat([t[quantity.column] for t in tables.values() if quantity.column in t]).nunique()
        group = "set" if len(tables) > 1 else None
        charts.draw(
            charts.bars(frame, "value", value, value_title=title, group=group),
            f"{quantity.words.capitalize()}: {kinds} different.",
        )
    return frame.assign(quantity=quantity.title)


def _show_rejections(item: Published, samples: pd.DataFrame) -> set[str]:
    st.subheader("Rejected samples", anchor=False)
    rejections = table_of(item, "rejections", ("reason",))
    if rejections is None:
        st.caption("No readable table of rejected tries was published with this set.")
        return set()
    if rejections.empty:
        st.caption(f"No try was rejected: {count(len(samples), 'sample', 'samples')} passed at the first.")
        return {"rejections"}
    counted = reasons(rejections)
    share = 100 * len(rejections) / (len(rejections) + len(samples))
    charts.show_chart(
        charts.bars(counted, "reason", "tries", value_title="rejected tries"),
        f"Why tries were rejected: {len(rejections)} of {len(rejections) + len(samples)} tries ({share:.1f} %).",
        counted,
        f"reasons-of-{item.identifier}",
    )
    st.caption(literal(item.tables["rejections"][1]))
    view.show_frame(rejections, f"sample_sets-{item.identifier}-rejections")
    return {"rejections"}


def _plain(word: object) -> str:
    return str(word).replace("_", " ")


# --- fidelity -------------------------------------------------------------------------------------------


def show_fidelity(item: Published) -> frozenset[str]:
    """Wave optics and absorption only side by side, their pictures, the calibration. Returns the tables shown."""
    shown = _show_scores(item)
    pictures = [name for name in ("projection", "slice") if name in item.pictures]
    if pictures:
        st.subheader("Difference pictures", anchor=False)
        for name in pictures:
            view.show_picture(item, name)
    return frozenset(shown | _show_distances(item) | _show_calibration(item))


def _show_scores(item: Published) -> set[str]:
    metrics = table_of(item, "metrics", ("images", "model", "scaling", "ssim", "psnr_db"))
    if metrics is None:
        return set()
    st.subheader("Wave optics and absorption only, side by side", anchor=False)
    frame = metrics.assign(images=metrics["images"].astype(str) + ", " + metrics["scaling"].map(_scaled))
    left, right = st.columns(2)
    for column, name, title, better in (
        (left, "ssim", "SSIM, 1 is the same", "Structural similarity"),
        (right, "psnr_db", "PSNR [dB]", "Peak signal to noise"),
    ):
        with column:
            charts.draw(
                charts.bars(frame, "images", name, value_title=title, group="model"),
                f"{better} against the real scan, by the model of the simulation. Longer is closer.",
            )
    pairs = side_by_side(metrics)
    if not pairs.empty:
        st.caption("A gain above 0: wave optics is closer to the real scan than absorption only.")
        view.show_frame(pairs, f"side-by-side-of-{item.identifier}")
    st.caption(literal(item.tables["metrics"][1]))
    view.show_frame(metrics, f"fidelity-{item.identifier}-metrics")
    return {"metrics"}


def _scaled(scaling: object) -> str:
    return "as they are" if scaling == "none" else str(scaling)


def _show_distances(item: Published) -> set[str]:
    curve = table_of(item, "distances", ("distance_mm", "ssim", "psnr_db"))
    if curve is None or (curve["distance_mm"] <= 0).any():
        return set()
    st.subheader("Which distance fits", anchor=False)
    left, right = st.columns(2)
    for column, name, title in (
        (left, "ssim", "SSIM of projections"),
        (right, "psnr_db", "PSNR of projections [dB]"),
    ):
        with column:
            chart = charts.curves(
                curve,
                "distance_mm",
                name,
                x_title="assumed propagation distance [mm]",
                y_title=title,
                logarithmic=True,
                height=240,
            )
            charts.draw(chart, f"{title} at each assumed distance; the highest fits best.")
    st.caption(literal(item.tables["distances"][1]))
    view.show_frame(curve, f"fidelity-{item.identifier}-distances")
    return {"distances"}


def _show_calibration(item: Published) -> set[str]:
    """The simulator's frames without sample against the real ones."""
    st.subheader("Calibration against real flats and darks", anchor=False)
    table = table_of(item, "calibration", ("parameter", "real", "simulated"))
    if table is None:
        st.caption(
            "No calibration was published with this report. `python -m flows evaluate_fidelity --scan …` publishes "
            "one where the scan has two or more flats."
        )
        return set()
    shown = {"calibration"}
    ratios = calibration_ratios(table)
    if not ratios.empty:
        charts.show_chart(
            charts.intervals(ratios, "simulated over real, 1 is the same", group="parameter", reference=1.0),
            "What the calibrated simulator's flats and darks measure, over what the real ones do, with standard "
            "errors.",
            ratios,
            f"calibration-ratios-of-{item.identifier}",
        )
    st.caption(literal(item.tables["calibration"][1]))
    view.show_frame(calibration_text(table), f"calibration-of-{item.identifier}")
    with st.expander("The same as numbers", icon=":material/table_rows:"):
        view.show_frame(table, f"fidelity-{item.identifier}-calibration")
    counted = table_of(item, "calibration_counts", ("frames", "low", "high", "real", "simulated"))
    if counted is not None and not counted.empty:
        shown.add("calibration_counts")
        _show_counts(item, counted)
    return shown


def _show_counts(item: Published, counted: pd.DataFrame) -> None:
    """How counts are spread in real and simulated frames."""
    kinds = list(dict.fromkeys(counted["frames"]))[:2]
    for column, frames in zip(st.columns(2), kinds, strict=False):
        part = counted[counted["frames"] == frames]
        long = part.melt(
            id_vars=["low", "high"], value_vars=["real", "simulated"], var_name="set", value_name="percent"
        )
        with column:
            charts.draw(
                charts.histogram(
                    long,
                    x_title=f"counts in {_plain(frames)}",
                    y_title="share of pixels [%]",
                    value="percent",
                ),
                f"Counts of {_plain(frames)}: bars real, line simulated.",
            )
    st.caption(literal(item.tables["calibration_counts"][1]))
    view.show_frame(counted, f"fidelity-{item.identifier}-calibration_counts")
