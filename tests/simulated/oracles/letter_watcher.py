"""Sees every dead letter as it falls and as it goes, and what the audit says of it."""

from collections.abc import Iterator

import msgspec

from config.store import keyspace
from engine.model.events import decode_outbound
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.dead_letters.letter_result import GONE_OUTCOMES
from workers.store.dead_letter_store import DeadLetter, decode_or_placeholder
from workers.turns.drafts import decode_mail


class LetterLife(msgspec.Struct):
    """A letter from when it fell, by the change number `fell` of the server, until it went by the change `went`, with an
    `outcome`. `subject` is the id of the event or SMS in it, empty for a deadline."""

    letter: DeadLetter
    subject: str
    fell: int
    went: int = 0
    outcome: str = ""


class LetterWatcher:
    """The dead letters of a run, in the order in which they fell."""

    def __init__(self, world: SimulatedWorld) -> None:
        self.lives: list[LetterLife] = []
        self._world = world
        self._version = (-1, 0)
        self._there: dict[str, LetterLife] = {}
        self._audited: dict[int, tuple[int, int]] = {}
        world.scheduler.observers.append(self.look)

    def of_sender(self, sender: str) -> list[LetterLife]:
        return [each for each in self.lives if each.letter.sender == sender]

    def look(self) -> None:
        """Raise PromiseBroken if a letter went without a word in the audit, or stays though the audit says that it went."""
        server = self._world.lanes
        if server.version == self._version:
            return
        self._version = server.version
        there: dict[str, bytes] = {}
        for k in range(self._world.settings.shards):
            for identity, blob in server.view.hash_fields(keyspace.dead_letters_key(k)).items():
                there[identity.decode()] = blob
        outcomes = dict(self._new_audit())
        self._note_gone(there, outcomes)
        for identity in there.keys() - self._there.keys():
            letter = decode_or_placeholder(identity, there[identity])
            life = LetterLife(letter, _subject_of(letter), server.model.changes)
            self._there[identity] = life
            self.lives.append(life)

    def _note_gone(self, there: dict[str, bytes], outcomes: dict[str, str]) -> None:
        for identity in [each for each in self._there if each not in there]:
            life = self._there.pop(identity)
            life.went = self._world.lanes.model.changes
            life.outcome = outcomes.pop(identity, "")
            if not life.outcome and not self._world.lanes.has_lost:
                raise PromiseBroken(
                    "letters_are_audited", f"the dead letter {identity} went, and the audit does not say why"
                )
        for identity, outcome in outcomes.items():
            if outcome in GONE_OUTCOMES and identity in there:
                raise PromiseBroken(
                    "letters_go", f"the audit says {outcome} of the dead letter {identity}, which stays"
                )

    def _new_audit(self) -> Iterator[tuple[str, str]]:
        """(letter, outcome) of each new entry."""
        server = self._world.lanes
        for k in range(self._world.settings.shards):
            key = keyspace.dead_letter_audit_key(k)
            last = server.view.last_entry(key)
            if last is None or last == self._audited.get(k):
                continue
            after = "({}-{}".format(*self._audited[k]) if k in self._audited else "-"
            self._audited[k] = last
            for _, fields in server.model.execute(("XRANGE", key, after, "+")):
                words = dict(zip(fields[::2], fields[1::2], strict=True))
                yield words[b"id"].decode(), words[b"outcome"].decode()


def _subject_of(letter: DeadLetter) -> str:
    try:
        return decode_outbound(letter.what).id if letter.kind == "sms" else decode_mail(letter.what).event.id
    except (msgspec.MsgspecError, ValueError):
        return ""
