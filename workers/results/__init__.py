"""What was answered and how far people came: read from the archive, and worded, for commands and for the console alike."""
