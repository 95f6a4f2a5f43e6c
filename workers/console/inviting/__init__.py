"""People who are invited by a table that somebody uploads: read, checked, and sent once somebody has seen what would come of it."""
