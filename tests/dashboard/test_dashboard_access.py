"""Who may act: the ways to be known by name, and the ways to pretend that do not work."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.runtime.context import StreamlitHeaders

from dashboard import access as module
from dashboard.access import HEADER_SETTING, LOCAL_SETTING, Person, access, said_name

Ask = Callable[..., module.Access]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Who a request with these headers, claims and settings is taken for."""
    for name in (HEADER_SETTING, LOCAL_SETTING):
        monkeypatch.delenv(name, raising=False)

    def asked(
        headers: Mapping[str, str] | list[tuple[str, str]] = (),
        *,
        auth: Mapping[str, Any] | None = None,
        user: Mapping[str, Any] | None = None,
        address: str = "127.0.0.1",
        **settings: str,
    ) -> module.Access:
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        fake = SimpleNamespace(
            context=SimpleNamespace(headers=StreamlitHeaders(pairs)),
            get_option=lambda name: address,
            user=dict(user or {}),
        )
        monkeypatch.setattr(module, "st", fake)
        monkeypatch.setattr(module, "get_secrets_auth_section", lambda: dict(auth or {}))
        monkeypatch.setattr(module, "is_authlib_installed", lambda: True)
        for name, value in settings.items():
            monkeypatch.setenv(f"TOMOFORGE_DASHBOARD_{name}", value)
        return access()

    return asked


def test_access__nobody_may_act_until_it_is_set_up(ask: Ask) -> None:
    found = ask({"X-Forwarded-User": "ada", "Remote-User": "ada"}, user={"email": "ada@example.org"})
    assert found.person is None
    assert "no sign-in is set up" in found.why_not and LOCAL_SETTING in found.why_not


def test_access__a_proxys_header_counts_where_it_is_named(ask: Ask) -> None:
    found = ask({"x-forwarded-user": " Ada  Lovelace "}, USER_HEADER="X-Forwarded-User")
    assert found.person == Person("Ada Lovelace", "proxy")
    assert ask({"X-Other": "ada"}, USER_HEADER="X-Forwarded-User").person is None


@pytest.mark.parametrize("value", ["", "   ", "\u202e\u200b", "\x00"])
def test_access__a_header_without_a_name_is_nobody(ask: Ask, value: str) -> None:
    assert ask({"X-Forwarded-User": value}, USER_HEADER="X-Forwarded-User").person is None


def test_access__a_header_that_came_twice_is_nobodys(ask: Ask) -> None:
    twice = [("X-Forwarded-User", "mallory"), ("X-Forwarded-User", "ada")]
    found = ask(twice, USER_HEADER="X-Forwarded-User")
    assert found.person is None and "more than once" in found.why_not


def test_access__with_a_proxy_nothing_else_counts(ask: Ask) -> None:
    found = ask({}, USER_HEADER="X-Forwarded-User", LOCAL_USER="ada", auth={"client_id": "x"})
    assert found.person is None and "comes" not in found.why_not
    assert not found.can_sign_in


def test_access__sign_in_names_the_address_that_the_provider_vouches_for(ask: Ask) -> None:
    auth = {"client_id": "x"}
    signed = {"is_logged_in": True, "name": "Ada Lovelace", "sub": "42"}
    assert ask(auth=auth, user={**signed, "email": "ada@example.org"}).person == Person(
        "Ada Lovelace <ada@example.org>", "sign-in"
    )
    unverified = {**signed, "email": "grace@example.org", "email_verified": False}
    assert ask(auth=auth, user=unverified).person == Person("Ada Lovelace <42>", "sign-in")
    assert ask(auth=auth, user={"is_logged_in": True, "name": "Ada"}).person is None
    pretended = {"is_logged_in": True, "name": "Grace <grace@example.org>", "sub": "7"}
    assert ask(auth=auth, user=pretended).person == Person("Grace grace@example.org <7>", "sign-in")


def test_access__where_sign_in_is_set_up_one_must_sign_in(ask: Ask) -> None:
    for user in ({}, {"is_logged_in": False, "email": "ada@example.org"}):
        found = ask(auth={"client_id": "x"}, user=user, LOCAL_USER="ada")
        assert found.person is None and found.can_sign_in


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost", "[::1]:8501", "LOCALHOST:1", "127.9.9.9"])
def test_access__one_person_on_this_machine(ask: Ask, host: str) -> None:
    assert ask({"Host": host}, LOCAL_USER="Ada").person == Person("Ada", "local")


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"Host": "dashboard.example.org"}, "127.0.0.1"),  # a name that was made to point at this machine
        ({"Host": "localhost.example.org:8501"}, "127.0.0.1"),
        ({"Host": "127.0.0.1.example.org"}, "127.0.0.1"),
        ({"Host": "localhost:8501", "X-Forwarded-For": "192.0.2.1"}, "127.0.0.1"),
        ({"Host": "localhost:8501", "Via": "1.1 proxy"}, "127.0.0.1"),
        ({"Host": "localhost:8501", "forwarded": "for=192.0.2.1"}, "127.0.0.1"),
        ({"Host": "localhost:8501"}, "0.0.0.0"),
        ({"Host": "localhost:8501"}, ""),
        ({"Host": "localhost:8501"}, "192.0.2.7"),
    ],
)
def test_access__the_local_person_is_nobody_elsewhere(
    ask: Ask, headers: Mapping[str, str], address: str
) -> None:
    found = ask(headers, address=address, LOCAL_USER="Ada")
    assert found.person is None and "on this machine alone" in found.why_not


def test_said_name__is_one_line_of_letters_that_can_be_seen() -> None:
    assert said_name("A\u202eda\n\tLove\u200blace\x00") == "Ada Lovelace"
    assert said_name("x" * 500) == "x" * 200
    assert said_name(["ada"]) == said_name(None) == ""
    assert said_name("<script>") == "<script>"  # pages escape what they show
