"""At the end of a run: did one thing, and only one, come of each invitation that was accepted?"""

from collections import Counter
from collections.abc import Sequence

from config.store import keyspace
from engine.model.events import OpeningRefused, SessionEnded, SessionInvited
from tests.simulated.actors.operators import Operator
from tests.simulated.oracles.letter_watcher import LetterWatcher
from tests.simulated.oracles.stream_watcher import StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld


class InvitationOracle:
    """Judges the invitations of these people, some of whom operators opted out before they ever wrote."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        letters: LetterWatcher,
        senders: Sequence[str],
        operators: Sequence[Operator] = (),
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._letters = letters
        self._senders = senders
        self._operators = operators

    def judge(self) -> None:
        """Raise PromiseBroken for the first promise that does not hold."""
        came: dict[str, Counter[str]] = {}
        whose: dict[str, set[str]] = {}
        for sender in self._senders:
            for record, _ in self._watcher.records(sender):
                match record:
                    case SessionInvited(session=identity):
                        what = "opened"
                        whose.setdefault(identity, set()).add(sender)
                        if any(
                            each.added.get(sender, 1 << 60) < record.at * 1_000 for each in self._operators
                        ):
                            raise PromiseBroken("stop", f"{sender} was invited, and has opted out")
                    case OpeningRefused(id=identity, reason=reason):
                        what = "cancelled" if reason == "cancelled" else "refused"
                    case _:
                        continue
                came.setdefault(identity, Counter())[what] += 1
        for identity, outcomes in came.items():
            if outcomes.total() > 1:
                raise PromiseBroken("invited_once", f"of the invitation {identity} came {dict(outcomes)}")
        aside = {each.subject for each in self._letters.lives}
        for each in self._world.ledger.invitations:
            if each.outcome in ("accepted", "repeated") and each.id not in came and each.id not in aside:
                raise PromiseBroken(
                    "nothing_lost", f"the invitation {each.id} was accepted, and nothing came of it"
                )
            if each.outcome == "accepted" and whose.get(each.id, {each.sender}) != {each.sender}:
                raise PromiseBroken("one_reference", f"{each.id} invites {each.sender}, and {whose[each.id]}")
        self._judge_held()
        self._judge_cancelled(came)

    def _judge_held(self) -> None:
        for k in range(self._world.settings.shards):
            if left := self._world.lanes.view.hash_fields(keyspace.held_invitations_key(k)):
                raise PromiseBroken(
                    "held_until_released", f"{list(left)} are held, and their turn never comes"
                )

    def _judge_cancelled(self, came: dict[str, Counter[str]]) -> None:
        """Of what was cancelled no session goes on."""
        ends = {
            record.session: record.how
            for sender in self._senders
            for record, _ in self._watcher.records(sender)
            if isinstance(record, SessionEnded)
        }
        for session in self._world.ledger.cancelled:
            if came.get(session, Counter())["opened"] and ends.get(session) == "idle":
                raise PromiseBroken("cancelled", f"{session} was cancelled, and went on")
