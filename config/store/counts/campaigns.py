"""How many sessions of a campaign are in which state? As lua/campaigns.lua counts them, in each shard those of its people.

Law: a state is counted in the call that makes it so, a session in one state at a time. What is here only names states and adds up;
nothing looks through sessions. In one shard a count may be less than nothing, as `parley reshard` moves sessions and leaves
counts; the sum over all shards is what counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import msgspec

from config.store import keyspace
from config.store.function_calls import Command
from config.store.pauses import StoredPause, decode_pause, encode_pause
from engine.model.events import (
    ArchiveRecord,
    OpeningRefused,
    RefusalReason,
    SessionEnded,
    SessionEnding,
    SessionInvited,
)

CAMPAIGN_STATES: tuple[str, ...] = ("held", "waiting", "open", "refused", *get_args(SessionEnding))
"""As the API tells a session's state."""

ONGOING_STATES = frozenset(("held", "waiting", "open"))

HELD = "held"

FORGOTTEN = ""
"""Instead of a state: the session counts no more."""

_REASON = "/"


class StoredCampaign(msgspec.Struct):
    """What a shard has of a campaign: when (ms) that last changed, until when its invitations are held, and by "channel survey
    state" how many."""

    at: float = 0
    due: float = 0
    counts: dict[str, int] = {}


class CampaignPart(msgspec.Struct):
    """Of a campaign, what is of one channel and survey: how many are in which state, and why how many were refused."""

    channel: str
    survey: str
    states: dict[str, int] = {}
    reasons: dict[str, int] = {}

    @property
    def held(self) -> int:
        return self.states.get("held", 0)


class CampaignCounts(msgspec.Struct):
    """A campaign as it stands: `changed_at` (ms) is when any state last changed, `due_at` (ms) when the last of its
    invitations is due."""

    name: str
    changed_at: int
    due_at: int
    parts: list[CampaignPart]


def campaign_part(channel: str, survey: str) -> str:
    """By what a campaign counts: see lua/campaigns.lua."""
    return f"{channel} {survey}"


def refused_state(reason: RefusalReason | Literal["dead_letter"]) -> str:
    return f"refused{_REASON}{reason}"


DEAD_LETTER = refused_state("dead_letter")


def states_by_session(records: Iterable[ArchiveRecord]) -> dict[str, str]:
    """The last state of each session, or invitation, that these records tell of, as a campaign counts it."""
    states: dict[str, str] = {}
    for record in records:
        match record:
            case SessionInvited(session=session):
                states[session] = "open"
            case SessionEnded(session=session, how=how):
                states[session] = how
            case OpeningRefused(id=session, reason=reason):
                states[session] = "cancelled" if reason == "cancelled" else refused_state(reason)
            case _:
                pass
    return states


def read_commands(shards: int, name: str) -> list[Command]:
    """Ask for what `sum_campaign` adds up."""
    return [("HGET", keyspace.campaigns_key(k), name) for k in range(shards)]


def list_commands(shards: int) -> list[Command]:
    """Ask for what `sum_campaigns` adds up."""
    return [("HGETALL", keyspace.campaigns_key(k)) for k in range(shards)]


def pauses_command(channel: str) -> Command:
    """Ask for what `decode_pauses` reads."""
    return ("HGETALL", keyspace.campaign_pauses_key(channel))


def decode_pauses(stored: Mapping[bytes, bytes]) -> dict[str, StoredPause]:
    """The campaigns that are paused on a channel."""
    return {name.decode(errors="replace"): decode_pause(value) for name, value in stored.items()}


def pause_campaign_command(channel: str, name: str, pause: StoredPause | None) -> Command:
    """Return the command that pauses a campaign on a channel, or, without a pause, lets it go on. Both may be repeated."""
    key = keyspace.campaign_pauses_key(channel)
    return ("HDEL", key, name) if pause is None else ("HSET", key, name, encode_pause(pause))


def sum_campaign(name: str, stored: Iterable[bytes | None]) -> CampaignCounts | None:
    """Add up what shards have of a campaign; None if none has anything."""
    found = [decode_campaign(each) for each in stored if each is not None]
    if not found:
        return None
    total: dict[str, int] = {}
    for each in found:
        for place, count in each.counts.items():
            total[place] = total.get(place, 0) + count
    return CampaignCounts(
        name,
        round(max(each.at for each in found)),
        round(max(each.due for each in found)),
        _parts(total),
    )


def sum_campaigns(stored: Sequence[Mapping[bytes, bytes]]) -> list[CampaignCounts]:
    """Add up all campaigns, the one that changed last first."""
    by_name: dict[bytes, list[bytes]] = {}
    for of_shard in stored:
        for name, value in of_shard.items():
            by_name.setdefault(name, []).append(value)
    campaigns = [sum_campaign(name.decode(errors="replace"), values) for name, values in by_name.items()]
    return sorted(filter(None, campaigns), key=lambda each: (-each.changed_at, each.name))


def decode_campaign(stored: bytes) -> StoredCampaign:
    """What cannot be read counts as nothing, as for the functions."""
    try:
        return msgspec.json.decode(stored, type=StoredCampaign)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return StoredCampaign()


def _parts(total: Mapping[str, int]) -> list[CampaignPart]:
    parts: dict[tuple[str, str], CampaignPart] = {}
    for place, count in sorted(total.items()):
        channel, _, rest = place.partition(" ")
        survey, _, state = rest.partition(" ")
        state, _, reason = state.partition(_REASON)
        part = parts.setdefault((channel, survey), CampaignPart(channel, survey))
        if count > 0:
            part.states[state] = part.states.get(state, 0) + count
            if reason:
                part.reasons[reason] = count
    return [part for part in parts.values() if part.states]
