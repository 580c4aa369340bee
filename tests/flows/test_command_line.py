"""The command line: every flow and parameter explained, every mistake named, nothing run on wrong input."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flows
from flows.command_line import describe, main
from flows.environment import prepare
from flows.report import FlowReport
from tomoforge.config import OpticsSettings, Settings
from tomoforge.errors import ScanError, StageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line sets defaults in the environment; they end with the test."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    yield
    os.environ.clear()
    os.environ.update(before)


class Recorder:
    """Stands in the place of a flow: takes its parameters down and runs nothing."""

    def __init__(self, fn: Any) -> None:
        self.fn = fn
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def __call__(self, **values: Any) -> FlowReport:
        self.calls.append(values)
        if self.error is not None:
            raise self.error
        return FlowReport(("done", "and well"), {}, {})


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    made = {name: Recorder(flow.fn) for name, flow in flows.FLOWS.items()}
    monkeypatch.setattr(flows, "FLOWS", made, raising=False)
    return made


def called(recorders: dict[str, Recorder], name: str, *options: str) -> dict[str, Any]:
    assert main([name, *options]) == 0
    return recorders[name].calls[-1]


def refused(capsys, recorders: dict[str, Recorder], *arguments: str) -> str:
    """What is said of wrong arguments; status 2 and no flow called."""
    capsys.readouterr()
    try:
        status = main(list(arguments))
    except SystemExit as stop:  # argparse says some of it itself
        status = stop.code
    assert status == 2
    assert not any(recorder.calls for recorder in recorders.values())
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


# --- listing and help -------------------------------------------------------------------------------------


def test_module__lists_all_flows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows"],
        cwd=ROOT,
        env={**os.environ, "TOMOFORGE_WORKSPACE": str(tmp_path / "workspace")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for name in flows.NAMES:
        assert re.search(rf"^  {name} +\S.*\w", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["list"]])
def test_main__listing(capsys, arguments: list[str]) -> None:
    assert main(arguments) == 0
    listing = capsys.readouterr().out
    assert all(f"\n  {name} " in listing for name in flows.NAMES)


@pytest.mark.parametrize("name", flows.NAMES)
def test_help__documents_every_parameter(capsys, name: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    function = flows.FLOWS[name].fn
    summary, documented = describe(function)
    assert " ".join(summary.split()) in text
    parameters = inspect.signature(function).parameters
    assert set(documented) == set(parameters)
    for parameter in parameters.values():
        assert " ".join(documented[parameter.name].split()) in text
        if not isinstance(parameter.default, Settings):
            assert f"--{parameter.name.replace('_', '-')} " in text
            continue
        for key, field in type(parameter.default).model_fields.items():
            assert f"--{parameter.name}.{key.replace('_', '-')} " in text
            assert field.description and field.description in text
    assert "--workspace" in text and "--config" in text


def test_help__shows_defaults_and_what_is_required(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train_segmenter", "--help"])
    text = capsys.readouterr().out
    assert re.search(r"Key of the dataset.*\(required\)", text)
    assert re.search(r"Photon energy \[keV\]\. \(default: 5\.0\)", text)


def test_describe__joins_the_lines_of_an_argument() -> None:
    def function() -> None:
        """What it does.

        Args:
            first: One sentence
                over two lines.
            second: Another: with a colon.
        """

    assert describe(function) == (
        "What it does.",
        {"first": "One sentence over two lines.", "second": "Another: with a colon."},
    )


# --- values -------------------------------------------------------------------------------------------------


def test_main__defaults_of_the_signature(recorders) -> None:
    for name, options in (("end_to_end", []), ("train_segmenter", ["--dataset", "d"])):
        values = called(recorders, name, *options)
        for parameter in inspect.signature(recorders[name].fn).parameters.values():
            if parameter.default is not inspect.Parameter.empty:
                assert values[parameter.name] == parameter.default


def test_main__text_becomes_numbers_and_settings(recorders) -> None:
    options = [
        "--samples",
        "3",
        "--voxel-size-um=1.5",
        "--optics.energy-kev",
        "3.5",
        "--cluster.workers",
        "2",
    ]
    values = called(recorders, "end_to_end", *options, "--rotation.cell", "10,20,30,90,95.5,90")
    assert (values["samples"], values["voxel_size_um"]) == (3, 1.5)
    assert values["optics"] == OpticsSettings(energy_kev=3.5)
    assert values["cluster"].workers == 2
    assert values["rotation"].cell == (10, 20, 30, 90, 95.5, 90)


def test_main__prints_the_report(capsys, recorders) -> None:
    assert main(["end_to_end"]) == 0
    assert capsys.readouterr().out == "\ndone\nand well\n"


def test_main__options_win_over_the_config(recorders, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("samples: 4\nseed: 9\noptics: {energy_kev: 3.5, flats: 20}\n")
    values = called(
        recorders, "end_to_end", "--config", str(config), "--samples", "3", "--optics.flats", "30"
    )
    assert (values["samples"], values["seed"]) == (3, 9)
    # An option changes its own key and leaves the section's others.
    assert values["optics"] == OpticsSettings(energy_kev=3.5, flats=30)


def test_main__a_path_may_hold_a_comma(recorders) -> None:
    assert called(recorders, "reconstruct_scan", "--scan", "a,b.nxs")["scan"] == "a,b.nxs"


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["end_to_ende", "--samples", "../end_to_end"])
def test_main__unknown_flow(capsys, recorders, name: str) -> None:
    said = refused(capsys, recorders, name)
    assert f"there is no flow {name!r}" in said
    assert all(flow in said for flow in flows.NAMES)


@pytest.mark.parametrize(
    "option", ["--sample", "--optics.energy", "--optics.enrgy-kev", "--works", "--optics", "--workspac"]
)
def test_main__unknown_or_shortened_option_is_named(capsys, recorders, option: str) -> None:
    assert option in refused(capsys, recorders, "end_to_end", option, "3")


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (["--samples", "many"], "samples", "many"),
        (["--samples", "0"], "samples", "0"),
        (["--grid", "16"], "grid", "16"),
        (["--seed=-1"], "seed", "-1"),
        (["--voxel-size-um", "nan"], "voxel_size_um", "nan"),
        (["--optics.energy-kev", "0.1"], "optics.energy_kev", "0.1"),
        (["--optics.flats", "2,3"], "optics.flats", "2"),
        (["--reconstruction.filter", "rmap"], "reconstruction.filter", "rmap"),
        (["--rotation.cell", "1,2,3"], "rotation.cell", ""),
        (["--cluster.kind", "address"], "cluster", "address"),
    ],
)
def test_main__bad_value_names_its_key(capsys, recorders, options: list[str], key: str, value: str) -> None:
    said = refused(capsys, recorders, "end_to_end", *options)
    assert re.search(rf"^  {re.escape(key)}[.:]", said, re.MULTILINE), said
    assert value in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampels: 3", "sampels: no such setting; is it misspelt?"),
        ("optics: {enrgy_kev: 3}", "optics.enrgy_kev: no such setting"),
        (
            "optics: {energy_kev: 1000}",
            "optics.energy_kev: Input should be less than or equal to 200, got 1000",
        ),
        ("optics: null", "optics: "),
        ("optics: 5", "optics: "),
        ("workspace: /tmp", "workspace: no such setting"),
        ("- a", "must be a mapping of settings"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_main__mistakes_in_the_config_are_named(capsys, recorders, tmp_path, text: str, message: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    assert message in refused(capsys, recorders, "end_to_end", "--config", str(config))


def test_main__config_that_is_not_there(capsys, recorders) -> None:
    assert "none.yaml cannot be read" in refused(capsys, recorders, "end_to_end", "--config", "none.yaml")


def test_main__option_into_a_section_that_is_no_mapping(capsys, recorders, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("optics: 5\n")
    said = refused(capsys, recorders, "end_to_end", "--config", str(config), "--optics.flats", "3")
    assert "optics in" in said and "must be a mapping of settings, got 5" in said


@pytest.mark.parametrize(
    ("name", "key"),
    [("train_segmenter", "dataset"), ("reconstruct_scan", "scan"), ("decide_labels", "verdict")],
)
def test_main__required_parameter_is_asked_for(capsys, recorders, name: str, key: str) -> None:
    assert re.search(rf"^  {key}: Field required", refused(capsys, recorders, name), re.MULTILINE)


@pytest.mark.parametrize(
    ("error", "status", "ending"),
    [
        (ScanError("the scan is broken"), 2, "the scan is broken\n"),
        (StageError("Blender died"), 1, "The same command goes on where it stopped.\n"),
    ],
)
def test_main__errors_of_a_flow_are_a_sentence_and_a_status(capsys, recorders, error, status, ending) -> None:
    recorders["end_to_end"].error = error
    assert main(["end_to_end"]) == status
    said = capsys.readouterr().err
    assert said.startswith(f"error: {error}") and said.endswith(ending)


# --- environment --------------------------------------------------------------------------------------------


def test_main__workspace_option_is_in_place_before_the_flow(recorders, tmp_path: Path) -> None:
    called(recorders, "end_to_end", "--workspace", "mine")
    assert os.environ["TOMOFORGE_WORKSPACE"] == str(tmp_path / "mine")
    assert "workspace" not in recorders["end_to_end"].calls[0]


def test_prepare__prefects_own_server_lies_in_the_workspace(tmp_path: Path, monkeypatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_SERVER_ANALYTICS_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    prepare(str(tmp_path / "w"))
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "w" / ".prefect")
    assert (tmp_path / "w" / ".prefect").is_dir()
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_prepare__what_the_user_has_set_stays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG")
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    prepare(str(tmp_path / "w"))
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "DEBUG"
    assert "PREFECT_HOME" not in os.environ and not (tmp_path / "w").exists()
