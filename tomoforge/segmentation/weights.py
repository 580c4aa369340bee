"""A network's weights to and from safetensors. Imported by the worker only."""

import safetensors.torch
import torch
from torch import nn

from tomoforge.errors import InputError


def dump_weights(network: nn.Module) -> bytes:
    """The network's weights as a safetensors file."""
    return safetensors.torch.save(
        {name: tensor.detach().contiguous() for name, tensor in _tensors(network).items()}
    )


def load_weights(network: nn.Module, weights: bytes) -> None:
    """Copy weights into a network. Raises InputError if they belong to another architecture."""
    try:
        stored = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise InputError(f"the weights are no safetensors file: {error}") from error
    own = _tensors(network)
    wrong = [
        name
        for name in sorted({*own, *stored})
        if name not in own or name not in stored or own[name].shape != stored[name].shape
    ]
    if wrong:
        raise InputError(
            f"the weights belong to another architecture than plans.json: {len(wrong)} tensors differ, the first "
            f"is {wrong[0]}; was one file copied from another model?"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    # Not state_dict: it holds the encoder twice, since the decoder refers to it, and safetensors
    # refuses tensors that share memory.
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
