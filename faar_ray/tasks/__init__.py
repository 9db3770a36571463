"""The task table: channels, losses, weights, metrics, directions, delta_m."""

from faar_ray.tasks.losses import mean_loss
from faar_ray.tasks.metrics import metric_for, primary
from faar_ray.tasks.table import TASKS, Task, delta_m, output_channels

__all__ = ["TASKS", "Task", "delta_m", "mean_loss", "metric_for", "output_channels", "primary"]
