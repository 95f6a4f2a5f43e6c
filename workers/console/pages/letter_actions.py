"""What operators do with dead letters: replay, preview and drop, of one or of all that a filter selects. Each is a job, by the functions
of `parley dead`, which see to it that of two who deal with a letter at once one does."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.settings.settings import ConfigError
from config.store import redis_client
from workers.console.console_state import Console, actor_name
from workers.console.form_reader import read_form
from workers.console.jobs.job_runner import JobFailedError, JobHand, JobWork
from workers.console.jobs.job_store import JobKind
from workers.console.letter_query import LetterQuery, read_letter_query
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.dead_letters.actions import ReplayerBuilder, drop_letters, preview_letters, replay_letters
from workers.dead_letters.filters import DeadLetterFilter, LocatedDeadLetter
from workers.dead_letters.letter_pages import select_letters
from workers.dead_letters.letter_reading import (
    MAX_OPERATOR_NAME_LENGTH,
    count_reasons,
    last_audit_entry_of,
    without_content,
)
from workers.dead_letters.letter_result import GONE_OUTCOMES, LetterResult
from workers.dead_letters.replay import DeadLetterReplayer
from workers.dead_letters.replay_decision import ReplayOption
from workers.store import survey_versions
from workers.store.deployment import Deployment
from workers.store.replication_check import NotConfirmedError, replicated_at_end

MAX_COUNTED = 20_000
"""Of letters that a filter selects; there may be more."""


class LetterChoice(msgspec.Struct, frozen=True):
    """Which letters are meant: those that the filter selects, of those that fell until `until` (ms; 0: whenever), so that what an
    operator has not seen is not dealt with."""

    wanted: DeadLetterFilter
    until: int = 0


class _ActionPage:
    """What both actions on all letters of a filter have in common: they are shown how many those are first, and deal with no other
    that falls after that."""

    role = action_role = "operator"
    template = ""

    def __init__(self, console: Console, build_replayer: ReplayerBuilder) -> None:
        self._console = console
        self._build_replayer = build_replayer

    async def on_get(self, req: Request, resp: Response) -> None:
        query = read_letter_query(req.params, self._console.addresses)
        await self._show(req, resp, query, "")

    async def _show(self, req: Request, resp: Response, query: LetterQuery, problem: str) -> None:
        console = self._console
        until = await console.calls.run(redis_client.server_time_ms, console.deployment.lanes)
        reasons = await console.calls.run(_count_selected, console.deployment, query.wanted)
        console.templates.respond(
            req, resp, self.template, query=query, until=until, reasons=reasons.most_common(),
            count=sum(reasons.values()), most=MAX_COUNTED, problem=problem,
        )  # fmt: skip

    async def _begin(
        self, req: Request, query: LetterQuery, kind: JobKind, work: JobWork, **detail: object
    ) -> None:
        console, user = self._console, req.context.user
        detail = {"filters": query.words, **detail}
        job = await console.calls.run(_begin_job, console, user, kind, query.words, work, "", detail)
        raise falcon.HTTPSeeOther(f"/jobs/{job}")


class ReplayLettersPage(_ActionPage):
    template = "replay_letters.html"

    async def on_post(self, req: Request, resp: Response) -> None:
        console, form = self._console, await read_form(req)
        query = read_letter_query(form, console.addresses)
        choice = LetterChoice(query.wanted, _read_until(form))
        options = _read_options(form)
        if form.get("do") == "preview":
            work = preview_work(console.deployment, self._build_replayer, choice, options)
            await self._begin(req, query, "preview", work, options=options)
            return
        rate = _read_rate(form.get("rate", ""))
        if rate is None:
            resp.status = falcon.HTTP_400
            await self._show(
                req, resp, query, "The rate is no number of letters a second, such as 20 or 0.5."
            )
            return
        work = replay_work(
            console.deployment, self._build_replayer, choice, actor_name(req.context.user), options, rate
        )
        await self._begin(req, query, "replay", work, options=options, rate=rate)


class DropLettersPage(_ActionPage):
    template = "drop_letters.html"

    async def on_post(self, req: Request, resp: Response) -> None:
        console, form = self._console, await read_form(req)
        query = read_letter_query(form, console.addresses)
        if form.get("typed", "").strip() != form.get("count", "") or not form.get("count"):
            resp.status = falcon.HTTP_400
            await self._show(req, resp, query, "That is not how many they are. Nothing was dropped.")
            return
        choice = LetterChoice(query.wanted, _read_until(form))
        work = drop_work(console.deployment, choice, actor_name(req.context.user))
        await self._begin(req, query, "drop", work)


class ReplayLetterResource:
    """Replays one letter."""

    action_role = "operator"

    def __init__(self, console: Console, build_replayer: ReplayerBuilder) -> None:
        self._console = console
        self._build_replayer = build_replayer

    async def on_post(self, req: Request, resp: Response, letter_id: str) -> None:
        form, by = await read_form(req), actor_name(req.context.user)
        options = _read_options(form)
        deployment = self._console.deployment
        work = replay_work(deployment, self._build_replayer, _only(letter_id), by, options, rate=0.0)
        await self._begin(req, letter_id, "replay", work, options=options)

    async def _begin(
        self, req: Request, letter_id: str, kind: JobKind, work: JobWork, **detail: object
    ) -> None:
        console, user = self._console, req.context.user
        job = await console.calls.run(_begin_job, console, user, kind, letter_id, work, letter_id, detail)
        raise falcon.HTTPSeeOther(f"/jobs/{job}")


class DropLetterResource(ReplayLetterResource):
    """Drops one letter."""

    async def on_post(self, req: Request, resp: Response, letter_id: str) -> None:
        work = drop_work(self._console.deployment, _only(letter_id), actor_name(req.context.user))
        await self._begin(req, letter_id, "drop", work)


def _only(letter_id: str) -> LetterChoice:
    return LetterChoice(DeadLetterFilter(ids=(letter_id,)))


def _begin_job(
    console: Console, user: ConsoleUser, kind: JobKind, subject: str, work: JobWork, letter: str,
    detail: Mapping[str, object],
) -> str:  # fmt: skip
    """Tell the audit, and begin. Raises HTTPServiceUnavailable if too much is under way."""
    console.record(user, _ACTION_NAMES[kind], letter or "dead letters", **detail)
    job = console.jobs.start(kind, subject, actor_name(user), work, letter=letter)
    if job is None:
        raise falcon.HTTPServiceUnavailable(
            title="Much is under way already", description="Wait for some of it, or stop it, and try again."
        )
    return job


_ACTION_NAMES = {
    "replay": "replay dead letters",
    "preview": "preview dead letters",
    "drop": "drop dead letters",
}


def _read_options(form: Mapping[str, str]) -> list[ReplayOption]:
    names: tuple[ReplayOption, ...] = ("stale", "uncertain")
    return [name for name in names if form.get(name)]


def _read_until(form: Mapping[str, str]) -> int:
    """Raises HTTPBadRequest."""
    try:
        return int(form.get("until") or 0)
    except ValueError as e:
        raise falcon.HTTPBadRequest(title="This form is not of this console") from e


def _read_rate(written: str) -> float | None:
    """Letters a second, 0 for as fast as it goes; None if it is none."""
    if not written.strip():
        return 0.0
    try:
        rate = float(written)
    except ValueError:
        return None
    return rate if 0 < rate < float("inf") else None


def _count_selected(deployment: Deployment, wanted: DeadLetterFilter) -> Counter[str]:
    return count_reasons(islice(select_letters(deployment, wanted), MAX_COUNTED))


def replay_work(
    deployment: Deployment,
    build_replayer: ReplayerBuilder,
    choice: LetterChoice,
    by: str,
    options: Sequence[ReplayOption],
    rate: float,
) -> JobWork:
    def work(hand: JobHand) -> None:
        with _confirmed_at_end(deployment, hand) as here:
            survey_versions.publish_current(here.lanes, here.surveys)
            replayer = _open_replayer(build_replayer, here, by, options)
            found = _choose(here, choice, hand)
            for result in replay_letters(replayer, here.settings, found, by, rate, hand.is_stopping):
                hand.count(result, is_told=result.outcome not in GONE_OUTCOMES or result.outcome == "gone")

    return work


def preview_work(
    deployment: Deployment,
    build_replayer: ReplayerBuilder,
    choice: LetterChoice,
    options: Sequence[ReplayOption],
) -> JobWork:
    def work(hand: JobHand) -> None:
        here = msgspec.structs.replace(deployment, host=hand.host)
        replayer = _open_replayer(build_replayer, here, "", options)
        for result in preview_letters(replayer, here.settings, _choose(here, choice, hand), options):
            hand.count(result, is_told=True)
            if hand.is_stopping():
                return

    return work


def drop_work(deployment: Deployment, choice: LetterChoice, by: str) -> JobWork:
    def work(hand: JobHand) -> None:
        with _confirmed_at_end(deployment, hand) as here:
            for result in drop_letters(_choose(here, choice, hand), by, hand.is_stopping):
                hand.count(result, is_told=result.outcome == "gone")

    return work


@contextmanager
def _confirmed_at_end(deployment: Deployment, hand: JobHand) -> Iterator[Deployment]:
    """The deployment on the job's host. Raises JobFailedError."""
    try:
        with replicated_at_end(msgspec.structs.replace(deployment, host=hand.host)) as here:
            yield here
    except NotConfirmedError as e:
        raise JobFailedError(f"{e}.") from e


def _choose(deployment: Deployment, choice: LetterChoice, hand: JobHand) -> list[LocatedDeadLetter]:
    found = [
        without_content(each)
        for each in select_letters(deployment, choice.wanted)
        if not choice.until or each.letter.at <= choice.until
    ]
    hand.progress.total = len(found)
    there = {each.letter.id for each in found}
    for identity in choice.wanted.ids:
        if identity not in there:
            last = last_audit_entry_of(deployment, identity)
            why = f"{last.outcome}, by {last.by}" if last else "there is none with this id"
            hand.progress.total += 1
            hand.count(LetterResult(identity, "gone" if last else "missing", why), is_told=True)
    hand.save()
    return found


def _open_replayer(
    build_replayer: ReplayerBuilder, deployment: Deployment, by: str, options: Sequence[ReplayOption]
) -> DeadLetterReplayer:
    """Raises JobFailedError."""
    try:
        return build_replayer(deployment, by[:MAX_OPERATOR_NAME_LENGTH], options)
    except ConfigError as e:
        raise JobFailedError("; ".join(e.problems)) from e
