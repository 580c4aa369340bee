"""Who may act: a person who is known by name. Everybody else may look.

Three ways to be known, the first that is configured counts and no other: the header of a reverse proxy, Streamlit's own
sign-in (OIDC), or, where neither is set up, one local person on this very machine.
"""

import ipaddress
import logging
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st
from streamlit.auth_util import get_secrets_auth_section, is_authlib_installed

from dashboard.vocabulary import literal

log = logging.getLogger(__name__)

HEADER_SETTING = "TOMOFORGE_DASHBOARD_USER_HEADER"
LOCAL_SETTING = "TOMOFORGE_DASHBOARD_LOCAL_USER"
# What a proxy adds: a request that came through one is not of this machine, wherever the proxy runs.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
_LOCAL_NAMES = ("localhost", "ip6-localhost")
_MOST_LETTERS = 200

Way = Literal["proxy", "sign-in", "local"]


@dataclass(frozen=True)
class Person:
    """Who acts. name : as records keep it; way : how it is known."""

    name: str
    way: Way


@dataclass(frozen=True)
class Access:
    """person : None for one who may only look; why_not : the sentence that says what to do about that; can_sign_in :
    whether a button would help."""

    person: Person | None
    why_not: str = ""
    can_sign_in: bool = False


def access() -> Access:
    """Who is looking at this page, asked anew on each run."""
    header = os.environ.get(HEADER_SETTING, "").strip()
    if header:
        return _by_proxy(header, st.context.headers.get_all(header))
    if get_secrets_auth_section():
        return _by_sign_in(_claims())
    local = os.environ.get(LOCAL_SETTING, "").strip()
    if local:
        return _local(local, dict(st.context.headers), str(st.get_option("server.address") or ""))
    return Access(
        None,
        "You can look at everything; to act, you must be known by name, and no sign-in is set up. Set it up in "
        f".streamlit/secrets.toml under [auth], name a proxy's header in {HEADER_SETTING}, or, working alone on this "
        f"machine, start the dashboard with {LOCAL_SETTING}=your name.",
    )


def show_access(found: Access) -> None:
    """Who is signed in, with the button for more or less of it."""
    if found.person is not None:
        how = {"proxy": "signed in by the proxy", "sign-in": "signed in", "local": "on this machine alone"}
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.caption(
            f":material/person: You act as **{literal(found.person.name)}** ({how[found.person.way]}). What you decide "
            "is recorded under this name for good."
        )
        if found.person.way == "sign-in":
            right.button("Sign out", on_click=st.logout, width="stretch")
        return
    st.caption(f":material/lock: {literal(found.why_not)}")
    if found.can_sign_in:
        for provider in _providers():
            text = f"Sign in with {provider}" if provider else "Sign in"
            st.button(
                literal(text),
                on_click=st.login,
                args=(provider,) if provider else (),
                icon=":material/login:",
            )


def said_name(text: Any) -> str:
    """A name as records keep it: one line of printable letters, none if there is nothing of it."""
    if not isinstance(text, str):
        return ""
    line = "".join(" " if c.isspace() else c for c in unicodedata.normalize("NFC", text))
    # Control and format characters would hide or reorder what stands beside them.
    line = "".join(c for c in line if unicodedata.category(c)[0] != "C")
    return " ".join(line.split())[:_MOST_LETTERS]


# --- the three ways -------------------------------------------------------------------------------------


def _by_proxy(header: str, values: Sequence[str]) -> Access:
    names = [name for name in (said_name(value) for value in values) if name]
    if len(values) > 1:
        # One from the proxy and one from the browser cannot be told apart.
        log.warning("%d values of the header %s: nobody is taken for signed in", len(values), header)
        return Access(
            None,
            f"The header {header} came more than once; the proxy must replace it. You can look at everything.",
        )
    if not names:
        return Access(
            None,
            f"You can look at everything. To act, come by the address of the proxy that signs you in; this request "
            f"has no header {header}.",
        )
    return Access(Person(names[0], "proxy"))


def _by_sign_in(claims: Mapping[str, Any]) -> Access:
    if not is_authlib_installed():
        return Access(
            None, "Sign-in is set up, but Authlib is not installed: pip install 'tomoforge[sign-in]'."
        )
    if not claims.get("is_logged_in"):
        return Access(None, "You can look at everything; sign in to act.", can_sign_in=True)
    name = _identity(claims)
    if not name:
        return Access(
            None, "Your sign-in gives neither an address nor a name, so nothing can be recorded of you."
        )
    return Access(Person(name, "sign-in"))


def _identity(claims: Mapping[str, Any]) -> str:
    """``name <address>``, as far as the provider vouches for it; its subject where there is no address.

    A name alone is what a person typed somewhere, so it never stands alone.
    """
    verified = claims.get("email_verified") not in (False, "false")
    address = said_name(claims.get("email")) if verified else ""
    mark = address or said_name(claims.get("preferred_username")) or said_name(claims.get("sub"))
    name = re.sub(r"[<>]", "", said_name(claims.get("name")))
    if not mark:
        return ""
    return said_name(f"{name} <{mark}>") if name and name != mark else mark


def _local(name: str, headers: Mapping[str, str], address: str) -> Access:
    who = said_name(name)
    if not who:
        return Access(None, f"{LOCAL_SETTING} holds no name.")
    lowered = {key.lower(): value for key, value in headers.items()}
    if not _is_loopback(address):
        reason = "the dashboard listens beyond this machine"
    elif any(key in lowered for key in _FORWARDED):
        reason = "this request came through a proxy"
    elif "host" in lowered and not _is_loopback(_host(lowered["host"])):
        reason = "this request is addressed to another machine"
    else:
        return Access(Person(who, "local"))
    return Access(
        None,
        f"You can look at everything. {LOCAL_SETTING} counts on this machine alone, and {reason}; set up a sign-in.",
    )


def _claims() -> Mapping[str, Any]:
    return dict(st.user)


def _providers() -> list[str]:
    """Names of the providers in [auth], an empty one for the only one without a name."""
    section = get_secrets_auth_section()
    named = [str(name) for name, value in section.items() if isinstance(value, Mapping)]
    return ([""] if "client_id" in section else []) + named


def _host(value: str) -> str:
    """The host of ``host:port`` or ``[address]:port``."""
    found = re.fullmatch(r"\[(?P<six>[^\]]*)\](?::\d*)?|(?P<four>[^:]*)(?::\d*)?", value.strip())
    return (found["six"] or found["four"] or "") if found else ""


def _is_loopback(host: str) -> bool:
    if host.lower() in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
