"""Links between HDF5 files: followed inside one folder, through several levels, and never out of it."""

import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.library.beamline.nxtomo_files import COLUMNS, KEYS, ROWS, angles_deg, frames, write
from tomoforge.beamline import read_nxtomo, read_scan
from tomoforge.beamline.links import LinkedFile
from tomoforge.errors import ScanError
from tomoforge.scan import write_frame_batch

DATA = "instrument/detector/data"


def raw(path: Path, name: str = "frames") -> Path:
    """A file that holds nothing but the frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = frames()
    return path


def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def virtual(path: Path, source: str) -> Path:
    """A scan whose frames are a virtual dataset over the file ``source``."""
    write(path, {DATA: None})
    layout = h5py.VirtualLayout((KEYS.size, ROWS, COLUMNS), dtype="uint16")
    layout[:] = h5py.VirtualSource(source, "frames", shape=layout.shape)[:]
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector"].create_virtual_dataset("data", layout)
    return path


@pytest.mark.parametrize("kind", ["link", "virtual"])
@pytest.mark.parametrize("way", ["dots", "absolute", "symlink", "symlinked folder"])
def test_read_nxtomo__nothing_leads_out_of_the_folder(tmp_path: Path, kind: str, way: str) -> None:
    folder = inbox(tmp_path)
    outside = raw(tmp_path / "secret" / "raw.h5")
    name = {"dots": "../secret/raw.h5", "absolute": str(outside), "symlink": "here.h5",
            "symlinked folder": "there/raw.h5"}[way]  # fmt: skip
    if way == "symlink":
        (folder / name).symlink_to(outside)
    if way == "symlinked folder":
        (folder / "there").symlink_to(outside.parent)
    path = folder / "a.nxs"
    if kind == "link":
        write(path, {DATA: h5py.ExternalLink(name, "/frames")})
    else:
        virtual(path, name)
    with pytest.raises(ScanError) as caught:
        read_nxtomo(path)
    message = str(caught.value)
    for part in (
        "/entry/instrument/detector/data",
        name,
        f"outside root {folder}",
        "copy that file",
        "root=",
    ):
        assert part in message
    # The caller may widen the folder, and then all of them are read.
    np.testing.assert_array_equal(read_scan(path, root=tmp_path).projections[:], frames()[5:])


def test_read_nxtomo__dots_that_come_back_in_are_no_trick(tmp_path: Path) -> None:
    folder = inbox(tmp_path)
    raw(folder / "raw.h5")
    path = write(folder / "a.nxs", {DATA: h5py.ExternalLink("../inbox/raw.h5", "/frames")})
    np.testing.assert_array_equal(read_nxtomo(path).projections[:], frames()[5:])


def test_read_nxtomo__a_moved_absolute_link_is_found_beside_the_file(tmp_path: Path) -> None:
    folder = inbox(tmp_path)
    raw(folder / "raw.h5")
    path = write(folder / "a.nxs", {DATA: h5py.ExternalLink("/beamline/2014/raw.h5", "/frames")})
    assert read_nxtomo(path).projections.path == str(folder / "raw.h5")  # type: ignore[attr-defined]


def test_read_nxtomo__links_through_several_files(tmp_path: Path) -> None:
    raw(tmp_path / "deep" / "er" / "raw.h5")
    with h5py.File(tmp_path / "deep" / "middle.h5", "w") as file:
        file["soft"] = h5py.SoftLink("/hop")
        file["hop"] = h5py.ExternalLink("er/raw.h5", "/frames")  # relative to the file it stands in
    path = write(tmp_path / "a.nxs", {DATA: h5py.ExternalLink("deep/middle.h5", "/soft")})
    scan = read_nxtomo(path)
    assert scan.projections.path == str(tmp_path / "deep" / "er" / "raw.h5")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(scan.projections[:], frames()[5:])
    (tmp_path / "deep" / "er" / "raw.h5").unlink()
    with pytest.raises(ScanError, match=r"no frames.*data -> deep/middle\.h5:/soft"):
        read_nxtomo(path)


def test_read_nxtomo__a_second_link_cannot_lead_out_either(tmp_path: Path) -> None:
    folder = inbox(tmp_path)
    raw(tmp_path / "raw.h5")
    with h5py.File(folder / "middle.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("../raw.h5", "/frames")
    write(folder / "a.nxs", {DATA: h5py.ExternalLink("middle.h5", "/frames")})
    virtual(folder / "b.nxs", "middle.h5")
    for name in ("a.nxs", "b.nxs"):
        with pytest.raises(ScanError, match=r"the link /frames leads to \.\./raw\.h5, which is outside"):
            read_nxtomo(folder / name)


def test_read_nxtomo__the_whole_entry_may_be_linked(tmp_path: Path) -> None:
    write(tmp_path / "raw.nxs")
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["scan0001"] = h5py.ExternalLink("raw.nxs", "/entry")
    np.testing.assert_array_equal(read_nxtomo(tmp_path / "master.h5").projections[:], frames()[5:])


def test_read_nxtomo__circles_of_links_end(tmp_path: Path) -> None:
    change = {DATA: h5py.SoftLink("/entry/instrument/detector/other"),
              "instrument/detector/other": h5py.SoftLink("/entry/instrument/detector/data")}  # fmt: skip
    with pytest.raises(ScanError, match="no frames"):
        read_nxtomo(write(tmp_path / "a.nxs", change))


def test_read_nxtomo__raw_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\1" * frames().nbytes)
    path = write(tmp_path / "a.nxs", {DATA: None})
    with h5py.File(path, "a") as file:
        where = [(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
        file["entry/instrument/detector"].create_dataset("data", frames().shape, "u2", external=where)
    with pytest.raises(ScanError, match=r"data keeps its values in raw files \(.*secret\.bin\).*h5repack"):
        read_nxtomo(path)


def test_read_nxtomo__links_that_are_not_needed_are_not_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"monitor": h5py.ExternalLink("/etc/passwd", "/x")})
    assert read_nxtomo(path).projections.shape == (12, ROWS, COLUMNS)


def test_read_nxtomo__a_pipe_beside_the_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    path = write(tmp_path / "a.nxs", {DATA: h5py.ExternalLink("pipe.h5", "/frames")})
    with pytest.raises(ScanError, match=r"data -> pipe\.h5:/frames"):
        read_nxtomo(path)


def test_read_nxtomo__sources_may_be_more_than_files_may_be_open(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {DATA: None})
    layout = h5py.VirtualLayout((KEYS.size, ROWS, COLUMNS), dtype="uint16")
    for number, frame in enumerate(frames()):
        write_frame_batch(tmp_path / f"{number}.h5", frame[None])
        layout[number : number + 1] = h5py.VirtualSource(f"{number}.h5", "frames", shape=(1, ROWS, COLUMNS))[
            :
        ]
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector"].create_virtual_dataset("data", layout)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, limits[1]))
    try:
        with LinkedFile(path) as linked:
            assert linked.broken_sources(linked.file["entry/instrument/detector/data"]) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_read_scan__the_file_itself_lies_inside_root(tmp_path: Path) -> None:
    folder = inbox(tmp_path)
    (folder / "a.nxs").symlink_to(write(tmp_path / "elsewhere.nxs"))
    with pytest.raises(
        ScanError, match=r"a\.nxs really lies at .*elsewhere\.nxs, outside root .*; copy the file"
    ):
        read_scan(folder / "a.nxs", root=folder)
    assert read_scan(folder / "a.nxs").name == "a"  # named by the caller, who may mean it


def test_dangling__names_each_with_its_target(tmp_path: Path) -> None:
    write_frame_batch(tmp_path / "there.h5", frames())
    change = {
        DATA: h5py.ExternalLink("there.h5", "/frames"),
        "a": h5py.ExternalLink("gone.h5", "/x"),
        "b/c": h5py.SoftLink("/nowhere"),
        "d": h5py.ExternalLink("../out.h5", "/x"),
        "sample/rotation_angle": (angles_deg(), "degree"),
    }
    with LinkedFile(write(tmp_path / "a.nxs", change)) as linked:
        assert linked.dangling(linked.file["/"]) == [
            "/entry/a -> gone.h5:/x",
            "/entry/b/c -> /nowhere",
            f"/entry/d -> ../out.h5:/x (out of {tmp_path})",
        ]
