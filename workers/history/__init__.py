"""What happened, read from the archive and the event streams as one."""
