"""Model folders of untrained networks: small, made in milliseconds, and as sure of themselves as trained ones."""

import warnings
from pathlib import Path
from typing import Any

from tomoforge.segmentation.model import write_model
from tomoforge.volumes import LABEL_NAMES

INTENSITY = {
    "mean": 500.0, "median": 600.0, "std": 350.0, "min": -400.0, "max": 1500.0,
    "percentile_00_5": -200.0, "percentile_99_5": 1100.0,
}  # fmt: skip


def random_model(
    folder: Path,
    configuration: str,
    seed: int,
    *,
    patch: int = 16,
    spacing_um: float = 2.5,
    features: int = 4,
    stages: int = 2,
    names: dict[str, int] = LABEL_NAMES,
) -> Path:
    """A model of random weights. configuration : "2d" or "3d_fullres"; patch [voxels] and spacing along all axes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        import torch
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        from tomoforge.segmentation.weights import dump_weights

    axes = 2 if configuration == "2d" else 3
    plans = _plans(configuration, axes, patch, spacing_um, features, stages)
    architecture = plans["configurations"][configuration]["architecture"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            len(names),
            allow_init=True,
            deep_supervision=False,
        )
    with torch.no_grad():
        network.decoder.seg_layers[-1].weight.mul_(20)  # sure, as trained networks are: few ties
    write_model(
        folder,
        weights=dump_weights(network),
        plans=plans,
        dataset={"channel_names": {"0": "CT"}, "labels": dict(names), "file_ending": ".mha"},
        curve="",
        record={
            "class_names": dict(names),
            "configuration": configuration,
            "voxel_size": spacing_um * 1e-6,
            "mirror_axes": list(range(axes)),
            "fingerprint": {},
            "settings": {},
            "extra": {},
            "software": {},
        },
    )
    return folder


def _plans(
    configuration: str, axes: int, patch: int, spacing_um: float, features: int, stages: int
) -> dict[str, Any]:
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    same = "resample_data_or_seg_to_shape"
    kind = f"{axes}d"
    network = {
        "n_stages": stages,
        "features_per_stage": [features * 2**n for n in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{kind}",
        "kernel_sizes": [[3] * axes] * stages,
        "strides": [[1] * axes] + [[2] * axes] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{kind}",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "dataset_name": "Dataset001_tomoforge",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing_um] * 3,
        "original_median_shape_after_transp": [40] * 3,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITY},
        "configurations": {
            configuration: {
                "data_identifier": f"nnUNetPlans_{configuration}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [patch] * axes,
                "median_image_size_in_voxels": [40.0] * axes,
                "spacing": [spacing_um] * axes,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": same,
                "resampling_fn_seg": same,
                "resampling_fn_probabilities": same,
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": network,
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }
