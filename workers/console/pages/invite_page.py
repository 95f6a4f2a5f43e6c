"""People are invited by a table: uploaded, checked before anything is sent, and sent by one click of who has seen what would come of
it. What is sent is what was checked: see workers/console/inviting/."""

import asyncio
from collections.abc import Mapping

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.invitations.people_table import PeopleFileError
from workers.console.console_state import Console, actor_name
from workers.console.form_reader import read_form
from workers.console.inviting.upload_order import (
    FORM_FIELDS,
    InvalidOrderError,
    offered_choices,
    read_order,
)
from workers.console.inviting.upload_reader import LARGEST_FILE, UploadedForm, read_upload
from workers.console.inviting.upload_store import Upload
from workers.console.inviting.upload_work import MAX_ROWS, UploadWork, read_table
from workers.console.jobs.job_store import JobKind, JobStatus
from workers.console.sign_in.console_sessions import ConsoleUser

MAX_UPLOADS_AT_ONCE = 2
"""Tables that are read at once: each takes some 100 MB for a moment."""

LONGEST_UPLOAD_S = 300.0
"""Of a browser that is gone without a word nothing more comes."""


class InvitePage:
    """The form. A table that is one is kept, and is being checked when its page is shown."""

    role = action_role = "operator"

    def __init__(self, console: Console, work: UploadWork) -> None:
        self._console = console
        self._work = work
        self._reading = 0

    async def on_get(self, req: Request, resp: Response) -> None:
        self._show(req, resp, {"campaign": (req.get_param("campaign") or "")[:200]}, "")

    async def on_post(self, req: Request, resp: Response) -> None:
        console, user = self._console, req.context.user
        if self._reading >= MAX_UPLOADS_AT_ONCE:
            raise falcon.HTTPServiceUnavailable(
                title="Others are uploading", description="Nobody was invited. Try again in a moment."
            )
        self._reading += 1
        try:
            sent = await _read_in_time(req)
            upload = await console.calls.run(self._keep, user, sent)
        except (InvalidOrderError, PeopleFileError) as e:
            resp.status = falcon.HTTP_422
            self._show(req, resp, sent.fields, f"{e}.")
            return
        finally:
            self._reading -= 1
        await console.calls.run(begin_job, console, self._work, user, upload, "check")
        raise falcon.HTTPSeeOther(f"/invite/{upload}")

    def _keep(self, user: ConsoleUser, sent: UploadedForm) -> str:
        """Return the id of the table, which is kept. Raises InvalidOrderError, PeopleFileError and redis.RedisError."""
        console, host = self._console, self._console.deployment.host
        order = read_order(console.deployment.settings, sent.fields)
        if not sent.content:
            raise PeopleFileError("Choose a file: a table of people as CSV, with a header")
        order = msgspec.structs.replace(order, file_name=sent.file_name, by=user.name, at=host.wall_ms())
        try:
            table = read_table(sent.content, order)
        except PeopleFileError as e:
            raise PeopleFileError(f"The table: {e}") from e
        upload = host.token_hex(8)
        self._work.store.add(upload, table.order, table.chunks)
        return upload

    def _show(self, req: Request, resp: Response, written: Mapping[str, str], problem: str) -> None:
        self._console.templates.respond(
            req,
            resp,
            "invite.html",
            written={name: written.get(name, "") for name in FORM_FIELDS},
            choices=offered_choices(self._console.deployment.settings),
            problem=problem,
            most_mb=LARGEST_FILE // 1_000_000,
            most_rows=MAX_ROWS,
        )


async def _read_in_time(req: Request) -> UploadedForm:
    """Raises falcon.HTTPError, and what `read_upload` raises."""
    try:
        async with asyncio.timeout(LONGEST_UPLOAD_S):
            return await read_upload(req, "file")
    except TimeoutError as e:
        raise falcon.HTTPError(
            falcon.HTTP_408, title="That took too long", description="Nobody was invited. Try again."
        ) from e


class UploadPage:
    """A table that was uploaded: what its check says, and what came of it."""

    role = action_role = "operator"

    def __init__(self, console: Console, work: UploadWork) -> None:
        self._console = console
        self._work = work

    async def on_get(self, req: Request, resp: Response, upload: str) -> None:
        await self._show(req, resp, upload, "")

    async def on_post(self, req: Request, resp: Response, upload: str) -> None:
        console, user = self._console, req.context.user
        found = await self._find(upload)
        match (await read_form(req)).get("deed"):
            case "check":
                await console.calls.run(begin_job, console, self._work, user, upload, "check")
            case "forget":
                await console.calls.run(console.record, user, "forget people to invite", found.order.survey)
                await console.calls.run(self._work.store.forget_rows, upload)
            case "invite":
                if found.send_job and not found.has_rows:
                    raise falcon.HTTPSeeOther(f"/jobs/{found.send_job}")
                if problem := self._problem_of(found):
                    resp.status = falcon.HTTP_409
                    await self._show(req, resp, upload, problem)
                    return
                job = await console.calls.run(begin_job, console, self._work, user, upload, "invite")
                raise falcon.HTTPSeeOther(f"/jobs/{job}" if job else f"/invite/{upload}")
            case _:
                raise falcon.HTTPBadRequest(title="Nothing was asked for")
        raise falcon.HTTPSeeOther(f"/invite/{upload}")

    async def _find(self, upload: str) -> Upload:
        found = await self._console.calls.run(self._work.store.find, upload)
        if found is None:
            raise falcon.HTTPNotFound(description="Nothing is known of this table. It is told for a week.")
        return found

    async def _show(self, req: Request, resp: Response, upload: str, problem: str) -> None:
        known = await self._find(upload)
        store = self._console.jobs.store
        checking = await self._console.calls.run(store.find, known.check_job) if known.check_job else None
        sending = await self._console.calls.run(store.find, known.send_job) if known.send_job else None
        found = await self._find(upload)  # after the jobs: one that is over has left here what it found
        self._console.templates.respond(
            req,
            resp,
            "upload.html",
            upload=found,
            order=found.order,
            check=found.check,
            checking=checking,
            is_checking=_is_running(checking),
            sending=sending,
            is_sending=_is_running(sending),
            is_changed=self._is_changed(found),
            problem=problem,
        )

    def _problem_of(self, upload: Upload) -> str:
        """Why nothing may be sent of it; nothing, if it may."""
        if not upload.has_rows:
            return "The table is not there any more. Upload it again: nobody is invited twice."
        if upload.check is None:
            return "It is not checked yet."
        if self._is_changed(upload):
            return "The survey has changed since. Check it again."
        if upload.check.budget.is_exceeded:
            return upload.check.budget.sentence
        return ""

    def _is_changed(self, upload: Upload) -> bool:
        survey = self._console.deployment.surveys.current(upload.order.survey)
        return upload.check is not None and (survey is None or survey.version != upload.check.version)


def begin_job(console: Console, work: UploadWork, user: ConsoleUser, upload: str, kind: JobKind) -> str:
    """Begin to check or to send a table, and return the job; that which is under way or done, if there is one: of two who click at
    once, one begins. Empty: somebody else begins at this moment. Raises falcon.HTTPServiceUnavailable and redis.RedisError."""
    token = console.deployment.host.token_hex(8)
    if not work.store.claim(upload, token):
        return ""
    try:
        found = work.store.find(upload)
        if found is None or not found.has_rows:
            return found.send_job if found is not None else ""
        for known in (found.send_job, found.check_job):
            if known and _is_running(console.jobs.store.find(known)):
                return known
        order = found.order
        detail = {"campaign": order.campaign, "channel": order.channel, "people": _people_of(found, kind)}
        action = "check people to invite" if kind == "check" else "invite people"
        console.record(user, action, order.survey, **detail)
        doing = work.check(found) if kind == "check" else work.invite(found)
        subject = f"{order.survey} on {order.channel}, campaign {order.campaign}"
        job = console.jobs.start(kind, subject, actor_name(user), doing, upload=upload)
        if job is None:
            raise falcon.HTTPServiceUnavailable(
                title="Much is under way already",
                description=f"Nobody was invited. Wait for some of it, and go on at /invite/{upload}.",
            )
        work.store.save_job(upload, "check_job" if kind == "check" else "send_job", job)
        return job
    finally:
        work.store.release(upload, token)


def _people_of(upload: Upload, kind: JobKind) -> int:
    return upload.check.sums.accepted if kind == "invite" and upload.check else upload.order.rows


def _is_running(status: JobStatus | None) -> bool:
    return status is not None and not status.is_over
