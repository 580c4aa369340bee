"""What the viewer shows, kept in the address: a link opens the same plane, slice, window and labels.

The address is where the state lies; a widget shows it and, when it is moved, writes it. What comes from there is
parsed, held within its bounds, or left alone: it is never a path and never a name that is not listed.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st

Value = TypeVar("Value")

# All parameters of the viewer; with ``kind`` and ``item`` they are the whole address of the page.
NAMES = (
    *("view", "image", "plane", "z", "y", "x", "low", "high", "full"),
    *("labels", "opacity", "contours", "shot", "row"),
)
_KEPT = "viewer-address"


def recall() -> None:
    """Take the address for what it says: whoever came by a link starts from there alone."""
    st.session_state[_KEPT] = {name: st.query_params[name][:200] for name in NAMES if name in st.query_params}


def choice(name: str, options: Sequence[str], default: str) -> str:
    """The parameter's value if it is one of ``options``, else ``default``."""
    text = _text(name)
    return text if text is not None and text in options else default


def whole(name: str, least: int, most: int, default: int) -> int:
    """The parameter as a whole number within its bounds, ``default`` if it is none."""
    text = (_text(name) or "")[:20]
    try:
        return min(max(int(text), least), most)
    except ValueError:
        return default


def number(name: str, default: float) -> float:
    """The parameter as a finite number, ``default`` if it is none."""
    try:
        found = float((_text(name) or "")[:40])
    except ValueError:
        return default
    return found if math.isfinite(found) else default


def switch(name: str, default: bool) -> bool:
    """The parameter as yes (1) or no (0)."""
    return {"1": True, "0": False}.get(_text(name) or "", default)


def shown(key: str, value: Value) -> str:
    """Make the widget ``key`` show ``value``, which the address says; return the key."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value
    return key


def writer(name: str, key: str, default: object) -> Callable[[], None]:
    """What a widget's change does: its value is written into the address, or taken out if it is ``default``."""

    def write() -> None:
        value = st.session_state[key]
        put({name: None if value is None or value == default else _as_text(value)})

    return write


def put(changes: dict[str, str | None]) -> None:
    """Write parameters into the address at once; None takes one out.

    All that were written before are written again: a second change may come with an address from before the first.
    """
    kept: dict[str, str] = st.session_state.setdefault(_KEPT, {})
    for name, text in changes.items():
        if text is None:
            kept.pop(name, None)
        else:
            kept[name] = text
    others = {name: st.query_params[name] for name in st.query_params if name not in NAMES}
    st.query_params.from_dict({**others, **kept})


def _text(name: str) -> str | None:
    text = st.query_params.get(name)
    kept: dict[str, str] = st.session_state.setdefault(_KEPT, {})
    if text is None:
        kept.pop(name, None)
    else:
        kept[name] = text[:200]
    return text


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
