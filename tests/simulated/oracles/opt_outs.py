"""At the end of a run: does everything agree on who has opted out, and was nobody texted who had?"""

from collections.abc import Sequence

from config.store import keyspace, stored_values
from engine.model import lane as lane_format
from engine.model.events import (
    InboundSms,
    PersonOptedIn,
    PersonOptedOut,
    SessionEnded,
    SessionOpened,
    SmsDecided,
)
from engine.model.lane import UnreadableLaneError
from tests.simulated.actors.operators import Operator
from tests.simulated.oracles.stream_watcher import StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.store.optouts import open_opt_out_list, opt_outs_in_lane

SETTLED_US = 120_000_000
"""How long after it was acknowledged something may still be applied."""


class OptOutOracle:
    """Judges the opt-outs of these people, whose sessions have all ended, unless `ends_sessions` says that some never can."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        senders: Sequence[str],
        operators: Sequence[Operator] = (),
        *,
        ends_sessions: bool = True,
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._senders = senders
        self._operators = operators
        self._ends_sessions = ends_sessions

    def judge(self) -> None:
        """Raise PromiseBroken for the first promise that does not hold."""
        settings = self._world.settings
        optouts = open_opt_out_list(self._world.onlooker(), settings.shards, settings.optout_key)
        for sender in self._senders:
            listed = set(optouts.opt_outs_of(sender))
            known = self._in_lane(sender)
            if known is not None and known != listed:
                raise PromiseBroken(
                    "opt_outs_agree", f"of {sender} the list has {listed}, and the lane {known}"
                )
            self._judge_records(sender)
            self._judge_stops(sender, listed)

    def _in_lane(self, sender: str) -> set[str] | None:
        """The channels of which somebody's lane says that they have opted out; None if there is none to say."""
        k = keyspace.shard_of(sender, self._world.settings.shards)
        stored = self._world.lanes.view.string(keyspace.lane_key(k, sender))
        state = stored_values.lane_state(stored) if stored else b""
        try:
            return set(opt_outs_in_lane(lane_format.decode_lane(state))) if state else None
        except UnreadableLaneError:
            return None

    def _judge_records(self, sender: str) -> None:
        """Nothing is decided for somebody who has opted out but the confirmation; sessions that open end."""
        out: dict[str, str] = {}
        is_open: set[str] = set()
        for record, _ in self._watcher.records(sender):
            match record:
                case PersonOptedOut():
                    out[record.channel] = record.id
                case PersonOptedIn():
                    out.pop(record.channel, None)
                case SessionOpened():
                    if record.channel in out:
                        raise PromiseBroken(
                            "stop", f"{record.session} of {sender} opened though they have opted out"
                        )
                    is_open.add(record.session)
                case SessionEnded():
                    is_open.discard(record.session)
                case SmsDecided() if record.channel in out and not record.id.startswith(out[record.channel]):
                    raise PromiseBroken(
                        "stop", f"{record.id} to {sender} was decided though they have opted out"
                    )
                case _:
                    pass
        erased = any(each.sender == sender for operator in self._operators for each in operator.erasures)
        if is_open and self._ends_sessions and not erased and not self._world.has_lost_promised:
            raise PromiseBroken("sessions_end", f"{is_open.pop()} of {sender} is over, and nothing says so")

    def _judge_stops(self, sender: str, listed: set[str]) -> None:
        """A STOP that was acknowledged holds until they opt in again, whatever becomes of them besides; so does what an operator
        was told that they have added."""
        removed_us = max((each.removed.get(sender, 0) for each in self._operators), default=0)
        said = [
            each
            for each in self._world.ledger.acceptances
            if each.sender == sender and isinstance(each.event, InboundSms)
        ]
        opted_in_us = max((each.at_us for each in said if each.event.text in _OPT_INS), default=0)
        last_us = max(removed_us, opted_in_us)
        for each in said:
            if each.event.may_be_stop and each.offered_us > last_us and each.event.channel not in listed:
                raise PromiseBroken("stop_holds", f"{sender} said STOP, {each.event.id}, and no list has it")
        added_us = max((each.added.get(sender, 0) for each in self._operators), default=0)
        if added_us > last_us + SETTLED_US and not listed:
            raise PromiseBroken("stop_holds", f"an operator opted {sender} out, and no list has it")


_OPT_INS = ("START", "YES")
