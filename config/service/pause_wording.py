"""Why is a channel paused? The cause of a pause, in the same words wherever an operator reads of it."""

from config.store.pauses import StoredPause
from engine.model.durations import format_duration

_CAUSES = {
    "operator": "by an operator",
    "account": "as its provider refuses the account",
    "circuit": "as its provider fails",
}


def pause_cause(pause: StoredPause) -> str:
    """Words that follow "is paused": `by an operator, anna`, `as its provider fails`."""
    return f"{_CAUSES[pause.by]}{f', {pause.who}' if pause.who else ''}"


def pause_cause_and_reason(pause: StoredPause) -> str:
    """The same, and what was said about it: `by an operator, anna (carrier incident)`."""
    return f"{pause_cause(pause)} ({pause.why})"


def pause_clause(pause: StoredPause, left_ms: int) -> str:
    """The same, and for how long yet, if it ends by itself: `as its provider fails, for another 20 s (…)`."""
    left = f", for another {format_duration(left_ms)}" if left_ms else ""
    return f"{pause_cause(pause)}{left} ({pause.why})"
