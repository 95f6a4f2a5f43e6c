"""What comes of dead letters that an operator has chosen, ours and Dramatiq's own? They are looked at, replayed or dropped,
and of each it is told what came of it. Raises redis.RedisError; what was told by then is done."""

from collections.abc import Collection, Iterator, Sequence

import redis

from workers.dead_letters.filters import Found
from workers.dead_letters.replay import Done, Redress, outcome_of
from workers.dead_letters.replay_decision import Option
from workers.dead_letters.replay_order import Chosen, Pace
from workers.store import dead_letter_store, dramatiq_letters
from workers.store.dead_letter_store import DeadLetter
from workers.store.dramatiq_letters import DramatiqLetter

PAGE = 128


def looked_at(redress: Redress, found: Sequence[Found], options: Collection[Option]) -> Iterator[Done]:
    """What a replay would do with each, in pages."""
    for at in range(0, len(found), PAGE):
        page = found[at : at + PAGE]
        ours = _readable(page)
        judged = redress.look_at([_to_replay(letter) for letter in ours])
        for each in page:
            if isinstance(each.letter, DramatiqLetter):
                yield Done(each.letter.id, "requeued" if each.letter.readable else "failing", each.letter.why)
            elif not each.letter.sender:
                yield _unreadable(each.letter)
            elif (known := judged.get(each.letter.id)) is None:
                yield Done(each.letter.id, "gone")
            else:
                yield Done(each.letter.id, outcome_of(known, options), known.why, known.says)


def replayed(redress: Redress, found: Sequence[Found], by: str, rate: float) -> Iterator[Done]:
    yield from redress.run([_to_replay(letter) for letter in _readable(found)], rate)
    pace = Pace(rate)
    for each in found:
        if isinstance(each.letter, DramatiqLetter):
            pace.wait(1)
            pace.spend(1)
            yield _requeued(each.server, each.letter, by)
        elif not each.letter.sender:
            yield _unreadable(each.letter)


def _readable(found: Sequence[Found]) -> list[DeadLetter]:
    """Our own letters, but for those of which nobody knows whose they are."""
    return [each.letter for each in found if isinstance(each.letter, DeadLetter) and each.letter.sender]


def _unreadable(letter: DeadLetter) -> Done:
    return Done(letter.id, "failing", "this letter cannot be read by this release")


def _to_replay(letter: DeadLetter) -> Chosen:
    return Chosen(letter.id, letter.sender, letter.reason)


def _requeued(server: redis.Redis, letter: DramatiqLetter, by: str) -> Done:
    try:
        there = dramatiq_letters.requeue(server, letter, by)
    except ValueError as e:
        return Done(letter.id, "failing", str(e))
    return Done(letter.id, "requeued" if there else "gone")


def dropped(found: Sequence[Found], by: str) -> Iterator[Done]:
    pages: dict[int, list[str]] = {}
    for each in found:
        if isinstance(each.letter, DramatiqLetter):
            there = dramatiq_letters.drop(each.server, each.letter, by)
            yield Done(each.letter.id, "dropped" if there else "gone")
        else:
            pages.setdefault(each.k, []).append(each.letter.id)
    for k, ids in pages.items():
        for at in range(0, len(ids), PAGE):
            page = ids[at : at + PAGE]
            gone = dead_letter_store.discard(found[0].server, k, page, by, "dropped")
            for identity, there in zip(page, gone, strict=True):
                yield Done(identity, "dropped" if there else "gone")
