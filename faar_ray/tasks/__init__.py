"""The task table: channels, losses, weights, metrics, directions, delta_m."""

from faar_ray.tasks.losses import IGNORE
from faar_ray.tasks.metrics import metric_for, primary
from faar_ray.tasks.table import Task, delta_m, tasks_of

__all__ = ["IGNORE", "Task", "delta_m", "metric_for", "primary", "tasks_of"]
