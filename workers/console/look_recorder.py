"""Who has looked at what of late, as far as this process has told the audit: a page that renews itself is one look."""

from threading import Lock

ONE_LOOK_S = 600.0
"""A page that is open for longer is told again."""

_MAX_REMEMBERED = 10_000


class LookRecorder:
    def __init__(self) -> None:
        self._told_s: dict[tuple[str, str, str], float] = {}
        self._lock = Lock()

    def is_due(self, user: str, action: str, subject: str, now_s: float) -> bool:
        """Whether the audit has not been told of late."""
        with self._lock:
            told_s = self._told_s.get((user, action, subject))
        return told_s is None or now_s - told_s > ONE_LOOK_S

    def remember(self, user: str, action: str, subject: str, now_s: float) -> None:
        with self._lock:
            if len(self._told_s) >= _MAX_REMEMBERED:
                self._told_s.clear()
            self._told_s[user, action, subject] = now_s
