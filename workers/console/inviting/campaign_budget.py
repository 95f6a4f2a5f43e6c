"""What has a campaign cost so far, and what does it cost at most from here? In segments, which are counted as they are sent. And what
may it, as somebody has written it?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import redis
from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import describe_failure
from config.archive.result_filters import SESSION_STATES, ResultFilters
from config.archive.session_results import CostTotal, count_costs
from config.invitations.invitation_cost import SurveyCosts
from config.store import keyspace, redis_client
from config.store.counts.campaigns import ONGOING_STATES
from workers.console.console_archive import LONGEST_READING_S
from workers.console.inviting.budget_view import CampaignBudget
from workers.history.readable_archive import open_readable_archive
from workers.store.deployment import Deployment

BUDGET_KEPT_MS = 400 * 86_400_000
"""As long as a campaign is."""


class CampaignSpending(msgspec.Struct, frozen=True):
    """What a campaign's sessions have cost, as far as the archive has it; and what all others of it cost at most, each counted in full:
    those that are not over, and those that the archive does not have yet (None: nothing bounds them). `unread` is why it was not read."""

    spent: list[CostTotal]
    ahead: int | None
    unread: str = ""

    @property
    def spent_segments(self) -> int:
        return sum(each.segments for each in self.spent)


class CampaignBudgets:
    """The budgets in one Redis. Each method raises redis.RedisError."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def find(self, campaign: str) -> CampaignBudget:
        """What is written last; nothing, if nobody has."""
        stored = redis_client.run_command(self._redis, ("GET", keyspace.campaign_budget_key(campaign)))
        try:
            return msgspec.msgpack.decode(stored, type=CampaignBudget) if stored else CampaignBudget()
        except msgspec.MsgspecError:  # another release wrote it
            return CampaignBudget()

    def save(self, campaign: str, terms: CampaignBudget) -> None:
        key = keyspace.campaign_budget_key(campaign)
        stored = msgspec.msgpack.encode(terms)
        redis_client.run_command(self._redis, ("SET", key, stored, "PX", BUDGET_KEPT_MS))


class SpendingReader:
    """Reads what campaigns cost. It waits: for the archive, and for the proofs of surveys, each of which it makes once."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._dearest: dict[str, int | None] = {}

    def read(self, campaign: str, told: Mapping[str, Any] | None) -> CampaignSpending:
        """`told` is what the API tells of the campaign; None: there is none yet. What cannot be read is said."""
        parts = told["parts"] if told else []
        archived = self._read_archived(campaign, sorted({part["survey"] for part in parts}))
        ahead: int | None = 0
        for survey, (ongoing, over) in _count_sessions(parts).items():
            full = ongoing + max(0, over - archived.over.get(survey, 0))
            dearest = self._dearest_session(survey) if full else 0
            ahead = None if ahead is None or dearest is None else ahead + full * dearest
        return CampaignSpending(archived.costs, ahead, archived.unread)

    def _dearest_session(self, name: str) -> int | None:
        survey = self._deployment.surveys.current(name)
        if survey is None:
            return None
        if survey.version not in self._dearest:
            costs = SurveyCosts(survey)
            self._dearest[survey.version] = costs.dearest_session if costs.is_bounded else None
        return self._dearest[survey.version]

    def _read_archived(self, campaign: str, surveys: Sequence[str]) -> "_ArchivedCosts":
        found = _ArchivedCosts()
        if not surveys:
            return found
        with open_readable_archive(self._deployment) as (archive, why):
            if archive is None:
                found.unread = f"The archive cannot be read: {why}." if why else "There is no archive."
                return found
            try:
                with archive.reading(LONGEST_READING_S) as connection:
                    for survey in surveys:
                        filters = ResultFilters(survey=survey, campaigns=(campaign,))
                        found.costs += count_costs(connection, filters)
                        over = msgspec.structs.replace(filters, states=_OVER_STATES)
                        found.over[survey] = sum(each.sessions for each in count_costs(connection, over))
            except SQLAlchemyError as e:
                return _ArchivedCosts(unread=f"The archive failed: {describe_failure(e)}.")
        return found


class _ArchivedCosts(msgspec.Struct):
    """What the archive has of a campaign: what its sessions cost, and of each survey how many are over."""

    costs: list[CostTotal] = []
    over: dict[str, int] = {}
    unread: str = ""


_OVER_STATES = tuple(state for state in SESSION_STATES if state not in ("open", "refused"))


def _count_sessions(parts: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Of each survey of a campaign, how many invitations are not over, and how many sessions are."""
    counted: dict[str, tuple[int, int]] = {}
    for part in parts:
        states: Mapping[str, int] = part["states"]
        ongoing = sum(states.get(state, 0) for state in ONGOING_STATES)
        over = sum(states.values()) - ongoing - states.get("refused", 0)
        before = counted.get(part["survey"], (0, 0))
        counted[part["survey"]] = before[0] + ongoing, before[1] + over
    return counted
