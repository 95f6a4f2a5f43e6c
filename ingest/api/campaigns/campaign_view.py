"""A campaign as it is shown: how many of its invitations, and of their sessions, are in which state, and when the last of them has
its turn."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MOST_CAMPAIGNS = 100
"""In one list: those that changed last."""

Count = Annotated[int, Meta(ge=0)]


class CampaignPartView(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """What of a campaign is of one channel and survey. `before` is how many invitations of any campaign the channel holds that are
    due by the time at which this one's last is."""

    channel: str
    survey: str
    states: dict[str, Count]
    reasons: dict[str, Count] = {}
    before: Annotated[
        Count, Meta(description="Invitations that the channel holds until this campaign's last one is due.")
    ] = 0
    invitations_per_second: Annotated[float, Meta(description="At which the channel lets them go.")]
    sms_per_day: Annotated[Count | UnsetType, Meta(description="The channel's, if it has a limit.")] = UNSET
    sms_today: Annotated[
        Count | UnsetType, Meta(description="Decided on the channel's day, if it has a limit.")
    ] = UNSET
    paused_since: Annotated[
        datetime | UnsetType, Meta(description="There while none of its invitations is let go here.")
    ] = UNSET
    why: Annotated[str | UnsetType, Meta(description="Why it is paused.")] = UNSET
    ends_after: Annotated[
        datetime | UnsetType,
        Meta(
            description="When its last invitation has its turn, at this pace and within the day's SMS, "
            "unless it is paused."
        ),
    ] = UNSET


class CampaignView(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """A campaign, as far as the key may see it."""

    name: str
    state: Annotated[
        Literal["running", "paused", "done"],
        Meta(
            description="- `running`: any of it is held, waiting or open\n"
            "- `paused`: all of it that is held waits for the pause's end\n- `done`: neither"
        ),
    ]
    invitations: Annotated[Count, Meta(description="In all: the sum of `states`.")]
    states: Annotated[dict[str, Count], Meta(description="How many are in which state.")]
    reasons: Annotated[
        dict[str, Count], Meta(description="Why how many of those `refused` opened nothing.")
    ] = {}
    changed_at: Annotated[datetime, Meta(description="When the last of these counts changed.")]
    ends_after: Annotated[
        datetime | UnsetType,
        Meta(
            description="When its last invitation has its turn, as things stand: replies, quiet hours and a "
            "service that is busy make it later. Left out if none is held."
        ),
    ] = UNSET
    parts: list[CampaignPartView]


class CampaignChange(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What becomes of a campaign."""

    paused: Annotated[
        bool,
        Meta(description="Whether its invitations wait, on all channels of the key. Open sessions go on."),
    ]
    why: Annotated[str, Meta(max_length=200, description="Shown as long as it is paused.")] = ""


class CampaignList(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """Campaigns, those that changed last first."""

    campaigns: list[CampaignView]
    more: Annotated[bool, Meta(description=f"Whether there are more than {MOST_CAMPAIGNS}.")] = False
