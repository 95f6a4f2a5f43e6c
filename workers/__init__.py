"""Remember and speak: lanes are claimed, advanced and committed here, and their SMS delivered."""
