"""Who did what, and who read whose data: what `parley audit` shows."""

from urllib.parse import urlencode

import msgspec
from falcon.asgi import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from config.archive.audit_entries import AuditFilter
from config.archive.database import describe_failure
from workers.archiving.audit_mover import AuditedAct
from workers.console.console_state import Console
from workers.history.audit_history import AuditReader
from workers.history.readable_archive import open_readable_archive
from workers.store.deployment import Deployment

ACTS_SHOWN = 200
ACTS_EXAMINED = 20_000
"""What is looked for is looked for among so many on a page, the newest first."""


class FoundActs(msgspec.Struct, frozen=True):
    """Acts of a page, newest first; older ones are looked for `before` a moment (ms; 0: there are none). `is_cut`: there may be some
    of what was looked for before that. `unread` is a sentence on what could not be read."""

    acts: list[AuditedAct]
    before: int = 0
    is_cut: bool = False
    unread: str = ""


class AuditPage:
    role = "operator"

    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response) -> None:
        console = self._console
        before = req.get_param_as_int("before", min_value=0, max_value=2**53, default=0)
        wanted = AuditFilter(
            actor=req.get_param("actor") or "", action=req.get_param("action") or "", before=before
        )
        found = await console.calls.run(read_acts, console.deployment, wanted)
        further = {"actor": wanted.actor, "action": wanted.action, "before": f"{found.before}"}
        console.templates.respond(
            req, resp, "audit.html", found=found, wanted=wanted, further=urlencode(further)
        )


def read_acts(deployment: Deployment, wanted: AuditFilter) -> FoundActs:
    """The newest acts that are wanted."""
    with open_readable_archive(deployment) as (archive, why):
        reader = AuditReader(deployment, archive, wanted, ACTS_SHOWN, ACTS_EXAMINED)
        try:
            acts = list(reader.read_acts())
        except SQLAlchemyError as e:
            return FoundActs([], unread=f"The archive failed: {describe_failure(e)}.")
    unread = f"The archive cannot be read: {why}. This is what Redis still has." if why else ""
    before = reader.looked_back_to
    if len(acts) == ACTS_SHOWN:  # others of its moment may follow: rather twice than never
        before = acts[-1].at + 1 if acts[-1].at + 1 != wanted.before else acts[-1].at
    return FoundActs(
        acts, before, len(acts) < ACTS_SHOWN and before > 0, " ".join(filter(None, (unread, reader.unread)))
    )
