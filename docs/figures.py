"""``make figures``: the README's picture, from the newest forged run in the workspace (made first if there is none)."""

import subprocess
import sys
from pathlib import Path

from tomoforge.results import Published, list_published
from tomoforge.storage import Workspace, write_bytes_atomic

FIGURES = Path(__file__).parent / "figures"


def newest_overview() -> bytes | None:
    """The overview picture of the newest forged run that is published."""
    for entry in list_published(Workspace.default().root / "published", "runs"):
        if isinstance(entry, Published) and "overview" in entry.pictures:
            return (entry.folder / entry.pictures["overview"][0]).read_bytes()
    return None


def main() -> int:
    """Write docs/figures/overview.png; returns the exit status."""
    picture = newest_overview()
    if picture is None:
        subprocess.run([sys.executable, "-m", "flows", "end_to_end"], check=True)
        picture = newest_overview()
    if picture is None:
        print("error: the run published no overview picture", file=sys.stderr)
        return 1
    write_bytes_atomic(FIGURES / "overview.png", picture)
    print(FIGURES / "overview.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
