"""What does an event say? A CloudEvent is an envelope and its `data`, of which each type of event has its own. Names are the
API's. What is not known is not there: nothing is guessed. A field may be added; none changes its meaning or goes."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.model.answer_view import AnswerView
from engine.model.attachment_view import AttachmentView
from engine.model.events import RefusalReason, SessionEnding

_UriReference = Annotated[str, Meta(min_length=1, extra_json_schema={"format": "uri-reference"})]
_DateTime = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_SmsId = Annotated[str, Meta(description="The SMS's id: the same in all events of it.")]
_Ticket = Annotated[str, Meta(description="The provider's id of the SMS.")]
_Step = Annotated[str, Meta(description="The step's id, or the name of a fixed text: `kind` says which.")]


class EventData(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """What an event of any type may say."""

    channel: str
    survey: Annotated[str | UnsetType, Meta(description="Not there if the event is of no session.")] = UNSET
    version: Annotated[str | UnsetType, Meta(description="Of the survey.")] = UNSET
    language: str | UnsetType = UNSET
    session: Annotated[str | UnsetType, Meta(description="Its id: the invitation's too.")] = UNSET
    client_reference: Annotated[str | UnsetType, Meta(description="The inviter's; empty: none.")] = UNSET
    campaign: Annotated[str | UnsetType, Meta(description="The inviter's; empty: none.")] = UNSET
    pseudonym: Annotated[
        str | UnsetType, Meta(description="The person's: the same in the API and in exports.")
    ] = UNSET
    identifier: Annotated[
        str | UnsetType, Meta(description="The person's number, for endpoints that may see numbers.")
    ] = UNSET


class SessionOpenedData(EventData, kw_only=True, frozen=True, rename="camel"):
    """A session opened."""

    originator: Annotated[str, Meta(description="The sub-number that it has; empty: the channel's number.")]
    invited: Annotated[bool, Meta(description="By the API or an operator; else the person began.")]
    variables: Annotated[dict[str, str], Meta(description="With which it opened, in their spelling.")]


class SessionRefusedData(EventData, kw_only=True, frozen=True, rename="camel"):
    """An invitation opened nothing, and will not."""

    state: Literal["refused", "cancelled"]
    reason: Annotated[RefusalReason | UnsetType, Meta(description="Why it was refused.")] = UNSET
    originator: str
    variables: dict[str, str]


class AnswerGivenData(EventData, kw_only=True, frozen=True, rename="camel"):
    """The person answered a step. To one that is asked again there are several answers: the last counts."""

    sms: _SmsId
    step: str
    type: Annotated[str | UnsetType, Meta(description="The answer's type in the survey's file.")] = UNSET
    raw: Annotated[str, Meta(description="As it was written.")]
    value: Annotated[
        str | int | float | bool | list[str],
        Meta(description="As it was read: of a choice the option's id, of several choices their ids."),
    ]
    index: Annotated[int | UnsetType, Meta(description="The chosen option's place, from 0.")] = UNSET
    indexes: Annotated[list[int] | UnsetType, Meta(description="Of several choices.")] = UNSET


class SessionEndedData(EventData, kw_only=True, frozen=True, rename="camel"):
    """A session is over: the result. In `variables`, keys are in lower case."""

    state: SessionEnding
    why: Annotated[
        str | UnsetType, Meta(description="What the provider said of a number that is unreachable.")
    ] = UNSET
    answers: Annotated[dict[str, AnswerView], Meta(description="By step; the last to each.")]
    variables: dict[str, str]


class MessageReceivedData(EventData, kw_only=True, frozen=True, rename="camel"):
    """An SMS from the person, in a session or outside of any."""

    sms: _SmsId
    text: str
    attachments: Sequence[AttachmentView]
    handled: Annotated[
        Literal["stop", "help", "start"] | UnsetType,
        Meta(description="The command that the provider recognised, and has answered by itself."),
    ] = UNSET
    originator: Annotated[str, Meta(description="Our sub-number that was written to; empty: the channel's.")]


class ProviderCharge(EventData, kw_only=True, frozen=True, rename="camel"):
    """What the provider says that an SMS took."""

    segments: Annotated[int | UnsetType, Meta(description="As the provider counts them, if it does.")] = UNSET
    cost_micros: Annotated[
        int | UnsetType, Meta(description="In millionths of `currency`, if the provider says.")
    ] = UNSET
    currency: Annotated[
        str | UnsetType, Meta(description="Not there with a cost: the account's own unit.")
    ] = UNSET


class MessageSentData(ProviderCharge, kw_only=True, frozen=True, rename="camel"):
    """The provider took an SMS to the person."""

    sms: _SmsId
    ticket: _Ticket | UnsetType = UNSET
    step: _Step | UnsetType = UNSET
    kind: Annotated[
        Literal["ask", "reask", "remind", "say", "fixed"] | UnsetType,
        Meta(
            description="A question, the same again after an invalid answer, a reminder of it, a statement, "
            "or a fixed text."
        ),
    ] = UNSET
    text: str | UnsetType = UNSET


class MessageDeliveredData(ProviderCharge, kw_only=True, frozen=True, rename="camel"):
    """The person's phone has an SMS, as the provider says."""

    sms: _SmsId | UnsetType = UNSET
    ticket: _Ticket | UnsetType = UNSET
    status: Annotated[str | UnsetType, Meta(description="In the provider's word.")] = UNSET


class MessageFailedData(ProviderCharge, kw_only=True, frozen=True, rename="camel"):
    """An SMS does not reach the person: it was not sent, or not delivered. A late receipt may yet say `message.delivered`."""

    sms: _SmsId | UnsetType = UNSET
    ticket: _Ticket | UnsetType = UNSET
    status: Annotated[str | UnsetType, Meta(description="In the provider's word.")] = UNSET
    code: Annotated[str | UnsetType, Meta(description="The provider's code, or ours.")] = UNSET
    why: Annotated[str | UnsetType, Meta(description="In words.")] = UNSET


class OptOutChangedData(EventData, kw_only=True, frozen=True, rename="camel"):
    """The channel may not text the person any more, or may again."""

    opted_out: bool
    by: Annotated[
        Literal["person", "provider", "list"],
        Meta(description="Who said so: the person, the provider, or an operator's list."),
    ]
    source: Annotated[str | UnsetType, Meta(description="The list's name.")] = UNSET
    text: Annotated[str | UnsetType, Meta(description="As the person wrote it, if the provider says.")] = (
        UNSET
    )


class DeadLetterAddedData(EventData, kw_only=True, frozen=True, rename="camel"):
    """An event or an SMS could not be handled, and waits for an operator: `parley dead`."""

    id: Annotated[str, Meta(description="The dead letter's, as `parley dead` names it.")]
    kind: Annotated[
        Literal["event", "sms"] | UnsetType,
        Meta(
            description="An event that came in, or an SMS that was to leave; not there if it is unreadable."
        ),
    ] = UNSET
    reason: Annotated[str | UnsetType, Meta(description="In a word of ours.")] = UNSET
    code: Annotated[str | UnsetType, Meta(description="The provider's code, or ours.")] = UNSET
    why: Annotated[str | UnsetType, Meta(description="In words.")] = UNSET


EVENT_DATA: Mapping[str, type[EventData]] = {
    "session.opened": SessionOpenedData,
    "session.refused": SessionRefusedData,
    "answer.given": AnswerGivenData,
    "session.ended": SessionEndedData,
    "message.received": MessageReceivedData,
    "message.sent": MessageSentData,
    "message.delivered": MessageDeliveredData,
    "message.failed": MessageFailedData,
    "optout.changed": OptOutChangedData,
    "dead_letter.added": DeadLetterAddedData,
}
"""Type of event -> what its data is."""

EVENT_TYPES: tuple[str, ...] = tuple(EVENT_DATA)


class CloudEvent(msgspec.Struct, kw_only=True, frozen=True):
    """The envelope: CloudEvents 1.0, with its extensions `partitionkey` and `sequence`."""

    specversion: Literal["1.0"]
    id: Annotated[
        str,
        Meta(
            min_length=1,
            description="The same whenever this event is delivered, and no other's.",
            extra_json_schema={"pattern": "^[0-9a-f]{32}$"},
        ),
    ]
    source: Annotated[_UriReference, Meta(description="`PARLEY_PUBLIC_URL`, `/channels/`, and the channel.")]
    type: str
    subject: Annotated[str | UnsetType, Meta(description="The session, if the event is of one.")] = UNSET
    time: Annotated[_DateTime | UnsetType, Meta(description="When it happened, in UTC, to the ms.")] = UNSET
    datacontenttype: Literal["application/json"]
    partitionkey: Annotated[
        str | UnsetType, Meta(description="The person: a number for endpoints that may see numbers.")
    ] = UNSET
    sequence: Annotated[
        str, Meta(min_length=1, description="Sorted as texts, a person's events are in their order.")
    ]
    data: EventData
