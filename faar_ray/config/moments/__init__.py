"""From when on the keys of a config matter."""
