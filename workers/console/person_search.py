"""Who is meant? A person by their number, or by a session's id or its reference."""

from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import describe_failure
from config.telemetry.logs import is_log_name
from engine.model.sender_numbers import normalize_number
from workers.console.console_state import Console
from workers.history.readable_archive import open_readable_archive
from workers.history.session_owner import find_session_owner, session_ids_of

MAX_WANTED_LENGTH = 200


def find_person(console: Console, wanted: str) -> tuple[str | None, str]:
    """Return the number, or None and a sentence. A name that logs have is LogNameSearch's to find, if this finds nobody. Raises
    redis.RedisError."""
    if not wanted:
        return None, "Write a phone number, a session's id or reference, or a log hash."
    if wanted.startswith(("+", "00")) and (number := normalize_number(wanted)):
        return number, ""
    owner, unread = _find_by_session(console, wanted)
    if owner is not None:
        return owner, ""
    if not is_log_name(wanted) and (number := normalize_number(wanted)):
        return number, ""
    sentence = "No session has this id or reference, and it is no phone number such as +33612345678."
    return None, " ".join(filter(None, (sentence, unread)))


def _find_by_session(console: Console, wanted: str) -> tuple[str | None, str]:
    deployment = console.deployment
    settings = deployment.settings
    with open_readable_archive(deployment) as (archive, why):
        try:
            for session in session_ids_of(wanted, [*settings.channels]):
                owner = find_session_owner(deployment.lanes, settings.shards, archive, session)
                if owner is not None:
                    return owner, ""
        except SQLAlchemyError as e:
            return None, f"The archive failed: {describe_failure(e)}."
    return None, f"The archive cannot be read: {why}." if why else ""
