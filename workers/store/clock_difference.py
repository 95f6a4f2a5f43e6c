"""What time is it, if the server's clock and this machine's say otherwise?

Law: nobody's conversation ends because a clock is wrong. While the two differ by more than MAX_DIFFERENCE_MS, one of them
is, and no deadline fires; mail is applied as ever. It has come when the server says so, unless it is known that the server's
clock was set: they agreed before, and by a clock that nobody sets this machine's is the one that went on. Then events have
come by this machine's.
"""

import msgspec

from config.host import THIS_HOST, Host
from engine.model.events import Mail

MAX_DIFFERENCE_MS = 30_000
"""More than a worker that is frozen for a moment, or a clock that is not kept, comes to."""


class ClockVerdict(msgspec.Struct, frozen=True):
    """Whether deadlines are held back, and what must be added to the server's ms to have the time; 0 if nothing, or if
    nobody knows. The server's clock was set after `agreed_ms`, of the right time."""

    hold_deadlines: bool = False
    correction_ms: int = 0
    agreed_ms: int = 0

    def corrected(self, mail: Mail, server_ms: int) -> Mail:
        """Return an event that a mailbox had at `server_ms` as if it had been accepted by a clock that is right. One from
        before the clock was set bears the right time, and is known by it if it was accepted no longer ago than that. One
        from the future came since they agreed, though the clock may have been set by less then; if it was ahead before that too, and is
        still waiting, it is taken to have come late, which ends nothing: deadlines are held back."""
        if self.correction_ms > 0 and mail.at <= server_ms:
            return msgspec.structs.replace(mail, at=mail.at + self.correction_ms)
        if self.correction_ms < 0 and mail.at > server_ms + self.correction_ms:
            return msgspec.structs.replace(mail, at=max(mail.at + self.correction_ms, self.agreed_ms))
        return mail


AGREED = ClockVerdict()


class ServerClockJudge:
    """Compares the server's clock with this machine's. Several threads may use it."""

    def __init__(self, host: Host = THIS_HOST) -> None:
        self._host = host
        self._agreed: tuple[int, float] | None = None

    def asked_at_s(self) -> float:
        """Call it before the server is asked."""
        return self._host.monotonic_s()

    def judge(self, server_ms: int, asked_s: float | None = None) -> ClockVerdict:
        """Say what to make of what the server's clock said: just now, or since `asked_s`. However long an answer takes, or whoever
        reads it stands still, that is no difference."""
        own_ms, seconds = self._host.wall_ms(), self._host.monotonic_s()
        waited_ms = 0 if asked_s is None else round((seconds - asked_s) * 1_000)
        if -MAX_DIFFERENCE_MS <= own_ms - server_ms <= waited_ms + MAX_DIFFERENCE_MS:
            self._agreed = (own_ms, seconds)
            return AGREED
        if self._agreed is None:
            return ClockVerdict(hold_deadlines=True)
        agreed_ms, then = self._agreed
        went_on = abs(agreed_ms + (seconds - then) * 1_000 - own_ms) <= MAX_DIFFERENCE_MS
        if not went_on:
            return ClockVerdict(hold_deadlines=True)
        return ClockVerdict(True, own_ms - waited_ms - server_ms, agreed_ms)
