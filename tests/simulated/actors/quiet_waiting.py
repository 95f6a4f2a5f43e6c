"""How a process waits that looks for news again and again, for days: at its own interval while there are any, and then for longer
each time, as if its machine were slow. News end the wait."""

from collections.abc import Callable

from tests.simulated.world.scheduler import Process
from tests.simulated.world.simulated_redis import SimulatedServer

_LOOKS = 2
"""So often it looks at its own interval after the last news."""

_LONGEST_S = 3_600.0


class QuietWait:
    """What such a process asks whether it is to stop: it never is. `read_news` answers something else whenever the server has
    any, and `may_rest` whether nothing is left to do; else it waits no longer than `busy_s`."""

    def __init__(
        self,
        process: Process,
        server: SimulatedServer,
        read_news: Callable[[], object],
        may_rest: Callable[[], bool],
        busy_s: float,
    ) -> None:
        self._process = process
        self._server = server
        self._read_news = read_news
        self._may_rest = may_rest
        self._busy_s = busy_s
        self._version: object = None
        self._news: object = None
        self._looks = 0

    def wait(self, timeout_s: float | None = None) -> bool:
        if not timeout_s:
            return False
        before, news = self._news, self._look()
        self._looks = self._looks + 1 if news == before else 0
        most_s = _LONGEST_S if self._may_rest() else self._busy_s
        longer_s = min(max(timeout_s, most_s), timeout_s * 2.0 ** max(0, min(self._looks - _LOOKS, 20)))
        latest_us = self._process.scheduler.now_us + round(longer_s * 1_000_000)
        self._process.scheduler.poll(
            lambda: latest_us if self._look() == news else 0, round(timeout_s * 1_000_000)
        )
        return False

    def _look(self) -> object:
        if self._server.version != self._version:
            self._version = self._server.version
            self._news = self._read_news()
        return self._news
