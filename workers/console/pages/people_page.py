"""A person: why nothing is happening with them or what happens next, what was said, what waits."""

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import falcon
import msgspec
from falcon.asgi import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import describe_failure
from config.store import keyspace
from config.store.entry_id import EntryId
from config.telemetry.logs import is_log_name
from engine.model.durations import format_duration
from workers.console.console_state import Console
from workers.console.conversation_view import Bubble, view_conversation
from workers.console.form_reader import read_form
from workers.console.kept_readings import KeptReading
from workers.console.live_pages import is_renewal
from workers.console.log_name_search import LogNameSearch, NamedPerson
from workers.console.person_address import hide_number, mask_number
from workers.console.person_search import MAX_WANTED_LENGTH, find_person
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.diagnosis.diagnose import Severity, diagnose
from workers.diagnosis.sender_snapshot import SenderSnapshot
from workers.diagnosis.snapshot_reader import read_snapshot
from workers.diagnosis.snapshot_rows import ENTRIES_SHOWN, sms_state, snapshot_rows
from workers.history.newest_pages import HistoryPage, NewestPagesReader
from workers.history.readable_archive import open_readable_archive

ENTRIES_PER_PAGE = 40
"""Of what happened: a turn is one, with all that was said in it."""

LOOK_ACTION, TRANSCRIPT_ACTION = "read lane", "read transcript"

SEVERITY_CLASSES = {
    Severity.QUIET: "good",
    Severity.NORMAL: "good",
    Severity.HELD_UP: "warn",
    Severity.WRONG: "bad",
}

_SHOWN_OTHERWISE = ("dead letters", "last events", "outbox")


class LetterLine(msgspec.Struct, frozen=True):
    """A dead letter of a person, in a line."""

    id: str
    at: int
    text: str


class SmsLine(msgspec.Struct, frozen=True):
    """An SMS that waits to be sent."""

    text: str
    state: str


class PersonView(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows of a person, with their number masked for who may not see it."""

    number: str
    name_in_logs: str
    sentence: str
    severity: str
    also: list[str]
    rows: list[tuple[str, list[str]]]
    letters: list[LetterLine]
    outbox: list[SmsLine]
    outbox_rest: int
    bubbles: list[Bubble]
    older: str
    unread: list[str]


class PeoplePage:
    """Finds a person. What is searched for comes in a form, so that no address has a number."""

    action_role = "viewer"

    def __init__(self, console: Console, names: LogNameSearch) -> None:
        self._console = console
        self._names = names

    async def on_get(self, req: Request, resp: Response) -> None:
        self._console.templates.respond(req, resp, "people.html", wanted="", problem="", progress=None)

    async def on_post(self, req: Request, resp: Response) -> None:
        console = self._console
        wanted = (await read_form(req)).get("wanted", "").strip()[:MAX_WANTED_LENGTH]
        wanted = wanted.removeprefix("sender=")
        number, problem = await console.calls.run(find_person, console, wanted)
        progress = None
        if number is None and is_log_name(wanted):
            reading = await self._names.look(wanted)
            progress = self._names.progress_of(wanted) if reading.is_waited_for else None
            number, problem = _named_person(wanted, reading)
        if number is not None:
            _lead_to(req, resp, f"/people/{console.addresses.address_of(number)}")
            return
        if not is_renewal(req):  # which nothing comes of that is no success
            resp.status = falcon.HTTP_404 if progress is None else falcon.HTTP_202
        console.templates.respond(req, resp, "people.html", wanted=wanted, problem=problem, progress=progress)


def _named_person(name: str, reading: KeptReading[NamedPerson]) -> tuple[str | None, str]:
    """The number, or None and a sentence; neither while it is looked for."""
    if reading.what is None:
        return None, reading.problem
    nobody = f"Nobody whom logs name {name} has anything here: they may be erased."
    return reading.what.number, " ".join(filter(None, (nobody, reading.what.unread)))


def _lead_to(req: Request, resp: Response, address: str) -> None:
    """Raises falcon.HTTPSeeOther, unless a page asks that is open: that is told to go there."""
    if not is_renewal(req):
        raise falcon.HTTPSeeOther(address)
    resp.set_header("HX-Redirect", address)


class PersonPage:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response, address: str) -> None:
        console, user = self._console, req.context.user
        number = console.addresses.require_number(address)
        before = _parse_entry_id(req.get_param("before"))
        await console.calls.run(_record_look, console, user, number, is_new=True)
        view = await console.calls.run(read_person, console, user, number, before)
        console.templates.respond(
            req, resp, "person.html", view=view, address=address, is_newest=before is None
        )


class PersonLiveResource:
    """The part of the page that changes, as it asks for it again and again."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response, address: str) -> None:
        console, user = self._console, req.context.user
        number = console.addresses.require_number(address)
        await console.calls.run(_record_look, console, user, number, is_new=False)
        view = await console.calls.run(read_person, console, user, number, None)
        console.templates.respond(req, resp, "person_body.html", view=view, address=address, is_newest=True)


def shown_number(user: ConsoleUser, number: str) -> str:
    return number if user.may("privacy") else mask_number(number)


def hider(user: ConsoleUser, number: str) -> Callable[[str], str]:
    """What each text goes through before `user` sees it."""
    return str if user.may("privacy") else partial(hide_number, number=number)


def _record_look(console: Console, user: ConsoleUser, number: str, *, is_new: bool) -> None:
    name = console.name_in_logs(number)
    for action in (LOOK_ACTION, TRANSCRIPT_ACTION):
        console.record_look(user, action, name, is_new=is_new)


def read_person(console: Console, user: ConsoleUser, number: str, before: EntryId | None) -> PersonView:
    """Read all that a page shows. Raises redis.RedisError."""
    hide = hider(user, number)
    snapshot = read_snapshot(console.deployment, number)
    diagnosis = diagnose(snapshot)
    page = _read_history(console, number, before)
    return PersonView(
        number=shown_number(user, number),
        name_in_logs=console.name_in_logs(number),
        sentence=hide(diagnosis.sentence),
        severity=SEVERITY_CLASSES[diagnosis.severity],
        also=[*map(hide, diagnosis.also)],
        rows=[
            (label, [*map(hide, lines)])
            for label, lines in ((label, list(lines)) for label, lines in snapshot_rows(snapshot, ()))
            if lines and label not in _SHOWN_OTHERWISE
        ],
        letters=[
            LetterLine(each.id, each.at, hide(f"{each.kind} {each.reason}: {each.why}"))
            for each in snapshot.dead
        ],
        outbox=_outbox_lines(snapshot, hide),
        outbox_rest=max(0, snapshot.outbox_count - ENTRIES_SHOWN),
        bubbles=view_conversation(page.records, hide),
        older=urlencode({"before": str(page.before)}) if page.before is not None else "",
        unread=[*map(hide, page.unread)],
    )


def _outbox_lines(snapshot: SenderSnapshot, hide: Callable[[str], str]) -> list[SmsLine]:
    return [
        SmsLine(hide(sms.text), ", ".join(_sms_clauses(snapshot, place, sms)))
        for place, sms in enumerate(snapshot.outbox[:ENTRIES_SHOWN])
    ]


def _sms_clauses(snapshot: SenderSnapshot, place: int, sms: Any) -> list[str]:
    decided = [f"decided {format_duration(snapshot.now - sms.decided)} ago"] if sms.decided else []
    return [sms.channel, *decided, sms_state(snapshot, place, sms)]


def _read_history(console: Console, number: str, before: EntryId | None) -> HistoryPage:
    deployment = console.deployment
    k = keyspace.shard_of(number, deployment.settings.shards)
    with open_readable_archive(deployment) as (archive, why):
        unread = [f"The archive cannot be read: {why}. This is what Redis still has."] if why else []
        try:
            page = NewestPagesReader(deployment.lanes, archive).read_page(k, number, before, ENTRIES_PER_PAGE)
        except SQLAlchemyError as e:
            return HistoryPage([], None, [f"The archive failed: {describe_failure(e)}."])
    return page._replace(unread=[*unread, *page.unread])


def _parse_entry_id(written: str | None) -> EntryId | None:
    """Raises HTTPBadRequest."""
    if not written:
        return None
    try:
        return EntryId.parse(written.encode())
    except ValueError as e:
        raise falcon.HTTPBadRequest(title="There is no such page") from e
