"""At the end of a run: is nothing left of whoever was erased, but that they said stop and what tells copies from news?"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from config.store import keyspace, stored_values
from engine.model.events import OpeningRefused, SessionInvited, SessionOpened, SmsReceived
from tests.simulated.actors.operators import Erasure, Operator
from tests.simulated.oracles.letter_watcher import LetterWatcher
from tests.simulated.oracles.stream_watcher import StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.store import event_stream


class ErasureOracle:
    """Judges the erasures that operators were told of."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        letters: LetterWatcher,
        operators: Sequence[Operator],
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._letters = letters
        self._operators = operators

    def judge(self) -> None:
        """Raise PromiseBroken for the first promise that does not hold."""
        for operator in self._operators:
            for erasure in operator.erasures:
                self._judge_copies(erasure)
                if not self._is_back(erasure):
                    for trace in self._traces(erasure.sender):
                        raise PromiseBroken("erased", f"{erasure.sender} was erased, and there is {trace}")

    def _first_accepted(self, sender: str) -> Mapping[str, int]:
        """When (us) each event of a person was first acknowledged."""
        firsts: dict[str, int] = {}
        for each in self._world.ledger.acceptances:
            if each.sender == sender:
                firsts.setdefault(each.event.id, each.at_us)
        return firsts

    def _is_back(self, erasure: Erasure) -> bool:
        """Whether they wrote, or were invited, anew since."""
        invited = {each.id for each in self._world.ledger.invitations if each.sender == erasure.sender}
        if invited - self._world.ledger.invited_before(erasure.sender, erasure.begun_us):
            return True
        return any(at_us >= erasure.begun_us for at_us in self._first_accepted(erasure.sender).values())

    def _judge_copies(self, erasure: Erasure) -> None:
        """A copy that comes within PARLEY_REPEAT_DAYS changes nothing, though the person is erased meanwhile."""
        applied = Counter(
            record.id for record, _ in of_type(self._watcher.records(erasure.sender), SmsReceived)
        )
        for identity, times in applied.items():
            if times > 1:
                raise PromiseBroken(
                    "applied_once", f"{identity} of {erasure.sender} was applied {times} times"
                )
        known = {
            each for each, at_us in self._first_accepted(erasure.sender).items() if at_us < erasure.begun_us
        }
        known |= self._world.ledger.invited_before(erasure.sender, erasure.begun_us)
        for record, entry in self._watcher.records(erasure.sender):
            match record:
                case (
                    SmsReceived(id=identity) | OpeningRefused(id=identity) | SessionInvited(session=identity)
                ):
                    pass
                case SessionOpened(session=identity):
                    pass
                case _:
                    continue
            if entry.change > erasure.done and identity in known:
                raise PromiseBroken(
                    "applied_once", f"{identity} of {erasure.sender} was news after they were erased"
                )

    def _traces(self, sender: str) -> Iterator[str]:
        onlooker, shards = self._world.onlooker(), self._world.settings.shards
        for key in onlooker.scan_iter(count=10_000):
            if sender.encode() in key and not self._is_bare_fence(key):
                yield f"the key {key.decode()}"
        k = keyspace.shard_of(sender, shards)
        for entry in event_stream.scan_entries(onlooker, k):
            if entry.sender == sender:
                yield f"an entry of the event stream: {entry.records}"
        for key in onlooker.scan_iter(keyspace.session_key(k, "*"), count=10_000):
            if (onlooker.get(key) or b"").endswith(sender.encode()):
                yield f"the session {key.decode()}"
        for life in self._letters.of_sender(sender):
            if not life.went:
                yield f"the dead letter {life.letter.id}"
        for stored in self._world.lanes.view.hash_fields(keyspace.held_invitations_key(k)).values():
            if stored.startswith(sender.encode()):
                yield "an invitation that is held"

    def _is_bare_fence(self, key: bytes) -> bool:
        """Whether a key is what a copy leaves: "nobody of whom anything is known: no more than the fence, for a reply that is
        lost" (lanes.lua)."""
        stored = self._world.lanes.view.string(key.decode())
        return b":lane:" in key and stored is not None and not stored_values.lane_state(stored)
