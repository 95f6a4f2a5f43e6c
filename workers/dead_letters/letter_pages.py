"""Dead letters in the order of `parley dead list`, page by page, in bounded time: what was looked at before is not looked at again,
and no more is than MAX_LETTERS_LOOKED_AT, however few the filter lets through."""

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from math import inf
from typing import NamedTuple

from config.store import keyspace, redis_client
from workers.dead_letters.filters import (
    DRAMATIQ_REASON,
    DeadLetterFilter,
    LocatedDeadLetter,
    find_dead_letters,
    selects_letter,
)
from workers.store import dead_letter_store
from workers.store.dead_letter_store import DeadLetter
from workers.store.deployment import Deployment

MAX_LETTERS_LOOKED_AT = 2_000
_READ_AT_ONCE = 200
_PLACES_AT_ONCE = 50


class LetterPlace(NamedTuple):
    """Where a letter is among those of all shards."""

    index_score: float
    k: int
    id: str

    def __str__(self) -> str:
        return f"{self.index_score!r}~{self.k}~{self.id}"

    @classmethod
    def parse(cls, written: str) -> "LetterPlace | None":
        score, _, rest = written.partition("~")
        k, _, identity = rest.partition("~")
        try:
            return cls(float(score), int(k), identity)
        except ValueError:
            return None


class LettersFound(NamedTuple):
    """Letters of a page, and after which place the next is; None: that was the last. `places` are those of the letters, if they have
    any in this order."""

    letters: list[LocatedDeadLetter]
    next_after: LetterPlace | None
    places: Sequence[LetterPlace] = ()

    def first(self, limit: int) -> "LettersFound":
        """A shorter page, with the first of its letters."""
        if len(self.letters) <= limit:
            return self
        next_after = self.places[limit - 1] if self.places else None
        return LettersFound(self.letters[:limit], next_after, self.places[:limit])


def find_letter_page(
    deployment: Deployment, wanted: DeadLetterFilter, after: LetterPlace | None, limit: int
) -> LettersFound:
    """Return the next letters that the filter selects. Those of Dramatiq are looked for only where the filter asks for them, as all
    keys are looked through for that. Raises redis.RedisError."""
    if wanted.ids or wanted.reason == DRAMATIQ_REASON:
        return LettersFound(list(islice(find_dead_letters(deployment, wanted), limit)), None)
    now = redis_client.server_time_ms(deployment.lanes)
    found: list[LocatedDeadLetter] = []
    places: list[LetterPlace] = []
    last: LetterPlace | None = None
    for looked_at, (place, letter) in enumerate(_scan_all(deployment, wanted, after), 1):
        if selects_letter(wanted, letter, now):
            if len(found) == limit:
                return LettersFound(found, last, places)
            places.append(place)
            found.append(LocatedDeadLetter(letter, deployment.lanes, place.k))
        last = place
        if looked_at == MAX_LETTERS_LOOKED_AT:
            return LettersFound(found, last, places)
    return LettersFound(found, None, places)


def select_letters(deployment: Deployment, wanted: DeadLetterFilter) -> Iterator[LocatedDeadLetter]:
    """Yield all letters that the filter selects, in the same order and of the same places."""
    if wanted.ids or wanted.reason == DRAMATIQ_REASON:
        yield from find_dead_letters(deployment, wanted)
        return
    now = redis_client.server_time_ms(deployment.lanes)
    for place, letter in _scan_all(deployment, wanted, None):
        if selects_letter(wanted, letter, now):
            yield LocatedDeadLetter(letter, deployment.lanes, place.k)


def _scan_all(
    deployment: Deployment, wanted: DeadLetterFilter, after: LetterPlace | None
) -> Iterator[tuple[LetterPlace, DeadLetter]]:
    places = _scan_places(deployment, wanted, after)
    while page := list(islice(places, _READ_AT_ONCE)):
        letters = dead_letter_store.read_letters(deployment.lanes, [(place.k, place.id) for place in page])
        for place, letter in zip(page, letters, strict=True):
            if letter is not None:
                yield place, letter


def _scan_places(
    deployment: Deployment, wanted: DeadLetterFilter, after: LetterPlace | None
) -> Iterator[LetterPlace]:
    """Yield where letters are, in order; the first of all shards are read in one round trip."""
    shards = deployment.settings.shards
    of = [keyspace.shard_of(wanted.sender, shards)] if wanted.sender else range(shards)
    score = -inf if after is None else after.index_score
    commands = [dead_letter_store.index_page_command(k, score, 0, _PLACES_AT_ONCE) for k in of]
    answers = redis_client.run_commands(deployment.lanes, commands)
    first = (dead_letter_store.parse_index_page(answer) for answer in answers)
    streams = (_scan_shard(deployment, k, score, page) for k, page in zip(of, first, strict=True))
    for place in merge(*streams):
        if after is None or place > after:
            yield place


def _scan_shard(
    deployment: Deployment, k: int, score: float, page: list[tuple[float, str]]
) -> Iterator[LetterPlace]:
    """Yield the places of a shard from `score` on, of which `page` are the first. Of letters that vanish meanwhile, one that fell
    after them may be left out."""
    at = 0
    while page:
        yield from (LetterPlace(place, k, identity) for place, identity in page)
        if len(page) < _PLACES_AT_ONCE:
            return
        at += len(page)
        command = dead_letter_store.index_page_command(k, score, at, _PLACES_AT_ONCE)
        page = dead_letter_store.parse_index_page(redis_client.run_command(deployment.lanes, command))
