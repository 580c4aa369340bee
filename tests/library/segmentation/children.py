"""Child processes that share nothing with the test but the disk."""

import os
import signal
import traceback
from collections.abc import Callable

from tomoforge.segmentation.audit import AliasMovedError

LATE = 3  # exit status of a child that found the alias moved


def start(job: Callable[[], object]) -> int:
    """Run ``job`` in a child process. Forked, since importing MLflow takes each new process seconds; the registry
    must not be open in the parent, SQLite forbids to carry one over."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        job()
        status = 0
    except AliasMovedError:
        status = LATE
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """How the child ended: exit status, or the signal's number, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*arguments: object, **named: object) -> None:
    """``kill -9`` of this process."""
    os.kill(os.getpid(), signal.SIGKILL)
