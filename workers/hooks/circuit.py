"""May an endpoint be called now? A circuit as those of providers (workers/store/channel_state.py): some failures in a row,
over some time, open it; then nothing is sent for a while, one request probes, and if that fails it stays open for twice as
long.

An endpoint is one process's at a time, so its circuit is that process's, and is stored with its positions. What is refused
for good counts as a failure too: an endpoint that refuses everything, as its secret was changed, say, then costs one dead
letter a probe and not one an event.
"""

from config.store.endpoint_health import EndpointHealth
from workers.store.channel_state import (
    CIRCUIT_FAILURES,
    CIRCUIT_FAILURES_SPAN_MS,
    CIRCUIT_OPEN_MAX_MS,
    CIRCUIT_OPEN_MIN_MS,
)

MAX_RETRY_AFTER_MS = 3_600_000
"""For so long, at the most, an endpoint may ask to be left alone."""


class EndpointCircuit:
    """The circuit of one endpoint. Times are ms."""

    def __init__(self, state: EndpointHealth) -> None:
        self.state = state

    @property
    def is_open(self) -> bool:
        """Whether only a probe may be made, once `wait_ms` is 0."""
        return self.state.is_open

    def wait_ms(self, now: int) -> int:
        """For how long nothing may be sent. If that is longer than was decided, the clock was set back, and it is over."""
        left_ms = self.state.until - now
        return left_ms if 0 < left_ms <= self.state.rest_ms else 0

    def note_success(self) -> bool:
        """Answers whether that closed the circuit."""
        was_open = self.is_open
        self.state = EndpointHealth()
        return was_open

    def note_failure(self, now: int, took_ms: int, why: str, retry_after_ms: int = 0) -> bool:
        """Count a failure of a request that took `took_ms`. Answers whether that opened the circuit, which was closed."""
        was_open = self.is_open
        failures = self.state.failures + 1
        since = now - took_ms
        if self.state.failures:
            since = min(self.state.since, since)  # the second, if the clock was set back
        opens = was_open or (failures >= CIRCUIT_FAILURES and now - since >= CIRCUIT_FAILURES_SPAN_MS)
        level = self.state.level + 1 if opens else 0
        rest_ms = min(CIRCUIT_OPEN_MAX_MS, CIRCUIT_OPEN_MIN_MS << min(level - 1, 30)) if opens else 0
        asked_ms = min(retry_after_ms, MAX_RETRY_AFTER_MS)
        left_ms = 0 if was_open else self.wait_ms(now)
        rest_ms = max(left_ms, rest_ms, asked_ms)
        until = now + rest_ms if rest_ms else 0
        self.state = EndpointHealth(failures, since, level, until, why, rest_ms)
        return opens and not was_open
