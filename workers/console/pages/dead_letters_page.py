"""Dead letters: a list with filters, what is done with all that a filter selects, and what was done."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any
from urllib.parse import urlencode

import msgspec
import redis
from falcon.asgi import Request, Response

from config.store import redis_client
from workers.console.console_state import Console
from workers.console.jobs.job_store import JobKind, JobStatus
from workers.console.letter_query import LetterQuery, query_of_group, read_letter_query
from workers.console.person_address import hide_all_numbers, hide_number
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.dead_letters.filters import DRAMATIQ_REASON, LocatedDeadLetter
from workers.dead_letters.groups import DeadLetterGroup, group_letters
from workers.dead_letters.letter_pages import LetterPlace, find_letter_page
from workers.dead_letters.letter_reading import error_text
from workers.store import dead_letter_store
from workers.store.dead_letter_store import AuditEntry, DeadLetter
from workers.store.deployment import Deployment
from workers.store.dramatiq_letters import DramatiqLetter

LETTERS_PER_PAGE = 50
MAX_GROUPED = 1_000
"""Letters of a filter, the oldest, that are looked at for what is alike in them."""

GROUPS_SHOWN = 20
MAX_ADDRESS_LENGTH = 4_000
AUDIT_SHOWN = 200
AUDIT_READ_OF_EACH = 25
"""Of each shard."""
JOBS_SHOWN = 5
QUEUE_NAMES = ("starts", "replies", "outbound", "hooks")


class LetterRow(msgspec.Struct, frozen=True):
    """A dead letter in a line. `person` is the address of whom it is of; empty: nobody knows."""

    id: str
    at: int
    queue: str
    channel: str
    reason: str
    why: str
    person: str


class GroupRow(msgspec.Struct, frozen=True):
    """Letters that are alike, in a line: what went wrong, and the address of which they are; empty if that is too long."""

    group: DeadLetterGroup
    error: str
    address: str


class DeadLettersPage:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response) -> None:
        console = self._console
        query = read_letter_query(req.params, console.addresses)
        after = LetterPlace.parse(req.get_param("after") or "")
        values = await console.calls.run(_read_list, console, req.context.user, query, after)
        console.templates.respond(
            req, resp, "dead_letters.html", query=query, queues=QUEUE_NAMES, is_first=after is None, **values
        )


def _read_list(
    console: Console, user: ConsoleUser, query: LetterQuery, after: LetterPlace | None
) -> dict[str, Any]:
    deployment = console.deployment
    looked: list[DeadLetter | DramatiqLetter] = []
    if after is None:
        many = find_letter_page(deployment, query.wanted, None, MAX_GROUPED)
        page, looked = many.first(LETTERS_PER_PAGE), [each.letter for each in many.letters]
    else:
        page = find_letter_page(deployment, query.wanted, after, LETTERS_PER_PAGE)
    further = {**query.fields, "after": str(page.next_after)} if page.next_after is not None else {}
    return {
        "rows": [_letter_row(console, user, each) for each in page.letters],
        "further": urlencode(further),
        "groups": [_group_row(user, group, query) for group in group_letters(looked)[:GROUPS_SHOWN]],
        "grouped": len(looked),
        "most": MAX_GROUPED,
        "reasons": dead_letter_store.count_by_reason(
            deployment.lanes, range(deployment.settings.shards)
        ).most_common(),
        "channels": [*deployment.settings.channels],
        "jobs": recent_letter_jobs(console),
    }


def _group_row(user: ConsoleUser, group: DeadLetterGroup, query: LetterQuery) -> GroupRow:
    error = group.error if user.may("privacy") else hide_all_numbers(group.error)
    address = query_of_group(group, query).address
    return GroupRow(group, error, address if len(address) <= MAX_ADDRESS_LENGTH else "")


_LETTER_JOBS: tuple[JobKind, ...] = ("replay", "preview", "drop")


def recent_letter_jobs(console: Console) -> list[JobStatus]:
    """What was last begun with dead letters."""
    found = console.jobs.store.list_recent(4 * JOBS_SHOWN)
    return [each for each in found if each.order.kind in _LETTER_JOBS][:JOBS_SHOWN]


def _letter_row(console: Console, user: ConsoleUser, found: LocatedDeadLetter) -> LetterRow:
    letter = found.letter
    why = error_text(letter)
    if isinstance(letter, DramatiqLetter):
        shown = why if user.may("privacy") else hide_all_numbers(why)
        return LetterRow(letter.id, letter.at, letter.queue, "", DRAMATIQ_REASON, shown, "")
    shown = why if user.may("privacy") else hide_number(why, letter.sender)
    person = console.addresses.address_of(letter.sender) if letter.sender else ""
    return LetterRow(letter.id, letter.at, letter.queue, letter.channel, letter.reason, shown, person)


class LetterAuditPage:
    """What was done with dead letters, the newest first."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response) -> None:
        console = self._console
        entries, unread = await console.calls.run(_read_audit, console.deployment)
        console.templates.respond(req, resp, "letter_audit.html", entries=entries, unread=unread)


def _read_audit(deployment: Deployment) -> tuple[Sequence[AuditEntry], str]:
    shards = range(deployment.settings.shards)
    entries = dead_letter_store.newest_audit_entries(deployment.lanes, shards, AUDIT_READ_OF_EACH)
    unread = ""
    if len(deployment.distinct_servers) > 1 and not redis_client.is_cluster(deployment.broker):
        try:
            entries += dead_letter_store.newest_audit_entries(deployment.broker, [0], AUDIT_SHOWN)
        except redis.RedisError as e:
            unread = (
                f"The Redis of the wake-ups does not answer ({type(e).__name__}): what was done with "
                "Dramatiq's letters is not told."
            )
    entries.sort(key=attrgetter("at"), reverse=True)
    return entries[:AUDIT_SHOWN], unread
