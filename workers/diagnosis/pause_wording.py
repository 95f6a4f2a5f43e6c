"""Why is a channel paused? The cause of a pause, in the same words wherever an operator reads of it."""

from config.store.pauses import StoredPause

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
