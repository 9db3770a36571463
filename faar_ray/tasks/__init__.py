"""The task table: channels, losses, weights, metrics, directions, delta_m."""

from faar_ray.tasks.losses import IGNORE
from faar_ray.tasks.metrics import metric_for, primary
from faar_ray.tasks.table import TASKS, Task, delta_m, output_channels

__all__ = ["IGNORE", "TASKS", "Task", "delta_m", "metric_for", "output_channels", "primary"]
