"""The set-up script's decisions, with a fake machine around it, and the lock file."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "deployments" / "setup.sh"
INSTALLED = "echo 'install ok installed'"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder of fake commands that come before the real ones, and a user without settings.

    Returns `add(name, body)`, which puts a shell script there, and `run(commands)`, which sources the
    set-up script and returns the finished process.
    """
    fakes, home = tmp_path / "bin", tmp_path / "home"
    fakes.mkdir()
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_", "XDG_")) or name in {"SSL_CERT_FILE", "SYSTEM_PACKAGES"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{fakes}:{os.environ['PATH']}")

    def add(name: str, body: str) -> None:
        script = fakes / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)

    def run(commands: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", f'source "{SCRIPT}"; {commands}'],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    add("pip", "exit 0")
    run.add = add  # type: ignore[attr-defined]
    return run


def test_missing_packages__names_only_those_not_installed(machine):
    # libsm6 was removed but not purged: dpkg still knows it.
    machine.add(
        "dpkg-query",
        "for last; do :; done\n"
        'case $last in libgl1) exit 1;; libsm6) echo "deinstall ok config-files";; '
        f"*) {INSTALLED};; esac",
    )
    done = machine("missing_packages libusb-1.0-0 libgl1 libgomp1 libsm6")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["libgl1", "libsm6"]


def test_need_packages__prints_the_line_and_stops_where_it_may_not_install(machine):
    machine.add("id", "echo 1000")
    machine.add("apt-get", "echo installed >> called; exit 1")
    machine.add("dpkg-query", "exit 1")
    done = machine("need_packages libgl1 chromium; echo went on; cat called")
    assert done.returncode == 1
    assert "sudo apt-get install -y --no-install-recommends libgl1 chromium" in done.stderr
    assert done.stdout == ""


def test_need_packages__installs_as_root_and_updates_the_lists_only_when_apt_fails(machine):
    machine.add("id", "echo 0")
    machine.add("dpkg-query", "exit 1")
    machine.add("apt-get", 'echo "$1" >> calls; [ "$1" = update ] && touch updated; [ -e updated ]')
    assert machine("need_packages libgl1; cat calls").stdout.split() == ["install", "update", "install"]
    assert machine("rm calls; need_packages libgl1; cat calls").stdout.split() == ["install"]


def test_need_packages__asks_for_nothing_where_all_is_there_or_it_is_told_to_skip(machine):
    machine.add("id", "echo 1000")
    machine.add("apt-get", "exit 1")
    machine.add("dpkg-query", INSTALLED)
    assert machine("need_packages libgl1").stderr == ""
    machine.add("dpkg-query", "exit 1")
    assert machine("need_packages libgl1", SYSTEM_PACKAGES="skip").returncode == 0


def test_need_packages__goes_on_elsewhere_and_says_what_is_needed(machine):
    done = machine("is_debian() { false; }; need_packages libgl1")
    assert done.returncode == 0
    assert "not a Debian or Ubuntu machine" in done.stderr
    assert "libgl1" in done.stderr


def test_pip_setting__reads_environment_before_files(machine):
    machine.add("pip", """echo "global.index-url='file:///of/the/file'" """)
    assert machine("pip_setting index-url").stdout == "file:///of/the/file\n"
    assert machine("pip_setting index-url", PIP_INDEX_URL="file:///of/the/environment").stdout == (
        "file:///of/the/environment\n"
    )
    assert machine("pip_setting find-links").stdout == ""


def test_pip_setting__joins_values_over_several_lines_and_prefers_the_install_section(machine):
    machine.add(
        "pip",
        "cat <<'EOF'\n"
        r"global.extra-index-url='\nfile:///one/simple\nfile:///two/simple'"
        "\nglobal.find-links='/global'\ninstall.find-links='/install'\nEOF",
    )
    assert machine("pip_setting extra-index-url").stdout == "file:///one/simple file:///two/simple\n"
    assert machine("pip_setting find-links").stdout == "/install\n"


SHOW = 'export_index_settings; env | grep -E "^UV_(DEFAULT_INDEX|INDEX|INDEX_STRATEGY|FIND_LINKS)=" | sort'


def test_index_settings__are_passed_from_pip_to_uv(machine):
    done = machine(
        SHOW,
        PIP_INDEX_URL="file:///main/simple",
        PIP_EXTRA_INDEX_URL="file:///one file:///two",
        PIP_FIND_LINKS="/wheels /more",
    )
    # pip searches all its indexes for the best version; uv does so only when told.
    assert done.stdout.splitlines() == [
        "UV_DEFAULT_INDEX=file:///main/simple",
        "UV_FIND_LINKS=/wheels,/more",
        "UV_INDEX=file:///one file:///two",
        "UV_INDEX_STRATEGY=unsafe-best-match",
    ]


def test_index_settings__of_uv_itself_win(machine):
    own = {"UV_DEFAULT_INDEX": "file:///uv", "UV_INDEX": "file:///uv-more", "UV_FIND_LINKS": "/uv-wheels"}
    done = machine(
        SHOW,
        PIP_INDEX_URL="file:///p",
        PIP_EXTRA_INDEX_URL="file:///q",
        PIP_FIND_LINKS="/r",
        **own,
    )
    assert done.stdout.splitlines() == sorted(f"{name}={value}" for name, value in own.items())


def test_index_settings__in_a_uv_configuration_file_win(machine, tmp_path):
    folder = tmp_path / "home" / ".config" / "uv"
    folder.mkdir(parents=True)
    (folder / "uv.toml").write_text('[[index]]\nurl = "file:///uv"\n')
    assert machine(SHOW, PIP_INDEX_URL="file:///pip").stdout == ""


@pytest.mark.parametrize(
    ("version", "usable"),
    [("uv 0.4.30", False), ("uv 0.5.0", True), ("uv 0.13.9 (x86_64)", True), ("uv 1.0.0", True), ("", False)],
)
def test_usable_uv__asks_for_a_version_that_runs(machine, version, usable):
    machine.add("uv", f'[ -n "{version}" ] || exit 127\necho "{version}"')
    assert (machine("usable_uv uv").returncode == 0) is usable


def test_find_python__passes_by_a_shim_that_does_not_run(machine):
    for name in ("python3.11", "python3", "python"):
        machine.add(name, "echo 'no such version' >&2; exit 127")
    found = machine("find_python").stdout.strip()
    assert not found.startswith(str(machine("pwd").stdout.strip()))
    # Either a working one further along PATH, or the number for uv to look further with.
    assert found == "3.11" or shutil.which(found)


def test_environment__is_made_again_when_half_made_or_moved(machine, tmp_path):
    assert machine("environment_is_sound").returncode != 0  # none
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "python").symlink_to(ROOT / ".venv" / "bin" / "python")
    if machine(".venv/bin/python -c pass").returncode:
        pytest.skip("the tests do not run from an environment in .venv")
    (scripts / "activate").write_text(f"VIRTUAL_ENV='{tmp_path}/.venv'\n")
    assert machine("environment_is_sound").returncode == 0
    (tmp_path / ".venv" / ".installing").touch()
    assert machine("environment_is_sound").returncode != 0  # killed while it wrote packages
    (tmp_path / ".venv" / ".installing").unlink()
    (scripts / "activate").write_text("VIRTUAL_ENV='/elsewhere/.venv'\n")
    assert machine("environment_is_sound").returncode != 0  # moved: its scripts point elsewhere


# ---------------------------------------------------------------- the lock file


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    pins = [line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines()]
    return {name: version for name, version in pins}


def test_lock__holds_nothing_but_pins():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9a-z.!]+", line), f"not a plain pin: {line!r}"


def test_lock__keeps_the_known_traps_out():
    pins = locked()
    assert "argparse" not in pins, "it shadows the standard library's and stops Prefect's server"
    assert int(pins["numpy"].split(".")[0]) < 2, "bpy and open3d want numpy 1"
    assert pins["sqlalchemy"].startswith("2.0."), "2.1 silences Prefect's schedules"
    assert tuple(map(int, pins["fastapi"].split(".")[:2])) < (0, 151), "newer ones stop Prefect's server"
    assert pins["dask"] == pins["distributed"]


def test_lock__covers_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {normalised(re.match(r"[\w.-]+", requirement)[0]) for requirement in wanted}
    assert names <= set(locked()), "run `make lock`"


def test_lock__agrees_with_this_environment():
    installed = {normalised(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    # A build of one processor (torch 2.13.0+cpu) is the same version; extras may be absent.
    differing = {
        name: (version, installed[name])
        for name, version in locked().items()
        if name in installed and installed[name].split("+")[0] != version
    }
    assert not differing, "locked against installed versions; run `make setup`"


def test_environment__holds_no_argparse_package():
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("argparse")
