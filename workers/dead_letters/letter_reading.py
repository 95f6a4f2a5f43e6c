"""What is known of single dead letters: all about one, what was done with it last, how many there are of each reason."""

from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import TypeVar

import msgspec

from config.store import keyspace, redis_client, stored_values
from engine.surveys.survey_registry import SurveyRegistry
from workers.dead_letters.event_replay import preview_event
from workers.dead_letters.filters import DRAMATIQ_REASON, LocatedDeadLetter, survey_of_dead_letter
from workers.dead_letters.replay_decision import ReplayDecision
from workers.dead_letters.view import JsonObject, event_letter_details, letter_details
from workers.store import dead_letter_store, dramatiq_letters
from workers.store.dead_letter_store import DeadLetter
from workers.store.deployment import Deployment
from workers.store.dramatiq_letters import DramatiqLetter

SomeLetter = TypeVar("SomeLetter", DeadLetter, DramatiqLetter, DeadLetter | DramatiqLetter)

MAX_OPERATOR_NAME_LENGTH = 80
"""Of who replays or drops, as the audit has it."""


def read_lane_now(deployment: Deployment, sender: str) -> bytes:
    """Return the stored state of a person's lane; empty if there is none."""
    k = keyspace.shard_of(sender, deployment.settings.shards)
    stored = redis_client.run_command(deployment.lanes, ("GET", keyspace.lane_key(k, sender)))
    return stored_values.lane_state(stored)


def details_of(
    deployment: Deployment, letter: DeadLetter, judged: ReplayDecision | None, surveys: SurveyRegistry
) -> JsonObject:
    """All that is known of a letter. `judged` is what a replay would do (None: no worker would start), `surveys` knows the versions
    that lanes name."""
    if letter.kind == "hook":
        return event_letter_details(letter, preview_event(deployment.settings, letter))
    return letter_details(letter, read_lane_now(deployment, letter.sender), judged, surveys)


def without_content(found: LocatedDeadLetter) -> LocatedDeadLetter:
    """The letter without its content, state, attempts and traceback, so that a hundred thousand fit in memory."""
    if isinstance(found.letter, DramatiqLetter):
        return found
    slim = msgspec.structs.replace(without_bulk(found.letter), why="")
    return msgspec.structs.replace(found, letter=slim)


def without_bulk(letter: SomeLetter) -> SomeLetter:
    """The letter, as far as a list shows it."""
    if isinstance(letter, DramatiqLetter):
        return letter
    survey = survey_of_dead_letter(letter)
    return msgspec.structs.replace(letter, what=b"", survey=survey, state=None, tries=[], traceback="")


def last_audit_entry_of(deployment: Deployment, identity: str) -> dead_letter_store.AuditEntry | None:
    """What was done last with a letter, if it is among the last things that were done."""
    if identity.startswith(dramatiq_letters.DRAMATIQ_ID_PREFIX):
        known = (
            dead_letter_store.last_audit_entry(server, 0, identity) for server in deployment.distinct_servers
        )
    else:
        known = (
            dead_letter_store.last_audit_entry(deployment.lanes, k, identity)
            for k in range(deployment.settings.shards)
        )
    return max(filter(None, known), key=attrgetter("at"), default=None)


def count_reasons(found: Iterable[LocatedDeadLetter]) -> Counter[str]:
    return Counter(getattr(each.letter, "reason", DRAMATIQ_REASON) for each in found)


def format_reason_counts(reasons: Counter[str]) -> str:
    """`12 rejected, 3 engine_error`."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def error_text(letter: DeadLetter | DramatiqLetter) -> str:
    """What went wrong, in a line."""
    if isinstance(letter, DramatiqLetter):
        return f"{letter.actor}, {letter.retries} retries: {letter.why}".removesuffix(": ")
    return f"{letter.code} {letter.why}".strip()
