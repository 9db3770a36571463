"""The weights that backbones begin with: loaded before anything starts, and known again when a run goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from faar_ray.config.trial import BackboneConfig, TrialConfig
from faar_ray.errors import ConfigError

Digests = dict[str, str]
"""`backbone.checkpoint`, or the backbone's name where that is null, -> sha256 of the weights."""


def weights_of(configs: Iterable[TrialConfig], moved: Mapping[str, str] | None = None) -> Digests:
    """Load every weights that configs name, once each.

    Args:
        configs: of trials.
        moved: `backbone.checkpoint` -> the file where it lies now, if that is another.

    Raises:
        DataError: weights that cannot be fetched or read, or do not fit.
    """
    digests: Digests = {}
    for config in configs:
        path = config.backbone.checkpoint
        elsewhere = (moved or {}).get(path or "")
        now = config.with_checkpoint(elsewhere) if elsewhere else config
        if digest := weights_digest(now):
            digests[path or config.backbone.name] = digest
    return digests


def weights_digest(config: TrialConfig) -> str:
    """What tells the weights of a backbone from others, whatever the file's name; "" for those of its initialisation.

    Raises:
        DataError: they cannot be fetched or read, or do not fit.
    """
    from faar_ray.models.weight_file import check_weight_file  # imports torch
    from faar_ray.models.weight_packages import located

    backbone = config.backbone
    if backbone.checkpoint is None:
        return _digest(backbone.name, None, "auto", config.data.size) if backbone.pretrained else ""
    path = located(backbone.checkpoint)
    check_weight_file(path)
    written = path.stat()
    version = (written.st_mtime_ns, written.st_size)
    return _digest(backbone.name, backbone.checkpoint, backbone.statistics, config.data.size, version)


@lru_cache(maxsize=64)
def _digest(
    name: str, checkpoint: str | None, statistics: str, size: tuple[int, int], version: tuple[int, int] | None = None
) -> str:
    """Loads a file once for all configs that take it."""
    from faar_ray.models.backbone import build_backbone, digest_of_weights  # timm takes seconds to import

    config = BackboneConfig.model_validate({"name": name, "checkpoint": checkpoint, "statistics": statistics})
    return digest_of_weights(build_backbone(config, size, 0))


def check_same_weights(before: Mapping[str, str], now: Mapping[str, str], moved: Mapping[str, str]) -> None:
    """See that a run goes on with the weights that it was started with.

    Args:
        before: as the run recorded them; empty for a run of an older version.
        now: under the same names.
        moved: see `weights_of`.

    Raises:
        ConfigError: naming the files that have others.
    """
    faults = [
        f"--resume: backbone.checkpoint: {moved.get(path, path)} has other weights (sha256 {now[path][:12]}) than the "
        f"run was started with (sha256 {digest[:12]}); name the file with those, or start another run under a new name"
        for path, digest in before.items()
        if path in now and now[path] != digest
    ]
    if faults:
        raise ConfigError(faults)
