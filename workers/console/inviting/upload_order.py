"""What a table of people is to be invited to, as the form of the page says it."""

import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import msgspec

from config.invitations.invitation_body import MAX_CAMPAIGN_LENGTH
from config.invitations.people_table import UnknownCountryError, parse_country
from config.settings.settings import Settings
from engine.model.errors import ParleyError

FORM_FIELDS = ("survey", "campaign", "country", "day", "time", "price", "budget")

_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")


class InvalidOrderError(ParleyError):
    """A field of the form is not as it should be. The message says which, and what was expected."""


class UploadOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Who are asked what, and when: `send_at` is as the API takes it; empty: at once. `price` is money for a segment, `budget` what the
    campaign may cost, in that money, or without a price in segments; empty: nobody has said. `by` uploaded it `at` (ms); the table has
    `rows`, with such `fields` of an invitation and such `variables`."""

    survey: str
    channel: str
    campaign: str
    country: str = ""
    send_at: str = ""
    price: str = ""
    budget: str = ""
    file_name: str = ""
    by: str = ""
    at: int = 0
    rows: int = 0
    fields: list[str] = []
    variables: list[str] = []

    @property
    def fixed_fields(self) -> dict[str, Any]:
        """What each of its invitations has, unless its row says otherwise."""
        written = {"channel": self.channel, "campaign": self.campaign, "sendAt": self.send_at}
        return {name: value for name, value in written.items() if value}


def offered_choices(settings: Settings) -> list[tuple[str, str]]:
    """Each survey on each channel that offers it: what the form has for it, and what a person reads."""
    return [
        (f"{survey} {channel.name}", f"{survey} on {channel.name}")
        for channel in settings.channels.values()
        for survey in channel.surveys
    ]


def read_order(settings: Settings, form: Mapping[str, str]) -> UploadOrder:
    """Raises InvalidOrderError."""
    written = {name: form.get(name, "").strip() for name in FORM_FIELDS}
    if written["survey"] not in dict(offered_choices(settings)):
        raise InvalidOrderError("Choose the survey, and the channel by which people are asked")
    survey, _, channel = written["survey"].partition(" ")
    campaign = written["campaign"]
    if not campaign or len(campaign) > MAX_CAMPAIGN_LENGTH or not campaign.isprintable():
        raise InvalidOrderError(
            f"Give the campaign a name, of up to {MAX_CAMPAIGN_LENGTH} letters in one line, such as "
            "winter-2026"
        )
    if campaign in (".", ".."):
        raise InvalidOrderError(
            f"Give the campaign another name than {campaign!r}, which no address can have"
        )
    try:
        country = parse_country(written["country"])
    except UnknownCountryError as e:
        raise InvalidOrderError(f"Country {e}") from e
    price = _read_money("Price of a segment", written["price"])
    budget = _read_money("Budget", written["budget"])
    send_at = _read_send_at(written["day"], written["time"], settings.channels[channel].timezone)
    return UploadOrder(
        survey=survey, channel=channel, campaign=campaign, country=country, send_at=send_at, price=price,
        budget=budget,
    )  # fmt: skip


def _read_money(field: str, written: str) -> str:
    if not written:
        return ""
    if not _AMOUNT.fullmatch(written):
        raise InvalidOrderError(
            f"{field}: expected a number with a point, such as 0.05 or 1000, not {written!r}"
        )
    return written


def _read_send_at(day: str, at: str, zone: Any) -> str:
    """Nothing: at once; a time alone is where each person is; with a day it is the channel's."""
    if at and not _TIME.fullmatch(at):
        raise InvalidOrderError(f"Time: expected one such as 09:00, not {at!r}")
    if not day:
        return at
    if not at:
        raise InvalidOrderError("Time: a day needs one, such as 09:00")
    try:
        moment = datetime.combine(date.fromisoformat(day), time.fromisoformat(at), zone)
    except ValueError as e:
        raise InvalidOrderError(f"Day: expected one such as 2026-12-01, not {day!r}") from e
    return moment.isoformat()
