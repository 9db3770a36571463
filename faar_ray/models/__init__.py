"""Models: a timm Swin with task-specific last blocks, and heads."""

from faar_ray.models.build import build_model
from faar_ray.models.merge import merge
from faar_ray.models.multitask import (
    MultiTaskModel,
    adapter_list,
    magnitude_penalty,
    parameter_terms,
    parameters_by_part,
    sine_layers,
    task_independent_parameters,
    trained_state,
)

__all__ = [
    "MultiTaskModel",
    "adapter_list",
    "build_model",
    "magnitude_penalty",
    "merge",
    "parameter_terms",
    "parameters_by_part",
    "sine_layers",
    "task_independent_parameters",
    "trained_state",
]
