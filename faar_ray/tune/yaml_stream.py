"""A YAML file of several documents, as Kubernetes takes it."""

from __future__ import annotations

import re
from itertools import accumulate, pairwise
from pathlib import Path

from faar_ray.reading import LINE_BREAK, Document, document_of, read_text

START = re.compile(r"^---(?=\s)", re.MULTILINE)
CONTENT = re.compile(r"^(?!---\s)\s*[^#\s]", re.MULTILINE)
"""A line that is neither empty, nor a remark, nor a bare document marker."""


def read_yaml_stream(path: Path) -> list[Document]:
    """Read a file of one or more mappings with `---` between them; parts without any are left out.

    Raises:
        ConfigError: as `read_yaml`, of the first part that has faults.
    """
    text = LINE_BREAK.sub("\n", read_text(path))
    starts = [0, *(found.start() for found in START.finditer(text)), len(text)]
    parts = [text[start:end] for start, end in pairwise(starts)]
    above = accumulate((part.count("\n") for part in parts), initial=0)
    written = [(part, lines) for part, lines in zip(parts, above, strict=False) if CONTENT.search(part)]
    return [document_of("\n" * lines + part, str(path)) for part, lines in written or [(text, 0)]]
