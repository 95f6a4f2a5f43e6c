"""Which session does a record belong to? An entry of an event stream holds records of one session, or of none, so that what
was said in a session can be deleted when its time has come, and nothing else with it."""

from collections.abc import Iterable
from itertools import groupby

from engine.model.events import (
    ArchiveRecord,
    Invitation,
    OpeningRefused,
    ReceiptRecorded,
    SmsReceived,
    session_of_sms_id,
)


def session_of_record(record: ArchiveRecord) -> str:
    """The id of the session; if the record is of none, empty or an id that no session has.

    An SMS that was heard in no session may have opened one, which is called by its id then, and so is an invitation's that
    was refused. A receipt belongs to its SMS's session, where it names its SMS.
    """
    session: str = getattr(record, "session", "")
    if session:
        return session
    match record:
        case SmsReceived(id=identity) | OpeningRefused(id=identity, invitation=Invitation()):
            return identity
        case ReceiptRecorded(sms=sms):
            return session_of_sms_id(sms)
        case _:
            return ""


def group_by_session(records: Iterable[ArchiveRecord]) -> list[list[ArchiveRecord]]:
    """The records in their order, in runs of one session or of none."""
    return [list(run) for _, run in groupby(records, session_of_record)]
