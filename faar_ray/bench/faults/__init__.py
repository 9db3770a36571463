"""What a search loses when processes are killed."""
