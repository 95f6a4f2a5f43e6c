"""Steps around a commit, shared by workers' turns and the replay of dead letters: load missing survey versions, permit
sessions, wake the next worker."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import redis

from config.store import keyspace
from engine.model import lane as lane_format
from engine.model.events import RefusalReason
from engine.model.policy import ChannelPolicies
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import missing_survey_versions
from engine.turns.turn import UnknownVersionError
from workers.store.lanes import CommitResult, LaneClaim, LaneDraft
from workers.store.survey_versions import load_versions
from workers.turns.drafts import draft_event_by_event, draft_lane


class WorkerWaker(Protocol):
    def wake(self, queue: str, senders: Sequence[str]) -> None: ...


def draft_with_versions(
    client: redis.Redis, claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies
) -> LaneDraft:
    """Draft a claimed lane, after loading the survey versions that its sessions need and `surveys` lacks. Never raises for
    what a lane or an event holds."""
    try:
        return draft_lane(claim, surveys, policy)
    except UnknownVersionError:
        load_versions(client, surveys, missing_survey_versions(lane_format.decode_lane(claim.state), surveys))
    try:
        return draft_lane(claim, surveys, policy)
    except UnknownVersionError:
        return draft_event_by_event(claim, surveys, policy)


SessionAdmission = Callable[[str, int, int], tuple[int, RefusalReason | None]]
"""Of a channel and so many sessions at `now` (ms): how many may open, and why not all."""


def permit_drafts(
    admit: SessionAdmission, drafts: Sequence[LaneDraft], now: int
) -> tuple[list[bool], Mapping[str, RefusalReason]]:
    """Take session permits. Return which of these drafts may open the sessions that they would, and by channel why not all
    may."""
    wanted: Counter[str] = Counter()
    for each in drafts:
        wanted.update(each.effects.opened_by_channel)
    closed: dict[str, RefusalReason] = {}
    left: dict[str, int] = {}
    for channel, count in wanted.items():
        left[channel], reason = admit(channel, count, now)
        if reason:
            closed[channel] = reason
    if not closed:
        return [True] * len(drafts), closed
    return [_take_permits(left, each.effects.opened_by_channel) for each in drafts], closed


def _take_permits(left: dict[str, int], opened: Mapping[str, int]) -> bool:
    if not all(left[channel] >= count for channel, count in opened.items()):
        return False
    for channel, count in opened.items():
        left[channel] -= count
    return True


def wake_queues(waker: WorkerWaker, wanted: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Wake, for each sender, the workers of the queues that it wants."""
    for queue in (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE):
        if waiting := [sender for sender, queues in wanted if queue in queues]:
            waker.wake(queue, waiting)


def wake_after_commit(waker: WorkerWaker, committed: Sequence[CommitResult]) -> None:
    """Wake the workers that these lanes need next: for remaining mail, and for delivery."""
    wake_queues(waker, [(each.sender, each.wake_queues) for each in committed])
    speaking = [each.sender for each in committed if each.wake_delivery]
    if speaking:
        waker.wake(keyspace.OUTBOUND_QUEUE, speaking)
