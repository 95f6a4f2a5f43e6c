"""How are chosen dead letters previewed, replayed or dropped, Parley's and Dramatiq's own? Each function yields one result
a letter. Raises redis.RedisError; what was yielded before that is done."""

from collections.abc import Callable, Collection, Iterator, Sequence

import redis

from config.host import Host
from config.settings.settings import Settings
from workers.dead_letters.event_replay import is_refused_event, preview_event, replay_events
from workers.dead_letters.filters import LocatedDeadLetter
from workers.dead_letters.letter_result import LetterResult
from workers.dead_letters.replay import DeadLetterReplayer, outcome_of
from workers.dead_letters.replay_decision import ReplayOption
from workers.dead_letters.replay_order import LetterReference, ReplayPacer
from workers.store import dead_letter_store, dramatiq_letters
from workers.store.dead_letter_store import DeadLetter
from workers.store.deployment import Deployment
from workers.store.dramatiq_letters import DramatiqLetter

LETTERS_PAGE = 128

ReplayerBuilder = Callable[[Deployment, str, Collection[ReplayOption]], DeadLetterReplayer]
"""Builds what replays on a deployment, in somebody's name, with options: workers/composition.py has it."""


def preview_letters(
    redress: DeadLetterReplayer,
    settings: Settings,
    found: Sequence[LocatedDeadLetter],
    options: Collection[ReplayOption],
) -> Iterator[LetterResult]:
    """Yield for each letter what a replay would do with it. Reads page by page."""
    for at in range(0, len(found), LETTERS_PAGE):
        page = found[at : at + LETTERS_PAGE]
        ours = _readable_letters(page)
        judged = redress.preview_by_id([_reference_to(letter) for letter in ours])
        for each in page:
            if isinstance(each.letter, DramatiqLetter):
                yield LetterResult(
                    each.letter.id, "requeued" if each.letter.readable else "failing", each.letter.why
                )
            elif is_refused_event(each):
                yield preview_event(settings, each.letter)
            elif not each.letter.sender:
                yield _unreadable_result(each.letter)
            elif (known := judged.get(each.letter.id)) is None:
                yield LetterResult(each.letter.id, "gone")
            else:
                yield LetterResult(each.letter.id, outcome_of(known, options), known.why, known.sms_texts)


def replay_letters(
    redress: DeadLetterReplayer,
    settings: Settings,
    found: Sequence[LocatedDeadLetter],
    by: str,
    rate: float,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[LetterResult]:
    """Replay letters, `rate` a second if that is not 0, and yield what came of each. Begins no other if it `is_stopping`."""
    references = [_reference_to(letter) for letter in _readable_letters(found)]
    yield from redress.replay(references, rate, is_stopping)
    pace = ReplayPacer(rate, redress.host)
    refused = list(filter(is_refused_event, found))
    yield from replay_events(settings, refused, by, pace, redress.host, is_stopping)
    for each in found:
        if isinstance(each.letter, DramatiqLetter):
            pace.wait_for_permits(1)
            if is_stopping():
                return
            pace.count_tried(1)
            yield _requeue_letter(each.server, each.letter, by, redress.host)
        elif not (each.letter.sender or is_refused_event(each)):
            yield _unreadable_result(each.letter)


def _readable_letters(found: Sequence[LocatedDeadLetter]) -> list[DeadLetter]:
    """Our own letters of lanes, but for those of which nobody knows whose they are."""
    return [
        each.letter
        for each in found
        if isinstance(each.letter, DeadLetter) and each.letter.sender and not is_refused_event(each)
    ]


def _unreadable_result(letter: DeadLetter) -> LetterResult:
    return LetterResult(letter.id, "failing", "this letter cannot be read by this release")


def _reference_to(letter: DeadLetter) -> LetterReference:
    return LetterReference(letter.id, letter.sender, letter.reason)


def _requeue_letter(server: redis.Redis, letter: DramatiqLetter, by: str, host: Host) -> LetterResult:
    try:
        there = dramatiq_letters.requeue(server, letter, by, host)
    except ValueError as e:
        return LetterResult(letter.id, "failing", str(e))
    return LetterResult(letter.id, "requeued" if there else "gone")


def drop_letters(
    found: Sequence[LocatedDeadLetter], by: str, is_stopping: Callable[[], bool] = lambda: False
) -> Iterator[LetterResult]:
    """Drop letters, and yield what came of each. Begins no other page of them if it `is_stopping`."""
    pages: dict[int, list[str]] = {}
    for each in found:
        if isinstance(each.letter, DramatiqLetter):
            there = dramatiq_letters.drop(each.server, each.letter, by)
            yield LetterResult(each.letter.id, "dropped" if there else "gone")
        else:
            pages.setdefault(each.k, []).append(each.letter.id)
    for k, ids in pages.items():
        for at in range(0, len(ids), LETTERS_PAGE):
            page = ids[at : at + LETTERS_PAGE]
            if is_stopping():
                return
            gone = dead_letter_store.discard(found[0].server, k, page, by, "dropped")
            for identity, there in zip(page, gone, strict=True):
                yield LetterResult(identity, "dropped" if there else "gone")
