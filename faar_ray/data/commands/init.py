"""`data init`: a dataset.yaml for a folder of images and labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from faar_ray.data.commands.options import Commands
from faar_ray.data.photographs.folder_init import next_commands, write_dataset_file


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command."""
    purpose = "write a dataset.yaml for a folder of images and labels from what lies there; a person checks it"
    parser = commands.add_parser(
        "init", help=purpose, description=purpose, epilog="example: python -m faar_ray.data init photos"
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="holds images/ and a folder of label files per task"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the dataset.yaml of a folder, and print what was guessed and what to do next."""
    written = write_dataset_file(args.folder)
    print(f"{written.path}: {written.images} images")
    for name, guessed in written.tasks.items():
        classes = f", {len(guessed.keys['classes'])} classes" if "classes" in guessed.keys else ""
        print(f"  {name}: {guessed.type}{classes}")
        for text in guessed.check:
            print(f"    check: {text}")
    for name, reason in written.skipped.items():
        print(f"  {name}: no task ({reason})")
    print("\nnext:", *next_commands(args.folder, written), sep="\n  ")
