"""What people write is read strictly: misspelt keys, bounds, files that are no settings."""

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from tomoforge.config import (
    ClusterSettings,
    OpticsSettings,
    ReconstructionSettings,
    RotationSettings,
    TracingSettings,
    TrainingSchedule,
    parse_settings,
    read_config,
)
from tomoforge.errors import ConfigError

ALL = (OpticsSettings, ReconstructionSettings, TrainingSchedule, RotationSettings, ClusterSettings)


@pytest.mark.parametrize("model", ALL)
def test_settings__defaults_are_valid_described_and_fixed(model) -> None:
    settings = parse_settings(model, {})
    assert parse_settings(model, settings.model_dump()) == settings
    assert model.model_validate_json(settings.model_dump_json()) == settings
    for name, field in model.model_fields.items():
        assert field.description, name
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, 1)


@pytest.mark.parametrize("model", ALL)
def test_parse_settings__unknown_key_is_named(model) -> None:
    with pytest.raises(ConfigError, match=rf"{model.__name__} cannot be used:\n  enrgy_kev: no such setting"):
        parse_settings(model, {"enrgy_kev": 5.0})


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        (OpticsSettings, "energy_kev", 0.1),
        (OpticsSettings, "energy_kev", math.nan),
        (OpticsSettings, "projections", 1),
        (OpticsSettings, "projections", 2.5),
        (OpticsSettings, "arc_deg", math.nan),
        (OpticsSettings, "distance_mm", -1),
        (OpticsSettings, "photons", math.inf),
        (OpticsSettings, "flats", "many"),
        (ReconstructionSettings, "filter", "rmap"),
        (TrainingSchedule, "epochs", 0),
        (RotationSettings, "cell", [79, 79, 37, 90, 90]),
        (TracingSettings, "target_error", 1),
        (ClusterSettings, "workers", 0),
        (ClusterSettings, "kind", "slurm"),
    ],
)
def test_parse_settings__value_out_of_bounds_names_the_key_and_what_came(model, key: str, value) -> None:
    with pytest.raises(ConfigError, match=rf"\n  {key}[.:]") as caught:
        parse_settings(model, {key: value})
    assert repr(value) in str(caught.value)


def test_parse_settings__every_fault_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(OpticsSettings, {"energy": 5, "flats": 0, "darks": -3})
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "flats",
        "darks",
        "energy",
    ]


@pytest.mark.parametrize(
    "values", [{"kind": "address"}, {"kind": "local", "address": "tcp://a:1"}, {"address": "tcp://a:1"}]
)
def test_cluster_settings__address_belongs_to_its_kind(values: dict) -> None:
    with pytest.raises(ConfigError, match="needs the scheduler's address"):
        parse_settings(ClusterSettings, values)


def test_read_config__mapping_and_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("optics:\n  energy_kev: 3.5  # µ is large here\nseed: 2\n", encoding="utf-8")
    assert read_config(file) == {"optics": {"energy_kev": 3.5}, "seed": 2}
    file.write_text("# nothing\n")
    assert read_config(file) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- a\n- b\n", "must be a mapping of settings, got list"),
        (b"just text", "must be a mapping of settings, got str"),
        (b"1: a\n", "must be a mapping"),
        (b"a: [1, 2\n", "is not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),  # nothing in a config is run
        (b"a: \xff\xfe\n", "cannot be read"),
    ],
)
def test_read_config__refuses_with_the_files_name(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_config(file)
    assert str(file) in str(caught.value)


def test_read_config__missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_config(path)
