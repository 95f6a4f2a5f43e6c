"""What are the sessions, SMS and tickets that records name by their ids alone? For events to endpoints, by index."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from sqlalchemy import Connection, select, tuple_

from config.archive import tables
from engine.hooks.event_context import EventContext, MissingContext, SessionContext, SmsContext, SmsTicket
from engine.model.events import session_of_sms_id

_IDS_A_QUERY = 500

_Id = TypeVar("_Id", str, SmsTicket)


def add_archived_context(connection: Connection, missing: MissingContext, context: EventContext) -> None:
    """Add to `context` what the archive knows of what is missing there."""
    _add_tickets(connection, missing.tickets, context)
    told = {context.tickets[ticket] for ticket in missing.tickets if ticket in context.tickets}
    _add_sms(connection, missing.sms, context)
    _add_sessions(connection, {*missing.sessions, *map(session_of_sms_id, told)} - {""}, context)


def _add_tickets(connection: Connection, tickets: Collection[SmsTicket], context: EventContext) -> None:
    table = tables.sends.c
    for wanted in _pages(tickets):
        query = select(table.channel, table.ticket, table.sms).where(
            table.ticket.in_([each.ticket for each in wanted]),
            tuple_(table.channel, table.ticket).in_(wanted),
        )
        for channel, ticket, sms in connection.execute(query):
            context.tickets[SmsTicket(channel, ticket)] = sms


def _add_sms(connection: Connection, sms: Collection[str], context: EventContext) -> None:
    table = tables.messages.c
    for wanted in _pages(sms):
        query = select(table.sms, table.step, table.kind, table.text).where(
            table.sms.in_(wanted), table.direction == "out"
        )
        for identity, *told in connection.execute(query):
            context.sms[identity] = SmsContext(*told)


def _add_sessions(connection: Connection, sessions: Collection[str], context: EventContext) -> None:
    table = tables.sessions.c
    columns = (table.session, table.survey, table.version, table.language, table.reference, table.campaign)
    for wanted in _pages(sessions):
        for session, *told in connection.execute(select(*columns).where(table.session.in_(wanted))):
            context.sessions[session] = SessionContext(*told)


def _pages(ids: Collection[_Id]) -> Iterator[list[_Id]]:
    wanted = sorted(ids)
    for at in range(0, len(wanted), _IDS_A_QUERY):
        yield wanted[at : at + _IDS_A_QUERY]
