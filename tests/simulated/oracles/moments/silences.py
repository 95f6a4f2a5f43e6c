"""At the end of a run: was every answer taken that came in time, and none that did not, however late somebody looked? "A late
alarm changes nothing" (engine/turns/deadlines.py). It knows nothing of clocks that are set."""

from collections.abc import Sequence

from engine.model.events import SessionEnded, SmsDecided, SmsReceived
from tests.simulated.oracles.stream_watcher import StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken


class SilenceOracle:
    """Judges the sessions of these people, of surveys that say one SMS at a time and whose sessions are over after so many ms of
    silence."""

    def __init__(self, watcher: StreamWatcher, senders: Sequence[str], idle_ms: int) -> None:
        self._watcher = watcher
        self._senders = senders
        self._idle_ms = idle_ms

    def judge(self) -> None:
        """Raise PromiseBroken for the first answer that came late and was taken, or in time and was not."""
        for sender in self._senders:
            over_at: dict[str, int] = {}
            shut_out_until = 0
            for record, _ in self._watcher.records(sender):
                if isinstance(record, SmsReceived):
                    late_ms = record.at - over_at.get(record.session, record.at)
                    if record.session and late_ms > 0:
                        raise PromiseBroken(
                            "late_is_late",
                            f"{record.id} of {sender} was taken {late_ms} ms after its session was over",
                        )
                    if record.at <= shut_out_until:
                        raise PromiseBroken(
                            "in_time_is_in_time",
                            f"{record.id} of {sender} came {shut_out_until - record.at} ms before its session was over",
                        )
                if isinstance(record, (SmsReceived, SmsDecided)) and record.session:
                    over_at[record.session] = record.at + self._idle_ms
                if isinstance(record, SessionEnded) and record.how == "idle":
                    shut_out_until = over_at[record.session]
