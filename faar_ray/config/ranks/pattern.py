"""Ranks of single adapters that were found, as a config takes them."""

from __future__ import annotations

from collections.abc import Mapping

import yaml


def pattern_yaml(ranks: Mapping[str, int], found_by: str) -> str:
    """A YAML text with these ranks as the config's section `ranks` has them, to train them from their start.

    Args:
        ranks: `stage/block/layer/task` -> rank; 0, of adapters that lost all components (AdaLoRA), becomes 1.
        found_by: what ended with them, for people.
    """
    section = {"ranks": {"kind": "fixed", "pattern": {place: max(1, rank) for place, rank in ranks.items()}}}
    lost = [*ranks.values()].count(0)
    without = f" {lost} that lost all components have 1, the least that can train." if lost else ""
    return f"# Ranks that {' '.join(found_by.split())} ended with.{without}\n{yaml.safe_dump(section, sort_keys=False)}"
