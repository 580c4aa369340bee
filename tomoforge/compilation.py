"""How kernels are compiled: once, kept on disk where the disk allows it.

Kernels that call each other live in one file: numba's cache notices a change in the file of the function
it compiled, not in the files of the functions that one calls.
"""

import logging
from collections.abc import Callable
from typing import Any

import numba

_log = logging.getLogger(__name__)


def compiled(
    *, parallel: bool = False, inline: bool = False, reassociate: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: ``numba.njit`` with a cache on disk, or without one where no folder can be written.

    numba looks beside the source, then in the user's cache folder (``NUMBA_CACHE_DIR`` overrides); on a
    read-only installation without a home it raises at import, and compiling anew each time is better
    than not starting. ``fastmath`` stays off: axis-parallel rays need infinities to behave. With ``reassociate``
    sums may be reordered and products fused, once, when the kernel is compiled: its bytes are as steady as before.
    """
    options: dict[str, Any] = {"nogil": True, "parallel": parallel}
    if inline:
        options["inline"] = "always"
    if reassociate:
        options["fastmath"] = {"reassoc", "contract", "nsz"}

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            _log.info("%s is compiled anew in each process: %s", function.__name__, error)
            return numba.njit(**options)(function)

    return decorate
