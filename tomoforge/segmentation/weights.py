"""Weights and checkpoints to and from safetensors: numbers and JSON, nothing that could run when it is read.

Imported by the worker only.
"""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tomoforge.errors import InputError, StorageError
from tomoforge.storage import replacing

_STATE = "state"  # key of the JSON in a checkpoint's header


def dump_weights(network: nn.Module) -> bytes:
    """The network's weights as a safetensors file."""
    return safetensors.torch.save({name: _plain(tensor) for name, tensor in _tensors(network).items()})


def load_weights(network: nn.Module, weights: bytes) -> None:
    """Copy weights into a network. Raises InputError if they belong to another architecture."""
    try:
        stored = safetensors.torch.load(weights)
    except SafetensorError as error:
        raise InputError(f"the weights are no safetensors file: {error}") from error
    _copy(network, stored)


def save_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Network, optimizer and the JSON values of ``state`` in one file, whole or not at all."""
    tensors = {f"network/{name}": _plain(tensor) for name, tensor in _tensors(network).items()}
    numbers: dict[str, dict[str, Any]] = {}
    kept = optimizer.state_dict()
    for index, slots in kept["state"].items():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{name}"] = _plain(value)
            else:
                numbers.setdefault(str(index), {})[name] = value
    header = {**state, "optimizer": {"groups": kept["param_groups"], "numbers": numbers}}
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={_STATE: json.dumps(header)})


def load_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Take network and optimizer up from a checkpoint; returns its ``state``.

    Raises
    ------
    StorageError
        The file is damaged.
    InputError
        It belongs to another architecture.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads(file.metadata()[_STATE])
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        groups, numbers = header["optimizer"]["groups"], header["optimizer"]["numbers"]
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError, OSError) as error:
        raise StorageError(
            f"checkpoint {path} is damaged ({error}); remove it to train from the beginning"
        ) from error
    slots: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in numbers.items()}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, slot = rest.partition("/")
            slots.setdefault(int(index), {})[slot] = tensor
    _copy(network, {n[len("network/") :]: t for n, t in tensors.items() if n.startswith("network/")})
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return {key: value for key, value in header.items() if key != "optimizer"}


def _copy(network: nn.Module, stored: dict[str, torch.Tensor]) -> None:
    own = _tensors(network)
    wrong = [
        name
        for name in sorted({*own, *stored})
        if name not in own or name not in stored or own[name].shape != stored[name].shape
    ]
    if wrong:
        raise InputError(
            f"the weights belong to another architecture than plans.json: {len(wrong)} tensors differ, the first "
            f"is {wrong[0]} ({_shape(stored, wrong[0])} stored, {_shape(own, wrong[0])} wanted); was one file copied "
            "from another model, or another network asked for?"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def _shape(tensors: dict[str, torch.Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "none"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    # Not state_dict: it holds the encoder twice, since the decoder refers to it, and safetensors
    # refuses tensors that share memory.
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
