"""An invitation as the API takes it and as tables have it, as Puzzel's SendSurvey does."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_CAMPAIGN_LENGTH = 128

SMS_CHANNEL = "SMS"
"""As a channel: the only one that there is to choose."""

VariableValue = str | int | float | bool


class Variable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One session variable, as Puzzel writes it."""

    key: Annotated[str, Meta(max_length=64, examples=["agentid"])]
    value: VariableValue


class Body(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, frozen=True):
    """One person is asked to take a survey."""

    identifier: Annotated[
        str,
        Meta(
            max_length=64,
            description="The person's mobile number in E.164. "
            "A simulated channel takes any that can be dialled.",
            examples=["+33612345678"],
        ),
    ]
    identifier_type: Annotated[Literal["Phone"], Meta(description="What the identifier is.")] = "Phone"
    channel: Annotated[
        str,
        Meta(
            max_length=64,
            description="A channel of this deployment; or `SMS`, or nothing, "
            "where the key has only one that offers the survey.",
            examples=["clinic"],
        ),
    ] = SMS_CHANNEL
    content: Annotated[
        str, Meta(max_length=612, description="Opens the first SMS.", examples=["Hello Ada,"])
    ] = ""
    client_reference: Annotated[
        str,
        Meta(
            max_length=128,
            description="Yours, one for each invitation on a channel. The same again with the same "
            "content is the same session, so an invitation with a reference may be posted "
            "until it is answered.",
            examples=["visit-4711"],
        ),
    ] = ""
    expiry_time: Annotated[
        str,
        Meta(
            max_length=64,
            description="When the session ends, in RFC 3339 with a zone, within a year. "
            "Without it the survey says.",
            examples=["2026-12-01T18:00:00+01:00"],
        ),
    ] = ""
    user_session_variables: Annotated[
        list[Variable] | dict[str, VariableValue],
        Meta(description="What texts and conditions know of the person; keys in any case."),
    ] = []
    language: Annotated[
        str,
        Meta(max_length=35, description="A language of the survey; its first without it.", examples=["en"]),
    ] = ""
    originator: Annotated[
        str,
        Meta(max_length=16, description="A sub-number of the channel that the session has for its own."),
    ] = ""
    campaign: Annotated[
        str,
        Meta(
            max_length=MAX_CAMPAIGN_LENGTH,
            description="Yours: what the invitation belongs to. Results can be asked for by it, and how many "
            "of its invitations are in which state.",
            examples=["winter-2026"],
        ),
    ] = ""
    send_at: Annotated[
        str,
        Meta(
            max_length=64,
            description="When its turn comes: in RFC 3339 with a zone, within 30 days and before it "
            "expires; or the next time that it is `09:00` where the person is, by their number. "
            "In quiet hours it waits for their end. Without it, at once.",
            examples=["2026-12-01T09:00:00+01:00", "09:00"],
        ),
    ] = ""
