"""Find scans that kill whoever opens them, before anyone important does.

HDF5 trusts its files: some damaged ones end the process by a signal or keep it busy for ever, which no exception
can tell (HDF5 2.0: 3 of 500 small NXtomo files with four bytes changed at random). A folder that anyone may write
to is therefore tried in a process of its own first.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from tomoforge.errors import StageError, WorkerDiedError
from tomoforge.process import run_worker

logger = logging.getLogger(__name__)

_WORKER = "tomoforge.beamline.opening_worker"
_START_S = 60.0  # for the imports, on a busy machine


def fatal_scans(
    paths: Sequence[str | Path], *, root: str | Path | None = None, timeout_s: int = 60
) -> dict[Path, str]:
    """Which of ``paths`` end or hang the process that opens them and reads three of their frames.

    Parameters
    ----------
    paths : scans, as for ``read_scan``; one process tries them all, so start-up is paid once
    root : as for ``read_scan``
    timeout_s : int [s], for each scan

    Returns
    -------
    fatal : reason for each such scan, as "opening it ends the process by SIGSEGV". Scans that are merely refused
        are not among them: ``read_scan`` says why.

    Raises
    ------
    StageError
        If the trial itself cannot be run.
    """
    waiting = [Path(path) for path in paths]
    fatal: dict[Path, str] = {}
    while waiting:
        begun: list[int] = []

        def follow(line: str, begun: list[int] = begun) -> None:
            match = re.fullmatch(r"opening (\d+)", line)
            if match:
                begun.append(int(match.group(1)))

        arguments = ["" if root is None else str(root), str(timeout_s), *map(str, waiting)]
        try:
            run_worker(_WORKER, arguments, timeout_s=_START_S + timeout_s * len(waiting), on_line=follow)
            break
        except WorkerDiedError as error:
            if not begun:
                raise StageError(
                    f"the trial of {len(waiting)} scans died before the first: {error}"
                ) from error
            culprit = waiting[begun[-1]]
            signal = re.search(r"signal (SIG[A-Z]+)", str(error))
            hung = signal is None or signal.group(1) == "SIGALRM"
            fatal[culprit] = (
                f"opening it takes longer than {timeout_s} s"
                if hung
                else f"opening it ends the process by {signal.group(1) if signal else '?'}"
            )
            logger.warning("%s: %s", culprit, fatal[culprit])
            waiting = waiting[begun[-1] + 1 :]
    return fatal
