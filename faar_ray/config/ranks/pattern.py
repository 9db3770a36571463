"""Ranks of single adapters that were found, as a config takes them."""

from __future__ import annotations

from collections.abc import Mapping

import yaml


def pattern_yaml(ranks: Mapping[str, int], found_by: str) -> str:
    """A YAML text with these ranks as the config's section `ranks` has them, to train them from their start.

    Args:
        ranks: `stage/block/layer/task` -> rank.
        found_by: what ended with them, for people.
    """
    section = {"ranks": {"kind": "fixed", "pattern": dict(ranks)}}
    return f"# Ranks that {' '.join(found_by.split())} ended with.\n{yaml.safe_dump(section, sort_keys=False)}"
