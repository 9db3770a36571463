"""What a training step costs, against the least it could cost."""
