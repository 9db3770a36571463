"""Data sets with dense labels: `load_dataset`, then its `batches`."""

from __future__ import annotations

from faar_ray.data.datasets import Reader, SplitData
from faar_ray.data.dense import DenseDataset, unnormalise
from faar_ray.data.loading import (
    check_labels,
    check_root,
    count_images,
    load_dataset,
    load_datasets,
    local_data,
    open_split,
)
from faar_ray.data.registration import register

__all__ = [
    "DenseDataset",
    "Reader",
    "SplitData",
    "check_labels",
    "check_root",
    "count_images",
    "load_dataset",
    "load_datasets",
    "local_data",
    "open_split",
    "register",
    "unnormalise",
]
