"""Where the training loop runs: in this process, under torch.distributed, under Ray Train."""
