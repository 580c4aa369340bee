"""Choices that live in the address: what a page shows can be sent to a colleague.

What comes from the address is only compared with the options there are; anything else means the default.
"""

from collections.abc import Callable, Sequence

import streamlit as st

_SEPARATOR = "~"  # in no identifier and no name of a column


def choose_one(
    title: str,
    options: Sequence[str],
    parameter: str,
    *,
    words: Callable[[str], str] = str,
    help: str | None = None,
) -> str:
    """One of ``options``, by a selector; the first where the address names none. ``words`` says an option."""
    current = _of_address(options, parameter)
    key = _key("one", parameter, options, current)

    def changed() -> None:
        _remember(parameter, st.session_state[key], options[0])

    st.selectbox(
        title,
        options,
        index=options.index(current),
        format_func=words,
        key=key,
        on_change=changed,
        help=help,
    )
    return current


def switch(title: str, options: Sequence[str], parameter: str, *, words: Callable[[str], str] = str) -> str:
    """One of a few ``options``, all to be seen at once; the first where the address names none."""
    current = _of_address(options, parameter)
    key = _key("switch", parameter, options, current)

    def changed() -> None:
        _remember(parameter, st.session_state[key], options[0])

    st.segmented_control(
        title, options, default=current, required=True, format_func=words, key=key, on_change=changed
    )
    return current


def choose_many(
    title: str,
    options: Sequence[str],
    parameter: str,
    *,
    first: int,
    words: Callable[[str], str] = str,
) -> list[str]:
    """Some of ``options``, in their order; the ``first`` of them where the address names none."""
    named = set(st.query_params.get(parameter, "").split(_SEPARATOR))
    current = [option for option in options if option in named] or list(options[:first])
    key = _key("many", parameter, options, _SEPARATOR.join(current))

    def changed() -> None:
        _remember(parameter, _SEPARATOR.join(st.session_state[key]), _SEPARATOR.join(options[:first]))

    st.multiselect(title, options, default=current, format_func=words, key=key, on_change=changed)
    return current


def _of_address(options: Sequence[str], parameter: str) -> str:
    wanted = st.query_params.get(parameter, "")
    return wanted if wanted in options else options[0]


def _remember(parameter: str, value: str, default: str) -> None:
    """Into the address what is not the default; the shorter address is the easier one to send."""
    if value == default:
        st.query_params.pop(parameter, None)
    else:
        st.query_params[parameter] = value


def _key(kind: str, parameter: str, options: Sequence[str], current: str) -> str:
    # The key holds the address's choice: a changed address makes a new widget that shows it.
    return f"choice-{kind}-{parameter}-{hash(tuple(options))}-{current}"
