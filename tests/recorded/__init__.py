"""What lay in Redis, as releases wrote it: kept for ever, so that every later release can be held against it.

`<release>.jsonl` is all that both Redis servers held at one moment of the scene in scene.py, played by that release's real
processes: a line for each key, with its value and, of values that only Python reads, what the release read in them, field
by field. It is never written anew. When a release has been made that is to be followed by others, add its own:

    python -m tests.recorded tests/recorded/<release>.jsonl
"""
