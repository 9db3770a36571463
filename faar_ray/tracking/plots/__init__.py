"""Pictures of one trial: ranks, sines."""
