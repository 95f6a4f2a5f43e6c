"""At the end of a run: does a campaign count what came of its invitations, and nothing else?"""

from collections import Counter
from collections.abc import Collection, Sequence

from config.store import keyspace
from config.store.counts import campaigns
from tests.simulated.oracles.letter_watcher import LetterWatcher
from tests.simulated.oracles.stream_watcher import StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld


class CampaignOracle:
    """Judges the counts of one campaign, to which these invitations belong."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        letters: LetterWatcher,
        senders: Sequence[str],
        name: str,
        invited: Collection[str],
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._letters = letters
        self._senders = senders
        self._name = name
        self._invited = invited

    def judge(self) -> None:
        """Raise PromiseBroken if the counts differ from what the event streams tell."""
        view, shards = self._world.lanes.view, range(self._world.settings.shards)
        stored = [view.hash_fields(keyspace.campaigns_key(k)).get(self._name.encode()) for k in shards]
        found = campaigns.sum_campaign(self._name, stored)
        counted = Counter(
            {
                campaigns.refused_state(reason) if state == "refused" else state: count
                for part in (found.parts if found else ())
                for state, of_state in part.states.items()
                for reason, count in (part.reasons if state == "refused" else {"": of_state}).items()
            }
        )
        states = {
            session: state
            for sender in self._senders
            for session, state in campaigns.states_by_session(
                record for record, _ in self._watcher.records(sender)
            ).items()
        }
        came = Counter(states[session] for session in self._invited if session in states)
        aside = {each.subject for each in self._letters.lives} - states.keys()
        came[campaigns.DEAD_LETTER] += len(aside.intersection(self._invited))
        if +came != counted:
            raise PromiseBroken("counted", f"the campaign counts {dict(counted)}, and it was {dict(+came)}")
