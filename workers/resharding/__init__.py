"""Divides the lanes of a deployment that is stopped into more shards: `parley reshard`."""
