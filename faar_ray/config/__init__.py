"""One trial's config and the files it is read from: sections, presets, YAML with positions, messages."""
