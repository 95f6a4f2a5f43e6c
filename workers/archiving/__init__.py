"""Moves what happened from Redis' streams into the archive, and takes out of it what is not kept."""
