"""``make figures``: the README's pictures, from the newest runs in the workspace (made first where there is none)."""

import io
import subprocess
import sys
from pathlib import Path

from PIL import Image

from docs.dashboard_pictures import dashboard_pictures
from tomoforge.results import Published, list_published
from tomoforge.storage import Workspace, write_bytes_atomic

FIGURES = Path(__file__).parent / "figures"


def main() -> int:
    """Write overview.png, samples.png and dashboard_*.png under docs/figures; returns the exit status."""
    wanted = (
        ("overview.png", "runs", "overview", ["end_to_end"]),
        (
            "samples.png",
            "sample_sets",
            "contact_sheet",
            ["forge_samples", "--grid", "256", "--voxel-size-um", "1.25"],
        ),
    )
    for file, kind, name, flow in wanted:
        picture = newest(kind, name)
        if picture is None:
            subprocess.run([sys.executable, "-m", "flows", *flow], check=True)
            picture = newest(kind, name)
        if picture is None:
            print(f"error: no {kind} with the picture {name} was published", file=sys.stderr)
            return 1
        write_bytes_atomic(FIGURES / file, few_colours(picture))
        print(FIGURES / file)
    try:
        pictures = dashboard_pictures(Workspace.default().root)
    except RuntimeError as error:
        print(f"error: no pictures of the dashboard: {error}", file=sys.stderr)
        return 1
    for file, picture in pictures.items():
        write_bytes_atomic(FIGURES / file, few_colours(picture))
        print(FIGURES / file)
    return 0


def newest(kind: str, name: str) -> bytes | None:
    """The picture ``name`` of the newest published result of a kind."""
    for entry in list_published(Workspace.default().root / "published", kind):
        if isinstance(entry, Published) and name in entry.pictures:
            return (entry.folder / entry.pictures[name][0]).read_bytes()
    return None


def few_colours(picture: bytes) -> bytes:
    """The PNG with 256 colours: a third of the size, and no difference to the eye."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
            buffer, "PNG", optimize=True
        )
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
