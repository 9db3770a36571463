"""What a person or a program sees of a search: plan, progress, outcome."""
