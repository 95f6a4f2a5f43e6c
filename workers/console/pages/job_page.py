"""What the console does for someone, and how far that is: after a reload, in another process, and once its process is gone too."""

import falcon
from falcon.asgi import Request, Response

from workers.console.console_state import Console, actor_name
from workers.console.jobs.job_store import JobStatus

STOP_POLLING = "286 Stop Polling"
"""By this status htmx knows that a page needs no more looks."""

JOB_TITLES = {
    "replay": "Replay of dead letters",
    "preview": "What a replay would do",
    "drop": "Drop of dead letters",
    "erase": "Erasure of a person",
    "check": "Check of people to invite",
    "invite": "People are invited",
}


def state_sentence(status: JobStatus) -> str:
    """How a job stands, in a sentence, and what that means for what is left."""
    progress = status.progress
    left = _LEFT_SENTENCES.get(status.order.kind, "What was not dealt with is a dead letter still.")
    if status.is_lost:
        return (
            "The process that did this is gone. What is counted was done, and perhaps a little more, which "
            f"the audit has. {left}"
        )
    match progress.state:
        case "running":
            return "It ends after the step that it is at." if status.stopped_by else "It goes on."
        case "done":
            return "Done."
        case "stopped":
            return f"Stopped. What is counted was done. {left}"
        case "failed":
            return f"It failed: {progress.why} What is counted was done. {left}"


_LEFT_SENTENCES = {
    "erase": "Do it again: twice does no harm.",
    "check": "Check it again.",
    "invite": "Invite the rest on the table's page: nobody is invited twice.",
}
"""What is to be done with what is left, if it is not dead letters."""


class JobPage:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response, job: str) -> None:
        self._respond(req, resp, "job.html", await self._find(job))

    async def on_post(self, req: Request, resp: Response, job: str) -> None:
        """Stop it."""
        console = self._console
        status = await self._find(job)
        await console.calls.run(
            console.record, req.context.user, f"stop {status.order.kind}", "console", job=job
        )
        await console.calls.run(console.jobs.store.ask_to_stop, job, actor_name(req.context.user))
        raise falcon.HTTPSeeOther(f"/jobs/{job}")

    async def _find(self, job: str) -> JobStatus:
        status = await self._console.calls.run(self._console.jobs.store.find, job)
        if status is None:
            raise falcon.HTTPNotFound(description="Nothing is known of it. It is told for a week.")
        return status

    def _respond(self, req: Request, resp: Response, template: str, status: JobStatus) -> None:
        self._console.templates.respond(
            req,
            resp,
            template,
            status=status,
            title=JOB_TITLES[status.order.kind],
            sentence=state_sentence(status),
        )


class JobLiveResource(JobPage):
    """The part of it that changes."""

    async def on_get(self, req: Request, resp: Response, job: str) -> None:
        status = await self._find(job)
        self._respond(req, resp, "job_body.html", status)
        if status.is_over:
            resp.status = STOP_POLLING
