"""A person's erasure, by the function of `parley erase`, once who wants it has written the number."""

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.settings.settings import ConfigError
from engine.model.sender_numbers import normalize_number
from workers.console.console_state import Console, actor_name
from workers.console.form_reader import read_form
from workers.console.jobs.job_runner import JobFailedError, JobHand, JobWork
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.erasure.sender_eraser import (
    COUNT_LABELS,
    LOG_HELD_SENTENCE,
    ArchiveNotErasedError,
    LaneBusyError,
    SenderEraser,
    unfinished_sentence,
)
from workers.store.deployment import Deployment
from workers.store.replication_check import NotConfirmedError, replicated_at_end


class ErasePage:
    """Removes all that is known of a person, once who does it has written the number."""

    role = action_role = "privacy"

    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response, address: str) -> None:
        self._show(req, resp, address, "")

    async def on_post(self, req: Request, resp: Response, address: str) -> None:
        console, user = self._console, req.context.user
        number = console.addresses.require_number(address)
        if normalize_number((await read_form(req)).get("number", "")) != number:
            resp.status = falcon.HTTP_400
            self._show(req, resp, address, "That is not this number. Nothing was erased.")
            return
        job = await console.calls.run(self._begin, user, number)
        if job is None:
            resp.status = falcon.HTTP_503
            self._show(req, resp, address, "Much is under way already. Wait for some of it, and try again.")
            return
        raise falcon.HTTPSeeOther(f"/jobs/{job}")

    def _begin(self, user: ConsoleUser, number: str) -> str | None:
        console = self._console
        name = console.name_in_logs(number)
        console.record(user, "erase", name)
        work = erase_work(console.deployment, number)
        return console.jobs.start("erase", name, actor_name(user), work)

    def _show(self, req: Request, resp: Response, address: str, problem: str) -> None:
        number = self._console.addresses.require_number(address)
        self._console.templates.respond(
            req, resp, "erase.html", number=number, address=address, problem=problem
        )


def erase_work(deployment: Deployment, number: str) -> JobWork:
    def work(hand: JobHand) -> None:
        try:
            with replicated_at_end(deployment) as here:
                eraser = SenderEraser(here, here.open_opt_out_list())
                erased = eraser.erase(number)
        except ConfigError as e:
            raise JobFailedError("; ".join(e.problems)) from e
        except ArchiveNotErasedError as e:
            raise JobFailedError(unfinished_sentence(e)) from e
        except (LaneBusyError, NotConfirmedError) as e:
            raise JobFailedError(f"{e}.") from e
        hand.progress.counts = {
            COUNT_LABELS[name]: count for name, count in msgspec.structs.asdict(erased).items() if count
        }
        if eraser.log_is_held:
            hand.progress.why = f"{LOG_HELD_SENTENCE}."

    return work
