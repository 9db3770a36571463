"""What `data check` finds out about a data set in files or packed shards."""
