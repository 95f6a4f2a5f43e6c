"""The engine decides and knows nothing of the world: no clock, no randomness, no network, no files."""
