"""Which dead letters are meant? Those of these ids, or those that every filter lets through; ours of all shards in the
order in which they fell, and after them those that Dramatiq itself has given up, on either server."""

from collections.abc import Iterator, Sequence
from heapq import merge

import msgspec
import redis

from config.settings.settings import Settings
from config.store import keyspace
from engine.model.events import Opened, decode_outbound
from workers.store import archive, dead_letter_store, dramatiq_letters
from workers.store.dead_letter_store import DeadLetter, Filed
from workers.store.dramatiq_letters import DramatiqLetter

DRAMATIQ = "dramatiq"
"""The reason of what Dramatiq itself has given up."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for; empty fields let everything through. Ages are in ms; `error` is part of what went wrong, in any
    case."""

    ids: Sequence[str] = ()
    queue: str = ""
    reason: str = ""
    channel: str = ""
    survey: str = ""
    sender: str = ""
    error: str = ""
    older_ms: int = 0
    newer_ms: int = 0

    @property
    def everything(self) -> bool:
        return self == Wanted()

    @property
    def ours_only(self) -> bool:
        """Does it ask for what only our own letters have?"""
        return bool(self.channel or self.survey or self.sender or self.reason not in ("", DRAMATIQ))


class Deployment(msgspec.Struct, frozen=True):
    """Where letters lie."""

    settings: Settings
    lanes: redis.Redis
    broker: redis.Redis

    @property
    def servers(self) -> list[redis.Redis]:
        """Both, or the one that they are."""
        same = _place(self.lanes) == _place(self.broker)
        return [self.broker] if same else [self.broker, self.lanes]


class Found(msgspec.Struct, frozen=True):
    """A letter and where it lies: on `server`, of ours in shard `k`."""

    letter: DeadLetter | DramatiqLetter
    server: redis.Redis
    k: int = -1


def find(deployment: Deployment, wanted: Wanted) -> Iterator[Found]:
    """What is wanted and there."""
    if wanted.ids:
        yield from _named(deployment, wanted.ids)
        return
    now = keyspace.server_ms(deployment.lanes)
    if wanted.reason != DRAMATIQ:
        yield from _ours(deployment, wanted, now)
    if not wanted.ours_only:
        for server in deployment.servers:
            for letter in dramatiq_letters.stored(server):
                if _lets_through(wanted, letter, now):
                    yield Found(letter, server)


def survey_of(letter: DeadLetter) -> str:
    """The survey that a letter is about, as far as it says."""
    if letter.survey or letter.kind != "sms":
        return letter.survey
    try:
        return decode_outbound(letter.what).survey
    except msgspec.MsgspecError:
        return ""


def _named(deployment: Deployment, ids: Sequence[str]) -> Iterator[Found]:
    """Whatever the order of `ids`, one person's letters are found in that of their fall."""
    ours = dead_letter_store.find(deployment.lanes, deployment.settings.shards, list(dict.fromkeys(ids)))
    for k, letter in ours.values():
        yield Found(letter, deployment.lanes, k)
    for identity in dict.fromkeys(ids):
        if identity not in ours and identity.startswith(dramatiq_letters.PREFIX):
            for server in deployment.servers:
                if found := dramatiq_letters.find(server, identity):
                    yield Found(found, server)
                    break


def _ours(deployment: Deployment, wanted: Wanted, now: int) -> Iterator[Found]:
    shards = deployment.settings.shards
    of = [keyspace.shard_of(wanted.sender, shards)] if wanted.sender else range(shards)
    streams = [_placed(deployment, wanted, k, now) for k in of]
    for _, found in merge(*streams, key=lambda each: each[0]):
        yield found


def _placed(deployment: Deployment, wanted: Wanted, k: int, now: int) -> Iterator[tuple[float, Found]]:
    through = (
        each
        for each in dead_letter_store.filed(deployment.lanes, k)
        if _lets_through(wanted, each.letter, now)
    )
    filed = _of_survey(deployment.lanes, k, list(through), wanted.survey) if wanted.survey else through
    for each in filed:
        yield each.place, Found(each.letter, deployment.lanes, k)


def _of_survey(client: redis.Redis, k: int, filed: Sequence[Filed], survey: str) -> list[Filed]:
    """Those that are about `survey`. What a letter of an earlier release does not say, the archive may know."""
    silent = {each.letter.session for each in filed if each.letter.session and not survey_of(each.letter)}
    opened: dict[str, str] = {}
    if silent:
        for entry in archive.stored(client, k):
            for record in entry.records:
                if isinstance(record, Opened) and record.session in silent:
                    opened[record.session] = record.survey
    return [
        each for each in filed if (survey_of(each.letter) or opened.get(each.letter.session, "")) == survey
    ]


def _lets_through(wanted: Wanted, letter: DeadLetter | DramatiqLetter, now: int) -> bool:
    """All filters but that of the survey."""
    age_ms = now - letter.at
    if wanted.queue not in ("", letter.queue) or age_ms < wanted.older_ms:
        return False
    if wanted.newer_ms and age_ms > wanted.newer_ms:
        return False
    if isinstance(letter, DramatiqLetter):
        return wanted.error.casefold() in letter.traceback.casefold()
    said = f"{letter.code}\n{letter.why}\n{letter.traceback}"
    return (
        wanted.reason in ("", letter.reason)
        and wanted.channel in ("", letter.channel)
        and wanted.sender in ("", letter.sender)
        and wanted.error.casefold() in said.casefold()
    )


_CONNECTION = ("host", "port", "path", "db")


def _place(client: redis.Redis) -> list[object]:
    return [client.connection_pool.connection_kwargs.get(each) for each in _CONNECTION]
