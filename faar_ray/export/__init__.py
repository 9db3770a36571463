"""What leaves a trial: the adapter file."""
