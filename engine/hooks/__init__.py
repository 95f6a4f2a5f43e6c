"""What is told to others' endpoints of what happens? CloudEvents, made of records: begin at hook_events.py."""
