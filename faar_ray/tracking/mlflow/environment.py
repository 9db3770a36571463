"""What a search ran on: packages, interpreter, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import faar_ray


def environment(seed: int | None = None) -> dict[str, Any]:
    """Packages and versions, Python, platform, CPUs, git commit (None outside a checkout), the search's seed."""
    packages = {str(dist.metadata["Name"]): dist.version for dist in metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "git_commit": git_commit(Path(faar_ray.__file__).parent),
        "seed": seed,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def git_commit(folder: Path) -> str | None:
    """The commit that `folder` belongs to, with `-dirty` where tracked files differ; None unknown to git."""
    if not _git(folder, "ls-files", "."):  # a virtual environment inside somebody else's checkout
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit and _git(folder, "status", "--porcelain", "--untracked-files=no"):
        return f"{commit}-dirty"
    return commit or None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
