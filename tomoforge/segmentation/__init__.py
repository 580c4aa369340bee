"""Segmentation: data sets, nnU-Net training and prediction in processes of their own, metrics."""
