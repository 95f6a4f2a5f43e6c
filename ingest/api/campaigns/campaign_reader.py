"""How does a campaign stand? By the counts that Redis keeps as states change (config/store/counts/campaigns.py), so nothing is looked
through, and they are exact at any moment. What is returned may be shown anywhere: nothing here knows of HTTP.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import UNSET

from config.host import THIS_HOST, Host
from config.settings.channels import ApiKey, Channel
from config.settings.settings import Settings
from config.store import keyspace
from config.store.channel_readings import daily_sms_key
from config.store.counts import campaigns
from config.store.counts.campaigns import CampaignCounts, CampaignPart
from config.store.function_calls import Command
from config.store.pauses import StoredPause
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.opening_sms import max_opening_sms
from ingest.api.campaigns.campaign_view import (
    MOST_CAMPAIGNS,
    CampaignChange,
    CampaignList,
    CampaignPartView,
    CampaignView,
)
from ingest.api.invitation_parser import utc_datetime
from ingest.intake.mailboxes import AsyncRedisClient


class CampaignReader:
    """Reads campaigns from Redis. Raises RedisUnavailableError, also if one server of a cluster does not answer: what is left would
    be no count."""

    def __init__(
        self, settings: Settings, surveys: SurveyRegistry, lanes: AsyncRedisClient, host: Host = THIS_HOST
    ) -> None:
        self._settings = settings
        self._surveys = surveys
        self._lanes = lanes
        self._host = host

    async def read(self, name: str, key: ApiKey) -> CampaignView | None:
        """The campaign; None if there is none of which the key may see anything."""
        stored = await self._lanes.run_commands(campaigns.read_commands(self._settings.shards, name))
        found = campaigns.sum_campaign(name, stored)
        views = await self._views([found] if found else [], key)
        return views[0] if views else None

    async def read_latest(self, key: ApiKey) -> CampaignList:
        stored = await self._lanes.run_commands(campaigns.list_commands(self._settings.shards))
        found = [each for each in campaigns.sum_campaigns(stored) if self._visible(each, key)]
        views = await self._views(found[:MOST_CAMPAIGNS], key)
        return CampaignList(campaigns=views, more=len(found) > MOST_CAMPAIGNS)

    async def pause(self, name: str, key: ApiKey, change: CampaignChange) -> CampaignView | None:
        """Pause the campaign on the channels on which the key may see it, or let it go on; then as `read`. It may be repeated: the
        last word holds."""
        view = await self.read(name, key)
        if view is None:
            return None
        since = self._host.wall_ms()
        pause = (
            StoredPause(by="operator", why=change.why, since=since, who=key.name) if change.paused else None
        )
        channels = dict.fromkeys(part.channel for part in view.parts)
        await self._lanes.write([campaigns.pause_campaign_command(each, name, pause) for each in channels])
        return await self.read(name, key)

    def _visible(self, campaign: CampaignCounts, key: ApiKey) -> list[CampaignPart]:
        return [
            part for part in campaign.parts if part.channel in key.channels and key.is_for_survey(part.survey)
        ]

    async def _views(self, found: Sequence[CampaignCounts], key: ApiKey) -> list[CampaignView]:
        parts = [(each, self._visible(each, key)) for each in found]
        now = self._host.wall_ms()
        before = await self._count_before(
            {(part.channel, each.due_at) for each, visible in parts for part in visible if part.held}
        )
        channels = {part.channel for _, visible in parts for part in visible}
        sms_today = await self._read_sms_today(channels, now)
        paused = await self._read_pauses(channels)
        return [
            _campaign_view(
                each,
                [
                    self._part_view(
                        part,
                        each,
                        now,
                        before.get((part.channel, each.due_at), 0),
                        sms_today,
                        paused[part.channel].get(each.name),
                    )
                    for part in visible
                ],
            )
            for each, visible in parts
            if visible
        ]

    async def _count_before(self, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Count what a channel holds that is due by a moment (ms)."""
        listed, shards = list(wanted), self._settings.shards
        commands: list[Command] = [
            ("ZCOUNT", keyspace.held_ids_key(k, channel), "-inf", due)
            for channel, due in listed
            for k in range(shards)
        ]
        counts = await self._lanes.run_commands(commands) if commands else []
        return {each: sum(counts[at * shards : (at + 1) * shards]) for at, each in enumerate(listed)}

    async def _read_sms_today(self, names: Iterable[str], now: int) -> dict[str, int]:
        limited = [
            channel
            for name in sorted(names)
            if (channel := self._settings.channels.get(name)) and channel.limits.sms_per_day
        ]
        commands = [("GET", daily_sms_key(each.name, each.timezone, now)) for each in limited]
        answers = await self._lanes.run_commands(commands) if commands else []
        return {each.name: int(answer or 0) for each, answer in zip(limited, answers, strict=True)}

    async def _read_pauses(self, names: Iterable[str]) -> dict[str, dict[str, StoredPause]]:
        """The campaigns that are paused, by channel."""
        listed = sorted(names)
        commands = [campaigns.pauses_command(name) for name in listed]
        answers = await self._lanes.run_commands(commands) if commands else []
        return {name: campaigns.decode_pauses(each) for name, each in zip(listed, answers, strict=True)}

    def _part_view(
        self,
        part: CampaignPart,
        campaign: CampaignCounts,
        now: int,
        before: int,
        sms_today: Mapping[str, int],
        pause: StoredPause | None,
    ) -> CampaignPartView:
        channel = self._settings.channels[part.channel]
        ends = self._ends_at(part, channel, now, before, sms_today.get(channel.name, 0))
        return CampaignPartView(
            channel=part.channel,
            survey=part.survey,
            states=part.states,
            reasons=part.reasons,
            before=before,
            invitations_per_second=channel.limits.pace_left(channel.timezone, 0).per_second,
            sms_per_day=channel.limits.sms_per_day or UNSET,
            sms_today=sms_today.get(channel.name, UNSET),
            paused_since=utc_datetime(pause.since) if pause else UNSET,
            why=pause.why if pause and pause.why else UNSET,
            ends_after=utc_datetime(max(ends, campaign.due_at)) if part.held and not pause else UNSET,
        )

    def _ends_at(self, part: CampaignPart, channel: Channel, now: int, before: int, sms_today: int) -> int:
        """When (ms) the channel's pace has come to the last of those that are held; each needs the day's SMS that its survey begins
        with."""
        survey = self._surveys.current(part.survey)
        pace = channel.limits.pace_left(channel.timezone, sms_today, max_opening_sms(survey) if survey else 1)
        return pace.turn_at(now, max(0, before - 1))


def _campaign_view(campaign: CampaignCounts, parts: list[CampaignPartView]) -> CampaignView:
    states = _sum_counts(part.states for part in parts)
    ends = [part.ends_after for part in parts if part.ends_after is not UNSET]
    return CampaignView(
        name=campaign.name,
        state=_state_of(parts, states),
        invitations=sum(states.values()),
        states=states,
        reasons=_sum_counts(part.reasons for part in parts),
        changed_at=utc_datetime(campaign.changed_at),
        ends_after=max(ends) if ends else UNSET,
        parts=parts,
    )


def _state_of(
    parts: Sequence[CampaignPartView], states: Mapping[str, int]
) -> Literal["running", "paused", "done"]:
    if not any(states.get(state) for state in campaigns.ONGOING_STATES):
        return "done"
    held = [part for part in parts if part.states.get("held")]
    return "paused" if held and all(part.paused_since is not UNSET for part in held) else "running"


def _sum_counts(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in found:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total
