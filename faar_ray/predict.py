"""`python -m faar_ray.predict TRIAL IMAGE... --out DIR`: every task's prediction as a picture.

Axes: N outputs, H W space.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from faar_ray.command_line import hide_passwords, refuse_repeats, run_command, run_process
from faar_ray.data.dense import MEAN_3, STD_3
from faar_ray.data.photographs.photograph import read_photograph
from faar_ray.data.pictures import Picture, measured_range, picture
from faar_ray.errors import ConfigError
from faar_ray.export.read import CHECKPOINT_HELP, load_model, read_adapter_file
from faar_ray.export.trials import adapter_of
from faar_ray.models import MultiTaskModel
from faar_ray.storage.atomic import atomic_write, config_error_on_oserror, must_be_new
from faar_ray.tasks import IGNORE, Task, tasks_of
from faar_ray.tracking.place import default_tracking_uri

STRIP_VALUES = 2**23
"""Values of an output that are enlarged at a time."""
LEAST_CHANNELS = 16
"""Outputs of fewer count as this many, for their colours take more than they do."""
EXAMPLE = "example: python -m faar_ray.predict rho/t003-s0 street.jpg --out pictures"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    if argv is None:
        hide_passwords()
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.predict", description="Every task's prediction as a picture.", epilog=EXAMPLE
    )
    refuse_repeats(parser)
    parser.add_argument(
        "trial", metavar="TRIAL", help="a trial's folder or URI, NAME/TRIAL_ID under ./runs, or an MLflow run"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="pictures; resized to the trial's size")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for <image>_<task>.png")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help=CHECKPOINT_HELP)
    parser.add_argument("--tracking-uri", default=default_tracking_uri(), help="where MLflow run ids are looked up")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    with config_error_on_oserror(args.out):
        for path in predict(
            args.trial, args.images, args.out, tracking_uri=args.tracking_uri, checkpoint=args.checkpoint
        ):
            print(path)


def predict(
    trial: str, images: Sequence[Path], out: Path, *, tracking_uri: str, checkpoint: Path | None = None
) -> Iterator[Path]:
    """Write `<image>_<task>.png` at each image's own size; yields every path.

    Raises:
        ConfigError: no such trial, two images of one name, or a picture that exists.
        DataError: an image or the adapter file cannot be read.
    """
    if len({path.stem for path in images}) < len(images):
        raise ConfigError("IMAGE: names must differ, or one prediction would overwrite another")
    for path in images:  # before anything is written; one at a time, for each is large
        read_photograph(path)
    source = adapter_of(trial, tracking_uri=tracking_uri)
    file = read_adapter_file(source)
    for path, name in itertools.product(images, file.config.data.tasks):
        must_be_new(out / f"{path.stem}_{name}.png")

    model, tasks = load_model(file, source, checkpoint), tasks_of(file.config.data)
    for path in images:
        photograph = read_photograph(path)
        for name, output_NHW in outputs(model, photograph, file.config.data.size).items():
            target = out / f"{path.stem}_{name}.png"
            with atomic_write(target) as scratch:
                Image.fromarray(painted(tasks[name], output_NHW, photograph.size)).save(scratch, format="png")
            yield target


@torch.no_grad()
def outputs(model: MultiTaskModel, photograph: Image.Image, size: tuple[int, int]) -> dict[str, Tensor]:
    """Raw outputs of every task, (N, H, W), computed at `size`, (height, width)."""
    small = photograph.resize(size[::-1], Image.Resampling.BILINEAR)
    image_3HW = transforms.to_dtype(transforms.pil_to_tensor(small), torch.float32, scale=True)
    predicted: dict[str, Tensor] = model(transforms.normalize(image_3HW, list(MEAN_3), list(STD_3))[None])
    return {task: y[0] for task, y in predicted.items()}


def painted(task: Task, output_NHW: Tensor, size: tuple[int, int]) -> Picture:
    """A task's raw output as 8-bit colours at (width, height), (height, width, 3); the memory beside it is bounded."""
    width, height = size
    measured = task.type in ("depth", "regression")
    shown = measured_range(task, output_NHW[0].numpy()) if measured else None
    rows = max(1, STRIP_VALUES // (max(len(output_NHW), LEAST_CHANNELS) * width))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        strip = enlarged(output_NHW, size, range(top, min(top + rows, height)))
        pixels[top : top + rows] = (coloured(task, strip, shown) * 255).round()
    return pixels


def enlarged(output_NHW: Tensor, size: tuple[int, int], rows: range) -> Tensor:
    """Some rows of the output at (width, height), as `F.interpolate(mode="bilinear")` gives them for the whole."""
    (width, height), there = size, output_NHW.shape[1]
    place = ((torch.arange(rows.start, rows.stop) + 0.5) * (there / height) - 0.5).clamp(min=0)
    above = place.long()
    below = (above + 1).clamp(max=there - 1)

    first, needed = int(above[0]), int(below[-1] - above[0]) + 1
    wide = F.interpolate(output_NHW[None, :, first : first + needed], size=(needed, width), mode="bilinear")[0]
    return wide[:, above - first].lerp(wide[:, below - first], (place - above)[:, None])


def coloured(task: Task, output_NHW: Tensor, shown: tuple[float, float] | None = None) -> Picture:
    """A task's raw output as (H, W, 3) colours in 0..1; depth and regressions over the range `shown`."""
    match task.type:
        case "segmentation":
            return picture(task, output_NHW.argmax(0))
        case "normals":
            return picture(task, F.normalize(output_NHW, dim=0))
        case "binary" | "edge":
            return picture(task, output_NHW.sigmoid())
        case "depth":
            return picture(task, output_NHW.clamp(0, IGNORE - 1), shown)
        case _:
            return picture(task, output_NHW, shown)


if __name__ == "__main__":
    run_process(main)
