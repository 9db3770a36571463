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
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from faar_ray.command_line import run_command, run_process
from faar_ray.data.contact_sheet import Picture, picture
from faar_ray.data.dense import MEAN_3, STD_3
from faar_ray.errors import ConfigError, DataError
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.export.trials import adapter_of
from faar_ray.models import MultiTaskModel
from faar_ray.storage.atomic import atomic_write, config_error_on_oserror, must_be_new

EXAMPLE = "example: python -m faar_ray.predict rho/t003-s0 street.jpg --out pictures"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.predict", description="Every task's prediction as a picture.", epilog=EXAMPLE
    )
    parser.add_argument(
        "trial", metavar="TRIAL", help="a trial's folder or URI, NAME/TRIAL_ID under ./runs, or an MLflow run"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="pictures; resized to the trial's size")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for <image>_<task>.png")
    parser.add_argument("--tracking-uri", default="sqlite:///mlflow.db", help="where MLflow run ids are looked up")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    with config_error_on_oserror(args.out):
        for path in predict(args.trial, args.images, args.out, tracking_uri=args.tracking_uri):
            print(path)


def predict(trial: str, images: Sequence[Path], out: Path, *, tracking_uri: str) -> Iterator[Path]:
    """Write `<image>_<task>.png` at each image's own size; yields every path.

    Raises:
        ConfigError: no such trial, two images of one name, or a picture that exists.
        DataError: an image or the adapter file cannot be read.
    """
    if len({path.stem for path in images}) < len(images):
        raise ConfigError("IMAGE: names must differ, or one prediction would overwrite another")
    opened = {path: read_image(path) for path in images}
    source = adapter_of(trial, tracking_uri=tracking_uri)
    file = read_adapter_file(source)
    for path, name in itertools.product(opened, file.config.data.tasks):
        must_be_new(out / f"{path.stem}_{name}.png")
    model = load_model(file, source)
    for path, image in opened.items():
        for task, output_NHW in outputs(model, image, file.config.data.image_size).items():
            target = out / f"{path.stem}_{task}.png"
            pixels = (coloured(task, output_NHW) * 255).round().astype(np.uint8)
            with atomic_write(target) as scratch:
                Image.fromarray(pixels).save(scratch, format="png")
            yield target


def read_image(path: Path) -> Tensor:
    """(3, H, W) in 0..1.

    Raises:
        DataError: no such file, or no picture.
    """
    try:
        with Image.open(path) as opened:
            rgb = opened.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError) as fault:
        raise DataError(f"{path}: cannot be read as an image ({fault})") from fault
    pixels: Tensor = transforms.to_dtype(transforms.pil_to_tensor(rgb), torch.float32, scale=True)
    return pixels


@torch.no_grad()
def outputs(model: MultiTaskModel, image_3HW: Tensor, side: int) -> dict[str, Tensor]:
    """Raw outputs of every task, (N, H, W) at the image's own size, computed at side x side."""
    small = transforms.resize(image_3HW, [side, side], antialias=True)
    predicted: dict[str, Tensor] = model(transforms.normalize(small, list(MEAN_3), list(STD_3))[None])
    size = image_3HW.shape[-2:]
    return {task: F.interpolate(y, size=size, mode="bilinear")[0] for task, y in predicted.items()}


def coloured(task: str, output_NHW: Tensor) -> Picture:
    """A task's raw output as (H, W, 3) colours in 0..1."""
    if task in ("semseg", "human_parts"):
        return picture(task, output_NHW.argmax(0))
    if task == "normals":
        return picture(task, F.normalize(output_NHW, dim=0))
    return picture(task, output_NHW.clamp_min(0) if task == "depth" else output_NHW.sigmoid())


if __name__ == "__main__":
    run_process(main)
