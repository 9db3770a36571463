"""`python -m faar_ray.train.pretrain`: pretrain `swin_micro` on the source domain of `scenes`.

The same loop as everything else (`full_ft` from random weights); a fixed number of steps, so the same machine
gives the same file. The package ships its result; run it to make that file again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from faar_ray.config.trial import TrialConfig
from faar_ray.models import build_model, micro
from faar_ray.storage.atomic import atomic_write
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.checkpoint import last_good_checkpoint, load_trained_state
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec

SOURCE = {
    "method": "full_ft",
    "backbone": {"name": micro.NAME, "pretrained": False, "pyramid": "stages"},
    "data": {"domain": "source", "tasks": ["semseg", "human_parts", "depth"], "train_images": 8000, "val_images": 500},
    "optim": {
        "epochs": 14, "batch_size": 32, "lr": 1.5e-3, "weight_decay": 0.05, "warmup_steps": 200, "clip": 1.0,
    },
}  # fmt: skip


def main() -> None:
    """Train, then write the weights (fp16 safetensors) and their card (JSON) side by side."""
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.train.pretrain",
        description=__doc__,
        epilog="example: python -m faar_ray.train.pretrain --out swin_micro.safetensors",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=micro.weights_path(), help="file to write (the package's own)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the shipped file was made with 1")
    parser.add_argument("--work", type=Path, help="folder for checkpoints; given again, an interrupted run goes on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = TrialConfig.resolve(SOURCE)
    with tempfile.TemporaryDirectory() as scratch:
        spec = TrialSpec("pretrain", config, RunLocation(arguments.work or Path(scratch)))
        metrics = train(spec)
        write_weights(arguments.out, spec, metrics)
    print(f"wrote {arguments.out}")


def train(spec: TrialSpec) -> dict[str, float]:
    """Run all epochs, a line for each; returns the last epoch's validation metrics on the source domain."""
    metrics: dict[str, float] = {}
    for record in fit(spec):
        metrics = {name: value for name, value in record.metrics.items() if name.startswith("val/")}
        values = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        progress = f"epoch {record.epoch + 1}/{spec.config.optim.epochs}"
        print(f"{progress}  loss {record.metrics['train/loss']:.3f}  {values}", flush=True)
    return metrics


def write_weights(path: Path, spec: TrialSpec, metrics: dict[str, float]) -> None:
    """The backbone as fp16 safetensors, and beside it a JSON card: sha256, config, metrics, torch version."""
    state, _ = last_good_checkpoint(spec.paths)
    assert state is not None
    model = build_model(spec.config)
    load_trained_state(model, state["model"])
    content = save({name: tensor.half().contiguous() for name, tensor in model.backbone.state_dict().items()})
    card = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
        "config": spec.config.model_dump(mode="json"),
        "torch": torch.__version__,
    }
    with atomic_write(path) as scratch:
        scratch.write_bytes(content)
    with atomic_write(path.with_suffix(".json")) as scratch:
        scratch.write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
