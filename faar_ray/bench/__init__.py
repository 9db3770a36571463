"""What a step costs, against the least it could cost."""
