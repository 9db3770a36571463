"""Where results live: folders and object storage, atomic writes, leases, checkpoint bytes."""
