"""The search space: its YAML, parameters, conditions, schema."""
