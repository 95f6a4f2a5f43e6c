"""Tells programs what happens: events of the streams, to the endpoints of parley.toml, in order for each person."""
