"""`data show`: a contact sheet of images and labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from faar_ray.config.paths import STORAGE
from faar_ray.data.commands.options import Commands, add_command, config_of, entry_of
from faar_ray.data.contact_sheet import write_contact_sheet
from faar_ray.data.datasets import SPLITS
from faar_ray.data.loading import check_root, load_dataset, local_data

AUGMENTED_EPOCHS = 3


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(commands, "show", "write a contact sheet (PNG)", "show scenes --images 6", run)
    parser.add_argument("--images", type=int, default=4, metavar="N", help="rows (per domain; default 4)")
    parser.add_argument("--root", metavar="PATH", help=f"folder of the data or their shards, or {STORAGE}")
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val")
    parser.add_argument("--augmented", action="store_true", help="below each image, as three epochs of training see it")
    parser.add_argument("--out", metavar="PNG", help="the picture (default out/DATASET.png)")


def run(args: argparse.Namespace) -> None:
    """Write the contact sheet, and print where it is."""
    domains = [args.domain] if args.domain else entry_of(args).domains
    configs = {domain: config_of(args, root=args.root, domain=domain, images=args.images) for domain in domains}
    if not configs:
        configs = {args.dataset: config_of(args, root=args.root)}
    for config in configs.values():
        check_root(config)

    path = Path(args.out or Path("out") / f"{args.dataset}.png").absolute()
    datasets = {label: load_dataset(local_data(config), args.split) for label, config in configs.items()}
    write_contact_sheet(datasets, path, args.images, AUGMENTED_EPOCHS if args.augmented else 0)
    print(path)
