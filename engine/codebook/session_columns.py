"""What is known of every session, whatever its survey? The columns that all tables of results begin with."""

from typing import Literal, NamedTuple

ColumnKind = Literal[
    "text", "number", "whole_number", "yes_no", "option", "options", "date", "time", "moment"
]
"""What a column holds: of answers as ValueKind says, or a moment in UTC."""


class SessionColumn(NamedTuple):
    name: str
    kind: ColumnKind
    meaning: str


SESSION_COLUMNS = (
    SessionColumn("session", "text", "the session's id"),
    SessionColumn(
        "pseudonym", "text", "the person: the same in all results of this deployment, and no number"
    ),
    SessionColumn("number", "text", "the person's phone number"),
    SessionColumn("channel", "text", "the channel that it is on"),
    SessionColumn("originator", "text", "the channel's sub-number that it is on; empty: its own number"),
    SessionColumn("survey", "text", "the survey's name"),
    SessionColumn("version", "text", "the version of the survey that it began with, and ends with"),
    SessionColumn("language", "text", "the language in which the person was spoken to"),
    SessionColumn("state", "text", "open, refused, or how it ended"),
    SessionColumn("why", "text", "why it ended so, or was refused, where more is known"),
    SessionColumn("opened", "moment", "when it was opened"),
    SessionColumn("ended", "moment", "when it ended, or was refused"),
    SessionColumn("invited", "yes_no", "was the person invited, or did they begin by themselves?"),
    SessionColumn("reference", "text", "the inviter's reference"),
    SessionColumn("campaign", "text", "the inviter's name of what the invitation belongs to"),
    SessionColumn("asked", "moment", "when the invitation was accepted"),
    SessionColumn("not_before", "moment", "the time that the inviter asked for"),
    SessionColumn("last_step", "text", "the step that was asked last"),
    SessionColumn("misreads", "whole_number", "replies that could not be read"),
    SessionColumn("received", "whole_number", "SMS from the person"),
    SessionColumn("sent", "whole_number", "SMS to the person, as decided"),
    SessionColumn("segments", "whole_number", "segments of these, as Parley counts them"),
    SessionColumn("cost", "number", "what the providers charged, as far as they tell"),
    SessionColumn("currency", "text", "of the cost; empty: the account's own unit"),
    SessionColumn("seconds", "number", "from its opening to its end"),
    SessionColumn(
        "attachments", "whole_number", "pictures and the like that the person sent, with words or without"
    ),
)
