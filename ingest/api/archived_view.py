"""How are sessions and surveys shown as the archive has them? Pure."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from config.archive.pseudonyms import Pseudonyms
from config.archive.session_pages import SessionOrder, SessionRows
from engine.model.answer_view import AnswerView, writable_value
from engine.model.events import RefusalReason, SessionEnding
from ingest.api.invitation_parser import utc_datetime
from ingest.api.page_cursor import write_cursor

ArchivedState = Literal["open", "refused"] | SessionEnding
"""`refused`: an invitation of which no session came."""

_SEVERAL_CHOICES = "choices"


class AnswerResult(AnswerView, kw_only=True, frozen=True):
    """The last answer to a step: as it was written and read, and what came before it."""

    type: Annotated[str | UnsetType, Meta(description="The answer's type in the survey's file.")] = UNSET
    at: datetime | UnsetType = UNSET
    seconds: Annotated[float | UnsetType, Meta(description="From the question to the answer.")] = UNSET
    misreads: Annotated[int, Meta(description="Replies before it that could not be read.")] = 0


class ResultView(msgspec.Struct, kw_only=True, rename="camel"):
    """A session as the archive has it; or an invitation of which none came."""

    cursor: Annotated[str, Meta(description="What comes after it is asked for with `after`.")]
    id: str
    state: ArchivedState
    reason: Annotated[RefusalReason | UnsetType, Meta(description="Why nothing opened.")] = UNSET
    why: Annotated[
        str | UnsetType, Meta(description="What the provider said of a number that is unreachable.")
    ] = UNSET
    channel: str
    identifier: Annotated[
        str | UnsetType, Meta(description="The person's number, for keys that may see numbers.")
    ] = UNSET
    pseudonym: Annotated[
        str | UnsetType,
        Meta(description="The same for all sessions of a person, in all that this archive tells."),
    ] = UNSET
    survey: str
    version: str
    language: str
    originator: str
    client_reference: str
    campaign: str
    invited: Annotated[bool, Meta(description="By the API or an operator; else the person began.")]
    opened_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET
    answers: Annotated[dict[str, AnswerResult], Meta(description="By step; the last to each.")]
    variables: Annotated[dict[str, str], Meta(description="By key, in the spelling in which it came.")]
    misreads: Annotated[int, Meta(description="Replies that could not be read.")]
    received: Annotated[int, Meta(description="SMS from the person.")]
    sent: Annotated[int, Meta(description="SMS to the person.")]
    segments: Annotated[int, Meta(description="Of those, as we count them.")]
    cost_micros: Annotated[
        int, Meta(description="In millionths of `currency`, as far as the provider has told by now.")
    ]
    currency: str


class SessionListPage(msgspec.Struct, kw_only=True, rename="camel"):
    """A page of sessions."""

    results: Sequence[ResultView]
    next: Annotated[
        str, Meta(description="What comes after this page is asked for with `after`, now or later.")
    ]
    more: Annotated[bool, Meta(description="There is more already: ask again at once.")]
    complete_until: Annotated[
        datetime | UnsetType,
        Meta(
            description="Without `more`: every session before this moment is in this page or an earlier one."
        ),
    ] = UNSET


class VersionView(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """A version of a survey."""

    version: str
    first_at: Annotated[
        datetime | UnsetType,
        Meta(description="When the archive first had it; not there before a session opened."),
    ] = UNSET
    current: Annotated[bool, Meta(description="New sessions open on it.")]


class SurveyView(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """A survey that a channel offers, or that the archive has sessions of."""

    name: str
    title: str
    languages: Sequence[str]
    channels: Annotated[
        Sequence[str], Meta(description="Those of the key's that offer it; none: it is of the past.")
    ]
    versions: Annotated[Sequence[VersionView], Meta(description="The oldest first.")]
    sessions: Annotated[
        dict[str, int], Meta(description="How many there are in each state, on the key's channels.")
    ]


class SurveyList(msgspec.Struct, kw_only=True, frozen=True):
    """All surveys that the key may see."""

    surveys: Sequence[SurveyView]


def view_result(
    found: SessionRows, order: SessionOrder, pseudonyms: Pseudonyms | None, *, numbers: bool
) -> ResultView:
    """The view of one session. `numbers`: the key may see them."""
    row = found.row
    refused = row.state == "refused"
    return ResultView(
        cursor=write_cursor(order, found.place),
        id=row.session,
        state=row.state,
        reason=row.why if refused else UNSET,
        why=row.why or UNSET if row.state == "unreachable" else UNSET,
        channel=row.channel,
        identifier=row.sender if numbers else UNSET,
        pseudonym=pseudonyms.of(row.sender) if pseudonyms is not None else UNSET,
        survey=row.survey,
        version=row.version,
        language=row.language,
        originator=row.originator,
        client_reference=row.reference,
        campaign=row.campaign,
        invited=row.invited,
        opened_at=_moment(row.opened_at),
        ended_at=_moment(row.ended_at),
        answers=_last_answers(found.answers),
        variables={each.name: each.value for each in found.variables},
        misreads=row.misreads,
        received=row.received,
        sent=row.sent,
        segments=row.segments,
        cost_micros=row.cost_micros,
        currency=row.currency,
    )


def _moment(ms: int | None) -> datetime | UnsetType:
    return utc_datetime(ms) if ms else UNSET


def _last_answers(rows: Sequence[Any]) -> dict[str, AnswerResult]:
    """By step, in the order in which steps were first answered."""
    return {
        choices[0].step: _answer_result(choices)
        for choices in ([*rows_of_one] for _, rows_of_one in groupby(rows, attrgetter("place")))
    }


def _answer_result(choices: Sequence[Any]) -> AnswerResult:
    """One answer, of a row, or of a row for each chosen option. A record of 0.1.0 does not say which type it is: there, one
    chosen option is taken for a single choice's."""
    first = choices[0]
    several = len(choices) > 1 or first.type == _SEVERAL_CHOICES
    indexes = [each.option_index for each in choices if each.option_index is not None]
    return AnswerResult(
        raw=first.raw,
        value=[each.value or "" for each in choices] if several else _single_value(first),
        index=indexes[0] if indexes and not several else UNSET,
        indexes=indexes if several else UNSET,
        type=first.type or UNSET,
        at=_moment(first.at),
        seconds=first.seconds if first.seconds is not None else UNSET,
        misreads=first.misreads,
    )


def _single_value(row: Any) -> str | int | float | bool:
    if row.value_yes is not None:
        return bool(row.value_yes)
    if row.value_number is not None:
        number: float = row.value_number
        return int(row.value) if str(row.value).lstrip("-").isdigit() else writable_value(number)
    return row.value or ""
