"""Which dead letters are meant? Those of these ids, or those that every filter lets through; ours of all shards in the
order in which they fell, and after them those that Dramatiq itself has given up, on either server."""

import re
from collections.abc import Collection, Iterator, Sequence
from heapq import merge

import msgspec
import redis

from config.store import keyspace, redis_client
from engine.model.events import decode_outbound
from workers.store import dead_letter_store, dramatiq_letters
from workers.store.dead_letter_store import DeadLetter
from workers.store.deployment import Deployment
from workers.store.dramatiq_letters import DramatiqLetter

DRAMATIQ_REASON = "dramatiq"
"""The reason of what Dramatiq itself has given up."""


_NUMBER = re.compile(r"\d+")

Likeness = tuple[str, str, str]
"""What is the same in letters that are alike: reason, code, and why but for the numbers in it."""


def likeness_of(reason: str, code: str, why: str) -> Likeness:
    return reason, code, _NUMBER.sub("#", why)


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects dead letters; empty fields let everything through. Ages are in ms; `error` is searched for in what went wrong,
    in any case. `alike`: only what is like this."""

    ids: Sequence[str] = ()
    queue: str = ""
    reason: str = ""
    channel: str = ""
    survey: str = ""
    sender: str = ""
    hook: str = ""
    error: str = ""
    older_ms: int = 0
    newer_ms: int = 0
    alike: Likeness | None = None

    @property
    def is_empty(self) -> bool:
        return self == DeadLetterFilter()

    @property
    def excludes_dramatiq(self) -> bool:
        """Does it ask for what only our own letters have?"""
        return bool(
            self.channel
            or self.survey
            or self.sender
            or self.hook
            or self.reason not in ("", DRAMATIQ_REASON)
            or (self.alike is not None and self.alike[0] != DRAMATIQ_REASON)
        )


class LocatedDeadLetter(msgspec.Struct, frozen=True):
    """A letter and where it lies: on `server`, of ours in shard `k`."""

    letter: DeadLetter | DramatiqLetter
    server: redis.Redis
    k: int = -1


def find_dead_letters(
    deployment: Deployment, wanted: DeadLetterFilter, shards: Collection[int] | None = None
) -> Iterator[LocatedDeadLetter]:
    """Yield the letters that the filter selects: ours oldest first, then Dramatiq's. Where it names no person or letter, of these
    `shards` alone, if they are given."""
    if wanted.ids:
        yield from _find_by_ids(deployment, wanted.ids)
        return
    now = redis_client.server_time_ms(deployment.lanes)
    if wanted.reason != DRAMATIQ_REASON:
        yield from _find_ours(deployment, wanted, shards, now)
    if not wanted.excludes_dramatiq:
        for server in deployment.distinct_servers:
            for letter in dramatiq_letters.scan_letters(server):
                if _matches_filter(wanted, letter, now):
                    yield LocatedDeadLetter(letter, server)


def likeness_of_letter(letter: DeadLetter | DramatiqLetter) -> Likeness:
    if isinstance(letter, DramatiqLetter):
        return likeness_of(DRAMATIQ_REASON, "", letter.why)
    return likeness_of(letter.reason, letter.code, letter.why)


def survey_of_dead_letter(letter: DeadLetter) -> str:
    """The survey that a letter is about, as far as it says."""
    if letter.survey or letter.kind != "sms":
        return letter.survey
    try:
        return decode_outbound(letter.what).survey
    except msgspec.MsgspecError:
        return ""


def _find_by_ids(deployment: Deployment, ids: Sequence[str]) -> Iterator[LocatedDeadLetter]:
    """Whatever the order of `ids`, one person's letters are found in that of their fall."""
    ours = dead_letter_store.find_by_ids(
        deployment.lanes, deployment.settings.shards, list(dict.fromkeys(ids))
    )
    for k, letter in ours.values():
        yield LocatedDeadLetter(letter, deployment.lanes, k)
    for identity in dict.fromkeys(ids):
        if identity not in ours and identity.startswith(dramatiq_letters.DRAMATIQ_ID_PREFIX):
            for server in deployment.distinct_servers:
                if found := dramatiq_letters.find_by_id(server, identity):
                    yield LocatedDeadLetter(found, server)
                    break


def _find_ours(
    deployment: Deployment, wanted: DeadLetterFilter, shards: Collection[int] | None, now: int
) -> Iterator[LocatedDeadLetter]:
    of: Collection[int] = range(deployment.settings.shards) if shards is None else shards
    if wanted.sender:
        of = [keyspace.shard_of(wanted.sender, deployment.settings.shards)]
    streams = [_scan_shard(deployment, wanted, k, now) for k in of]
    for _, found in merge(*streams, key=lambda each: each[0]):
        yield found


def _scan_shard(
    deployment: Deployment, wanted: DeadLetterFilter, k: int, now: int
) -> Iterator[tuple[float, LocatedDeadLetter]]:
    for each in dead_letter_store.scan_in_order(deployment.lanes, k):
        if selects_letter(wanted, each.letter, now):
            yield each.index_score, LocatedDeadLetter(each.letter, deployment.lanes, k)


def selects_letter(wanted: DeadLetterFilter, letter: DeadLetter, now: int) -> bool:
    """Whether the filter lets one of our letters through; ids are not asked for."""
    if not _matches_filter(wanted, letter, now):
        return False
    return wanted.survey in ("", survey_of_dead_letter(letter))


def _matches_filter(wanted: DeadLetterFilter, letter: DeadLetter | DramatiqLetter, now: int) -> bool:
    """All filters but that of the survey."""
    age_ms = max(0, now - letter.at)  # it may be of a clock that was set back since
    if wanted.queue not in ("", letter.queue) or age_ms < wanted.older_ms:
        return False
    if wanted.newer_ms and age_ms > wanted.newer_ms:
        return False
    if wanted.alike is not None and wanted.alike != likeness_of_letter(letter):
        return False
    if isinstance(letter, DramatiqLetter):
        return wanted.error.casefold() in letter.traceback.casefold()
    said = f"{letter.code}\n{letter.why}\n{letter.traceback}"
    return (
        wanted.reason in ("", letter.reason)
        and wanted.channel in ("", letter.channel)
        and wanted.sender in ("", letter.sender)
        and wanted.hook in ("", letter.hook)
        and wanted.error.casefold() in said.casefold()
    )
