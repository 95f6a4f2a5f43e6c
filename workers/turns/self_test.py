"""Does a worker die at whatever it does? It makes turns of nobody's before it takes up a lane whose worker died.

Law: a death counts against an event only if its worker had made a turn before. An event that kills its worker is known
by its deaths alone; a release that dies at every turn dies here, before it can lay its deaths at the door of people's
events. Nothing is read from Redis or written there.
"""

from collections.abc import Callable, Iterator

from config.store import keyspace, stored_values
from config.telemetry import faults
from engine.model.events import InboundEvent, InboundSms, Invitation, encode_event
from engine.model.policy import ChannelPolicies
from workers.store.lanes import LaneClaim, LaneDraft

SELF_TEST_SENDER = "self-test"
"""Whose turns they are: no phone number."""


def run_self_test(draft: Callable[[LaneClaim], LaneDraft], policy: ChannelPolicies, now: int) -> None:
    """Draft the beginning of a session of each survey of each channel, at `now` (ms), and drop it. Passes the places at
    which tests kill a worker between a claim and its commit."""
    faults.reach("after_claim")
    for channel, allowed in policy.items():
        for survey in allowed.surveys:
            state = b""
            for event in _sample_events(channel, survey):
                entry = stored_values.mail_entry(keyspace.mail_prefix(start=False), now, encode_event(event))
                state = draft(LaneClaim(SELF_TEST_SENDER, 0, 1, now, state, [entry])).state
    faults.reach("before_commit")


def _sample_events(channel: str, survey: str) -> Iterator[InboundEvent]:
    yield Invitation(f"{1:016x}", channel, survey)
    yield InboundSms(f"{2:016x}", channel, "1")
