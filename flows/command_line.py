"""Flows from the command line: options made from each flow's signature and docstring."""

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

import flows
from flows.environment import prepare
from tomoforge.config import Settings, explain, read_config
from tomoforge.errors import ConfigError, InputError, TomoforgeError


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status: 0 done, 1 a stage failed, 2 wrong input."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--workspace")
    workspace = early.parse_known_args(arguments)[0].workspace
    try:
        prepare(workspace)  # before anything imports Prefect
    except OSError as error:
        print(f"error: workspace {workspace or '(default)'} cannot be written: {error}", file=sys.stderr)
        return 2
    if not arguments or arguments[0] in ("-h", "--help", "list"):
        print(_listing())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in flows.NAMES:
        print(f"error: there is no flow {name!r}; there are {', '.join(flows.NAMES)}", file=sys.stderr)
        return 2
    flow = flows.FLOWS[name]
    try:
        options = _parser(name, flow.fn).parse_args(rest)
        values = _values(flow.fn, vars(options))
        report = flow(**values)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TomoforgeError as error:
        print(f"error: {error}\nThe same command goes on where it stopped.", file=sys.stderr)
        return 1
    print("\n".join(("", *report.lines)), flush=True)
    return 0


def describe(function: Any) -> tuple[str, dict[str, str]]:
    """First paragraph of a flow's docstring, and the text for each argument in its ``Args:``."""
    doc = inspect.getdoc(function) or ""
    head, _, arguments = doc.partition("\nArgs:\n")
    entries = re.split(r"\n(?=\S)", textwrap.dedent(arguments))
    found = {}
    for entry in entries:
        name, _, text = entry.partition(":")
        found[name.strip()] = " ".join(text.split())
    return head.strip(), found


def _listing() -> str:
    lines = ["usage: python -m flows FLOW [options], python -m flows FLOW --help", ""]
    for name in flows.NAMES:
        summary, _ = describe(flows.FLOWS[name].fn)
        lines.append(f"  {name:20} {summary.splitlines()[0]}")
    return "\n".join(lines)


def _parser(name: str, function: Any) -> argparse.ArgumentParser:
    summary, documented = describe(function)
    parser = argparse.ArgumentParser(
        prog=f"python -m flows {name}",
        description=summary,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,  # a shortened --workspace would come too late for ``prepare``
    )
    parser.add_argument(
        "--workspace", help="folder of all artefacts (default: $TOMOFORGE_WORKSPACE, else ./workspace)"
    )
    parser.add_argument("--config", help="YAML file with any of the parameters below; options given here win")
    for parameter in inspect.signature(function).parameters.values():
        text = documented[parameter.name]
        if isinstance(parameter.default, Settings):
            group = parser.add_argument_group(parameter.name, text)
            for key, field in type(parameter.default).model_fields.items():
                default = getattr(parameter.default, key)
                _add(group, f"{parameter.name}.{key}", field.description or "", default)
        else:
            _add(parser, parameter.name, text, parameter.default)
    return parser


def _add(group: Any, name: str, text: str, default: Any) -> None:
    if default is inspect.Parameter.empty:
        note = " (required)"
    elif default is None:
        note = ""
    else:
        shown = ",".join(str(v) for v in default) if isinstance(default, tuple) else default
        note = f" (default: {shown})"
    group.add_argument(
        f"--{name.replace('_', '-')}",
        dest=name,
        metavar=name.rsplit(".", 1)[-1].upper(),
        help=(text + note).replace("%", "%%"),
    )


def _values(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Validated parameters of a flow from a config file and the options, which win."""
    config = options.pop("config")
    given: dict[str, Any] = read_config(config) if config is not None else {}
    for name, text in options.items():
        if text is None or name == "workspace":
            continue
        parameter, _, key = name.partition(".")
        if not key:
            given[parameter] = text
            continue
        section = given.setdefault(parameter, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{parameter} in {config} must be a mapping of settings, got {section!r}")
        section[key] = text.split(",") if "," in text else text
    parameters = inspect.signature(function).parameters.values()
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is inspect.Parameter.empty else p.default) for p in parameters
    }
    model: type[BaseModel] = create_model(function.__name__, __base__=Settings, **fields)
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        raise ConfigError(explain(function.__name__, error)) from error
    return {name: getattr(checked, name) for name in fields}
