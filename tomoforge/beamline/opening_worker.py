"""Open scans one after another in a process that may die of it: ``opening.fatal_scans`` runs this.

Arguments: root (empty for none), seconds for each scan, paths.
"""

import logging
import signal
import sys

from tomoforge.beamline import read_scan
from tomoforge.process import die_with_parent


def main(arguments: list[str]) -> None:
    """Try each path; say which before it may be too late to say it."""
    die_with_parent()
    logging.disable(logging.CRITICAL)
    root, timeout_s, *paths = arguments
    for index, path in enumerate(paths):
        print(f"opening {index}", flush=True)
        # Left to its default action, which is the kernel's and ends a loop inside HDF5 too.
        signal.alarm(int(timeout_s))
        try:
            scan = read_scan(
                path, energy_kev=1.0, pixel_size_um=1.0, allow_missing=("flats", "darks"), root=root or None
            )
            for frame in (0, scan.projections.shape[0] // 2, -1):
                scan.projections[frame]
        except Exception:
            pass  # what Python can catch, the caller meets and reports itself
        signal.alarm(0)


if __name__ == "__main__":
    main(sys.argv[1:])
