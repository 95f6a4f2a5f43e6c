"""What takes longer than a page may: replays, drops, erasures and invitations, done beside the pages in a thread each."""
