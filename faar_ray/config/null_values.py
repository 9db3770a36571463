"""What `null` means where a key takes it: many take another key's value then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AS_OTHER = {
    "sinewich.rank": "ranks.init_rank",
    "ranks.task_init_rank": "ranks.init_rank",
    "pdrs.rho_task": "pdrs.rho_shared",
    "optim.decoder_lr": "optim.lr",
    "optim.backbone_lr": "optim.lr",
}
"""Keys of a trial that are another key's value where they are null."""


def effective(config: Mapping[str, Any], key: str) -> Any:
    """The value that a key of a dotted trial config has in effect: another key's where it is null and follows that."""
    value = config.get(key)
    return config.get(AS_OTHER[key]) if value is None and key in AS_OTHER else value


def value_words(key: str, value: Any) -> str:
    """A key's value for people, as YAML writes it; null with its meaning."""
    if value is None:
        return null_words(key)
    return str(value).lower() if isinstance(value, bool) else str(value)


def null_words(key: str) -> str:
    """Null for people, with its meaning where it is another key's value: `null (as rho_shared)`."""
    other = next((AS_OTHER[name] for name in AS_OTHER if key in (name, name.rpartition(".")[2])), "")
    return f"null (as {other.rpartition('.')[2]})" if other else "null"
