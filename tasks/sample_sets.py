"""A forged set as a whole: how many passed, what was rejected and why, how the samples are spread, a contact sheet."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS
from tasks.publishing import publish_version
from tasks.samples import RECORD, TILE
from tomoforge.results import Picture, Table
from tomoforge.samples.gallery import Tile, contact_sheet, distributions_picture, read_tile
from tomoforge.storage import Artefact, Workspace
from tomoforge.units import m_to_um

_SHEET = 24  # samples on the contact sheet


@dataclass(frozen=True)
class PublishedSet:
    """identifier : of the published set; lines : what a person is told at the end of the run."""

    identifier: str
    lines: tuple[str, ...]


@task(name="publish-sample-set", **OPTIONS)
def publish_sample_set(
    workspace: Workspace,
    samples: Mapping[int, Artefact],
    *,
    requested: int,
    seed: int,
    failed: Mapping[int, str],
) -> PublishedSet:
    """The samples of a set by their index, and why those that are missing could not be forged: kind ``sample_sets``."""
    records = {i: json.loads((workspace.path(a) / RECORD).read_text()) for i, a in samples.items()}
    table = set_table(records)
    rejections = Counter(entry["reason"] for record in records.values() for entry in record["rejected"])
    tries = table["tries"].to_numpy()
    first, second = int((tries == 1).sum()), int((tries == 2).sum())
    about = f"{len(samples)} of {requested} samples, seed {seed}"
    keys = sha256(" ".join(artefact.key for artefact in samples.values()).encode()).hexdigest()[:12]
    identifier = publish_version(
        workspace,
        "sample_sets",
        f"samples-{seed}-{keys}",
        title=f"Set of {about}",
        summary={
            "samples_requested": requested,
            "samples_forged": len(samples),
            "passed_at_first_try": first,
            "passed_at_second_try": second,
            **{f"rejected_{reason.replace(' ', '_')}": n for reason, n in sorted(rejections.items())},
        },
        pictures={
            "contact_sheet": Picture(
                contact_sheet(_tiles(workspace, samples, records), title=about),
                f"The first {min(_SHEET, len(samples))} samples; inset: an axial slice.",
            ),
            "distributions": Picture(
                distributions_picture(table, rejections=rejections),
                "How the set is spread, and why tries were rejected.",
            ),
        },
        tables={
            "samples": Table(table, "A row each sample; lengths in m, angles in rad."),
            "rejections": Table(_rejection_table(records), "Every rejected try with its reason."),
        },
        warnings=[f"sample {i} is missing: {reason}" for i, reason in sorted(failed.items())],
        provenance={"labels": [artefact.key for artefact in samples.values()]},
    )
    shown = ", ".join(f"{reason} {n}" for reason, n in rejections.most_common()) or "none"
    lines = (
        f"samples forged  {len(samples)} of {requested}",
        f"passed          {first} at the first try, {second} at the second",
        f"rejected tries  {shown}",
        *(f"missing         sample {i}: {reason.splitlines()[0]}" for i, reason in sorted(failed.items())),
    )
    return PublishedSet(identifier, lines)


def set_table(records: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """A row each sample: its index, its tries, and every number and word that its record has of it."""
    rows = []
    for index, record in records.items():
        forging = {k: v for k, v in record["forging"].items() if isinstance(v, (str, int, float, bool))}
        seeds = {entry["seed"] for entry in record["rejected"]}
        own = json.loads(record["recipe"])["seed"]
        rows.append({"sample": index, "seed": own, "tries": len(seeds - {own}) + 1, **forging})
    return pd.DataFrame(rows)


def _rejection_table(records: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    rows = [
        {"sample": index, **{key: entry[key] for key in ("seed", "reason", "message")}}
        for index, record in records.items()
        for entry in record["rejected"]
    ]
    return pd.DataFrame(rows, columns=["sample", "seed", "reason", "message"])


def _tiles(
    workspace: Workspace, samples: Mapping[int, Artefact], records: Mapping[int, Mapping[str, Any]]
) -> Sequence[Tile]:
    tiles = []
    for index in list(samples)[:_SHEET]:
        image = read_tile(workspace.path(samples[index]) / TILE)
        caption = _caption(index, records[index]["forging"])
        tiles.append(Tile(image, caption, records[index]["tile_pixel_size"]))
    return tiles


def _caption(index: int, forging: Mapping[str, Any]) -> str:
    if "habit" not in forging:
        share = forging["packing_fraction"]
        return f"{index}: {forging['title']}\npacking fraction {share:.3f}"
    size = m_to_um(forging["crystal_size"])
    liquor = forging["liquor_kind"] + (", lens" if forging["liquor"] == "analytic_lens" else "")
    return f"{index}: {forging['habit'].replace('_', ' ')}, {size:.0f} µm\n{forging['mount']}, {liquor}"
