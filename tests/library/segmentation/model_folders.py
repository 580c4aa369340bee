"""Model folders without a training: the layout of a model, weights of a few bytes."""

import json
from pathlib import Path

from tomoforge.segmentation.model import write_model
from tomoforge.volumes import LABEL_NAMES

CURVE_TEXT = "epoch,training_loss,validation_loss,pseudo_dice_loop\n1,1.5,1.6,\n2,1.25,1.5,0.5\n"


def safetensors_bytes(content: bytes) -> bytes:
    """A safetensors file with one tensor of bytes."""
    tensor = {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}
    header = json.dumps({"w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + content


def write_folder(folder: Path, content: bytes = b"weights", *, weights: bytes | None = None) -> Path:
    """A model folder whose weights are ``content``, or the file ``weights`` as it is."""
    write_model(
        folder,
        weights=safetensors_bytes(content) if weights is None else weights,
        plans={"configurations": {"2d": {"patch_size": [48, 48], "batch_size": 4}}},
        dataset={"labels": dict(LABEL_NAMES)},
        curve=CURVE_TEXT,
        record={
            "class_names": dict(LABEL_NAMES),
            "configuration": "2d",
            "voxel_size": 1e-6,
            "fingerprint": {},
            "settings": {"epochs": 2, "seed": 1, "patch_size": [48, 48]},
            "extra": {},
            "software": {"torch": "2"},
        },
    )
    return folder
