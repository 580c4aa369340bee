"""What the dashboard's pages cost: seconds to draw and memory, as Streamlit runs them, without a browser.

    python benchmarks/dashboard.py --home [--items N] [--quick]
    python benchmarks/dashboard.py --volume [--size N] [--quick]

``--home``: the first page over N published items, 5,000 unless told otherwise, made by ``tomoforge.results.publish``
in a temporary folder: scans, reconstructions, segmentations, corrections, inbox reports with their tables, nights,
decisions, a sixth of them with warnings. Once spread over 30 days, once all within the last night. Each case is drawn
by a process of its own. "import" is what starting Python's packages costs before; "cold" the first drawing of that
process, every manifest read (the system's file cache is as it is after writing them: not dropped); "warm" the median of
five more drawings, "new item" a drawing after one more was published, "whole range" one over all that there is. "list"
is the reader alone, cold and warm. Memory is the growth of the resident set from before the first drawing to after the
last. The goal: under 3 s, cold and warm.

``--volume``: the slices of a volume of N³ voxels, 1024 unless told otherwise, float32 with the noise of a measured
one, so that it compresses as badly, and of labels of it; made slab by slab in a temporary folder, which needs 1.5 times
its size on disk for as long. "first" is the first drawing of the whole page in a process, its files dropped from the
system's cache before; for each plane then "jump", to a slice not near one seen before, files dropped; "next",
the eight slices after it, the median and the slowest; "finest", a jump with full resolution where that is not what
is shown: each is the viewer alone, reading, picture and controls, which is what a slider draws again. "read" is the
reading of the volume's and the labels' slice, files dropped, "draw" the picture. Memory is the growth of the resident
set, at its greatest, from when the first page had been drawn, as in a server that is in use. The goals: first under
2 s, next under 0.5 s, memory under 300 MiB.

``--quick`` shows that the script runs.
"""

import argparse
import datetime
import gc
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# In front of this file's folder: this file is called as the package is.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

from tomoforge.results import Table, publish
from tomoforge.storage import Workspace
from tomoforge.volumes import LABEL_NAMES, SLAB, create_volume, finish_volume, write_slab

ROOT = Path(__file__).resolve().parents[1]
ITEMS, QUICK_ITEMS = 5000, 60
GOAL_S = 3.0
SIZE, QUICK_SIZE = 1024, 96
FIRST_S, NEXT_S, MOST_MIB = 2.0, 0.5, 300
DAYS = 30


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--one-home"]:
        print(json.dumps(measure_home(Path(arguments[1]))))
        return
    if arguments[:1] == ["--one-volume"]:
        print(json.dumps(measure_volume(Path(arguments[1]))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", action="store_true")
    parser.add_argument("--volume", action="store_true")
    parser.add_argument("--size", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.home:
        home(chosen.items or (QUICK_ITEMS if chosen.quick else ITEMS))
    if chosen.volume:
        volume(chosen.size or (QUICK_SIZE if chosen.quick else SIZE))


# --- the first page -----------------------------------------------------------------------------


def home(items: int) -> None:
    """Print what the first page costs over so many items."""
    cases = (("empty", 0, 1.0), (f"over {DAYS} days", items, DAYS), ("in one night", items, 0.9))
    print("seconds by the wall, and in brackets of the processor")
    print("  ".join(f"{c:>14}" for c in ("items", "spread", *_MEASURED, "MiB")))
    for spread, number, days in cases:
        with tempfile.TemporaryDirectory() as folder:
            publish_many(Path(folder) / "published", number, days)
            found = in_a_process("--one-home", folder)
        row = [f"{found[name][0]:.2f} ({found[name][1]:.2f})" for name in _MEASURED]
        print("  ".join(f"{v:>14}" for v in (number, spread, *row, f"{found['mib']:.0f}")), flush=True)
        slowest = max(found[name][0] for name in ("cold", "warm"))
        if number and slowest > GOAL_S:
            print(
                f"the goal of {GOAL_S:g} s is missed: {slowest:.2f} s; other work on the machine counts too"
            )


_MEASURED = ("import", "list_cold", "list_warm", "cold", "warm", "new_item", "whole_range")


def measure_home(workspace: Path) -> dict[str, Any]:
    """Seconds of the first page, by the wall and of the processor, and MiB that this process grew by."""
    os.environ["TOMOFORGE_WORKSPACE"] = str(workspace)

    def load() -> None:
        importlib.import_module("streamlit.testing.v1")
        importlib.import_module("dashboard.data")

    found: dict[str, Any] = {"import": seconds(load)}
    from streamlit.testing.v1 import AppTest

    from dashboard import data, manifests

    before = resident_mib()

    def draw(**address: str) -> None:
        at = AppTest.from_file(ROOT / "dashboard" / "app.py", default_timeout=300)
        for name, value in address.items():
            at.query_params[name] = value
        at.run()
        if at.exception or any("could not be drawn" in box.value for box in at.error):
            raise SystemExit("the page could not be drawn")

    found["cold"] = seconds(draw)
    found["warm"] = median(seconds(draw) for _ in range(5))
    publish(workspace / "published", "runs", "one-more", title="One more", summary={})
    found["new_item"] = seconds(draw)
    found["whole_range"] = seconds(lambda: draw(**{"from": "2000-01-01T00:00", "to": "2100-01-01T00:00"}))
    found["mib"] = resident_mib() - before
    found["list_warm"] = median(seconds(data.listing) for _ in range(5))
    manifests.forget()
    found["list_cold"] = seconds(data.listing)
    return found


def publish_many(root: Path, items: int, days: float) -> None:
    """Publish so many results over the last ``days``, the newest a minute ago, as the flows' results look."""
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    report = Table(pd.DataFrame({name: [name] * 40 for name in _ENTRIES}), "Every entry of the inbox.")
    for n in range(items):
        moment = now - datetime.timedelta(days=days) * (1 - n / items)
        name, key = f"crystal {n // 5}", f"{n:020x}"
        warned = n % 6 == 0
        run = {
            "published_at": moment.isoformat(timespec="seconds"),
            "flow_run": f"brave-otter-{n // 25}",
            "flow": "ingest-beamline",
            "flow_run_id": f"00000000-0000-4000-8000-{n // 25:012x}",
        }
        provenance = {"code_version": key, "parameters": {f"p{k}": k * 0.5 for k in range(40)}}
        tables: dict[str, Table] = {}
        summary: dict[str, Any] = {"projections": 1800, "energy_kev": 4.0, "pixel_size_um": 0.5}
        warnings = [f"the rotation centre of {name} is uncertain by 0.5 px"] if warned else []
        kind = _KINDS[n % 5]
        sources = (
            {} if kind == "scans" else {_KINDS[n % 5 - 1][:-1]: f"{_KINDS[n % 5 - 1]}-{n - 1:020x}-00000000"}
        )
        if n % 500 == 499:
            kind, tables = "ingests", {"entries": report}
        elif n % 250 == 248:
            kind, summary = "nights", {"outcome": "refused", "reason": "crystal lost 3 points of IoU"}
        elif n % 250 == 247:
            kind, summary = "promotions", {"decision": "refused", "model": "model-1"}
        publish(
            root, kind, f"{kind}-{key}-00000000", title=f"{kind} of {name}", summary=summary, tables=tables,
            warnings=warnings, sources=sources, provenance=provenance, run=run,
        )  # fmt: skip


_KINDS = ("scans", "volumes", "segmentations", "absorption", "runs")
_ENTRIES = ("entry", "state", "rule", "reason", "remedy", "scan", "volume", "duplicate_of", "warnings")


# --- the slices of a volume ---------------------------------------------------------------------

VOLUME_KEY, LABELS_KEY = f"volume-{'1a' * 10}", f"segmentation-{'2b' * 10}"
VOLUME_ITEM, LABELS_ITEM = f"{VOLUME_KEY}-00000001", f"{LABELS_KEY}-00000002"


def volume(size: int) -> None:
    """Print what slices of a volume of so many voxels a side cost."""
    with tempfile.TemporaryDirectory() as folder:
        free, wanted = shutil.disk_usage(folder).free, 1.5 * 5 * size**3
        if free < wanted:
            raise SystemExit(f"{wanted / 1e9:.0f} GB must be free in {folder}, there are {free / 1e9:.0f}")
        started = time.perf_counter()
        store_volume(Path(folder), size)
        print(f"{size}³ written in {time.perf_counter() - started:.0f} s")
        found = in_a_process("--one-volume", folder)
    print("seconds by the wall, and in brackets of the processor")
    for name in ("import", "first", "surface"):
        print(f"{name:>8}  {found[name][0]:.2f} ({found[name][1]:.2f})")
    columns = ("level", "jump", "next", "slowest next", "finest", "read", "draw")
    print("  ".join(f"{c:>14}" for c in ("plane", *columns)))
    for plane, row in found["planes"].items():
        cells = [f"{row[c][0]:.2f} ({row[c][1]:.2f})" for c in columns[1:]]
        print("  ".join(f"{c:>14}" for c in (plane, row["level"], *cells)), flush=True)
    print(f"memory: {found['mib']:.0f} MiB at most, {found['mib_slices']:.0f} without the surface")
    slowest = max(row["slowest next"][0] for row in found["planes"].values())
    jumped = max(row["jump"][0] for row in found["planes"].values())
    for what, value, goal in (
        ("first", found["first"][0], FIRST_S),
        ("jump", jumped, FIRST_S),
        ("slowest next", slowest, NEXT_S),
        ("memory", found["mib"], MOST_MIB),
    ):
        print(f"{what}: {value:.2f}, goal {goal:g}: {'met' if value < goal else 'MISSED'}")


def store_volume(root: Path, size: int) -> None:
    """A volume and its labels as artefacts of a workspace, and both published."""
    workspace, voxel = Workspace(root), 0.5e-6
    noise = np.random.default_rng(1).normal(0, 300, (SLAB, size, size)).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    radius = np.hypot(x, y)

    def slab(start: int, thick: int) -> np.ndarray:
        """(z, y, x) uint8: a cone of liquor in a ring of loop, a crystal within."""
        wide = size * (0.2 + 0.2 * start / size)
        one = np.zeros((size, size), np.uint8)
        one[radius < wide] = 1
        one[np.abs(radius - wide) < size / 100] = 2
        one[(np.abs(x + 0.2 * y) < wide / 3) & (np.abs(y) < wide / 2)] = 3
        return np.broadcast_to(one, (thick, size, size))

    mu = np.array([0, 4000, 3000, 6000], np.float32)
    for kind, key, name in (
        ("volumes", VOLUME_KEY, "volume.ome.zarr"),
        ("labels", LABELS_KEY, "labels.ome.zarr"),
    ):
        with workspace.draft(kind, key) as draft:
            path, shape = draft.path / name, (size, size, size)
            if kind == "volumes":
                create_volume(path, shape, voxel)
            else:
                create_volume(path, shape, voxel, dtype="uint8", label_names=LABEL_NAMES)
            for start in range(0, size, SLAB):
                labels = slab(start, min(SLAB, size - start))
                write_slab(path, start, mu[labels] + noise[: len(labels)] if kind == "volumes" else labels)
            finish_volume(path)
            workspace.commit(draft, kind, {"stage": key.split("-")[0], "inputs": {}})
    published = workspace.folder("published")
    publish(published, "volumes", VOLUME_ITEM, title="Large", summary={"voxel_size_um": 0.5})
    publish(
        published, "segmentations", LABELS_ITEM, title="Large", summary={}, sources={"volume": VOLUME_ITEM}
    )


_VIEWER = """
import time
import streamlit as st
from dashboard import data
from dashboard.scan_parts import parts_of
from dashboard.scan_viewer import show_viewer
listed = data.listing()
parts = parts_of(listed.find("{item}"), listed)
wall, processor = time.perf_counter(), time.process_time()
show_viewer(parts)
st.session_state["took"] = time.perf_counter() - wall, time.process_time() - processor
"""


def measure_volume(workspace: Path) -> dict[str, Any]:
    """Seconds of the slices' page and MiB that this process grew by, plane by plane."""
    os.environ["TOMOFORGE_WORKSPACE"] = str(workspace)

    def load() -> None:
        importlib.import_module("streamlit.testing.v1")
        importlib.import_module("dashboard.scan_viewer")

    found: dict[str, Any] = {"import": seconds(load)}
    from streamlit.testing.v1 import AppTest

    from dashboard import data
    from dashboard.artefacts import find_artefact
    from dashboard.slice_viewer import Axis, Overlay, picture
    from dashboard.volume_slices import AXES, level_for, open_volume, read_slice

    def page() -> None:
        """The whole page, as it is opened."""
        at = AppTest.from_file(ROOT / "dashboard" / "app.py", default_timeout=300)
        at.switch_page("stages/scan.py")
        at.query_params["kind"] = "segmentations"
        drawn(at)

    AppTest.from_file(ROOT / "dashboard" / "app.py", default_timeout=300).run()

    viewer = AppTest.from_string(_VIEWER.format(item=LABELS_ITEM), default_timeout=300)

    def draw(**address: str) -> tuple[float, float]:
        """Seconds of the viewer alone, which is what a slider draws again."""
        viewer.query_params.clear()
        for name, value in address.items():
            viewer.query_params[name] = value
        drawn(viewer)
        gc.collect()  # AppTest holds what it drew in circles, pictures and all; a server does not
        wall, processor = viewer.session_state["took"]
        return wall, processor

    def drawn(at: AppTest) -> None:
        at.run()
        shown = sum(len(at.get(kind)) for kind in ("image", "imgs", "plotly_chart"))
        if at.exception or at.error or at.warning or not shown:
            boxes = [box.value for box in (*at.error, *at.warning, *at.caption)]
            raise SystemExit(f"the page could not be drawn: {boxes} {at.exception}")

    with Growth() as growth:
        forget_files(workspace)
        found["first"] = seconds(page)
        listed = data.listing()
        items = [listed.find(name) for name in (VOLUME_ITEM, LABELS_ITEM)]
        stored = [
            open_volume(find_artefact(item), name)
            for item, name in zip(items, ("volume.ome.zarr", "labels.ome.zarr"), strict=True)
            if item is not None
        ]
        found["planes"] = {}
        for axis, plane in enumerate(AXES):
            size = stored[0].shape[axis]
            row: dict[str, Any] = {"level": level_for(stored[0], axis)}
            finest = level_for(stored[0], axis, finest=True)
            forget_files(workspace)
            row["jump"] = draw(plane=plane, **{plane: str(size // 4)})
            following = [draw(plane=plane, **{plane: str(size // 4 + n)}) for n in range(1, 9)]
            row["next"], row["slowest next"] = median(following), max(following)
            row["finest"] = (float("nan"), float("nan"))
            if finest != row["level"]:
                forget_files(workspace)
                row["finest"] = draw(plane=plane, full="1", **{plane: str(size // 3)})
            forget_files(workspace)
            cuts: list[Any] = []
            row["read"] = seconds(
                lambda a=axis, n=size // 5, level=row["level"], to=cuts: to.extend(
                    read_slice(one, a, n, level) for one in stored
                )
            )
            overlay = Overlay(cuts[1].values, stored[1].colours, {3: "crystal"}, 0.2)
            ends = Axis("y", "µm", 0, 512), Axis("x", "µm", 0, 512)
            row["draw"] = seconds(
                lambda c=cuts, o=overlay, e=ends: picture(
                    c[0].values, 0, 6000, down=e[0], across=e[1], quantity="µ", overlay=o
                )
            )
            found["planes"][plane] = row
        found["mib_slices"] = growth.most()
        found["surface"] = draw(view="surface")
        found["mib"] = growth.most()
    return found


class Growth:
    """The most that this process grew by [MiB] since the block began, looked at every 20 ms."""

    def __enter__(self) -> "Growth":
        self._before = self._most = resident_mib()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._ended.set()
        self._thread.join()

    def most(self) -> float:
        """So far."""
        return max(self._most, resident_mib()) - self._before

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self._most = max(self._most, resident_mib())


def forget_files(root: Path) -> None:
    """Drop the files under ``root`` from the system's cache, so that reading them costs what it does in the morning."""
    for file in root.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


# --- shared by the parts ------------------------------------------------------------------------


def in_a_process(*arguments: str) -> dict[str, Any]:
    """What a fresh process of this script prints as JSON in its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Of one call: the wall's and the processor's time [s]; the latter is what to compare on a busy machine."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def median(times: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The median of each of the two."""
    walls, processors = zip(*times, strict=True)
    return statistics.median(walls), statistics.median(processors)


def resident_mib() -> float:
    """Memory of this process that is in use now [MiB]."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:  # no Linux: the largest it ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main(sys.argv[1:])
