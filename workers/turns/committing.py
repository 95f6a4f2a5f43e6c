"""What surrounds a commit, whoever makes it, a worker's turn or the replay of a dead letter: versions of surveys that are
looked for, permits for sessions, who is woken, and what the archive says of SMS that were taken back."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import redis

from config.store import keyspace, stored_values
from engine.model import lane as lane_format
from engine.model.events import Record, Refusal, Unsent, decode_outbound
from engine.model.policy import Policy
from engine.surveys.survey_registry import Surveys
from engine.turns.advance import missing_versions
from engine.turns.turn import WITHDRAWN, UnknownVersion
from workers.store.lanes import Claim, Committed, Lanes
from workers.store.survey_versions import learn
from workers.turns.drafts import Draft, draft, draft_one_by_one


class Bell(Protocol):
    def ring(self, queue: str, senders: Sequence[str]) -> None: ...


def draft_knowing(client: redis.Redis, claim: Claim, surveys: Surveys, policy: Policy) -> Draft:
    """`draft`, having looked for the versions that a session needs and `surveys` does not know. Never raises for what a
    lane or an event holds."""
    try:
        return draft(claim, surveys, policy)
    except UnknownVersion:
        learn(client, surveys, missing_versions(lane_format.decode(claim.state), surveys))
    try:
        return draft(claim, surveys, policy)
    except UnknownVersion:
        return draft_one_by_one(claim, surveys, policy)


Admit = Callable[[str, int, int], tuple[int, Refusal | None]]
"""Of a channel and so many sessions at `now` (ms): how many may open, and why not all."""


def permitted(admit: Admit, drafts: Sequence[Draft], now: int) -> tuple[list[bool], Mapping[str, Refusal]]:
    """Which of these drafts may open the sessions that they would, and by channel why not all may."""
    wanted: Counter[str] = Counter()
    for each in drafts:
        wanted.update(each.opened)
    closed: dict[str, Refusal] = {}
    left: dict[str, int] = {}
    for channel, count in wanted.items():
        left[channel], reason = admit(channel, count, now)
        if reason:
            closed[channel] = reason
    return [_take(left, each.opened) for each in drafts] if closed else [True] * len(drafts), closed


def _take(left: dict[str, int], opened: Mapping[str, int]) -> bool:
    if not all(left[channel] >= count for channel, count in opened.items()):
        return False
    for channel, count in opened.items():
        left[channel] -= count
    return True


def wake(bell: Bell, committed: Sequence[Committed]) -> None:
    """Ring for whoever these lanes want next."""
    for queue in (keyspace.STARTS, keyspace.REPLIES):
        waiting = [each.sender for each in committed if each.wake == queue]
        if waiting:
            bell.ring(queue, waiting)
    speaking = [each.sender for each in committed if each.speak]
    if speaking:
        bell.ring(keyspace.OUTBOUND, speaking)


def note_withdrawn(lanes: Lanes, each: Draft, committed: Committed, now: int) -> None:
    """SMS that were taken back before they left: the archive says so."""
    records: list[Record] = []
    for entry in committed.withdrawn:
        try:
            sms = decode_outbound(stored_values.sms_in(entry))
        except msgspec.MsgspecError:
            continue  # nobody knows what it was
        code = "stopped" if sms.channel in each.silenced else each.withdrawn.get(sms.session, "stopped")
        records.append(Unsent(now, sms.channel, sms.session, sms.id, code, WITHDRAWN[code]))
    lanes.archive(committed.sender, records)
