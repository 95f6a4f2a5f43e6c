"""Why is something a dead letter? The words are stored in letters, counted by shard, and labels of metrics."""

from typing import Literal, get_args

DeadLetterReason = Literal[
    "undecodable", "unreadable_state", "engine_error", "worker_died",
    "unknown_channel", "rejected", "tries_exhausted", "uncertain", "endpoint_refused",
]  # fmt: skip
"""`worker_died`: each worker that took it up was gone before it was done. `uncertain`: the provider may have the SMS,
and can no longer be asked by its id, or could not be asked in all its tries, or ever. `endpoint_refused`: an
endpoint of a hook has refused an event for good."""

DEAD_LETTER_REASONS: tuple[str, ...] = get_args(DeadLetterReason)
