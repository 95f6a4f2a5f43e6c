"""What is done with an uploaded table: it is checked, by a dry run of the API, and sent, a thousand people at a time. Each is a job."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from config.invitations.invitation_client import ROWS_PER_REQUEST, InvitationApiError
from config.invitations.invitation_cost import InvitationWording, SurveyCosts
from config.invitations.invitation_sums import InvitationSums
from config.invitations.line_result import MAX_LINES, LineResult
from config.invitations.people_table import PeopleFileError, read_people
from config.store import redis_client
from workers.console.api_client import ApiClient, ApiUnavailableError
from workers.console.inviting.budget_view import BudgetView, CampaignBudget
from workers.console.inviting.campaign_budget import CampaignBudgets, SpendingReader
from workers.console.inviting.upload_order import UploadOrder
from workers.console.inviting.upload_store import (
    ROWS_IN_CHUNK,
    GoodRows,
    Upload,
    UploadCheck,
    UploadStore,
)
from workers.console.jobs.job_runner import JobFailedError, JobHand, JobWork
from workers.store.deployment import Deployment
from workers.store.uploaded_rows import UploadedRow, encode_rows

MAX_ROWS = MAX_LINES
"""Of a table: as many as one dry run tells of, which so finds who is in it twice, and knows when the last has their turn."""

MAX_BYTES = 100_000_000
"""Of a table's invitations, each of which has the names of all its columns: a check has all of them in memory."""

MOST_NAMES = 50
"""Columns that are named."""

_THEN = "PARLEY_HOST and PARLEY_PORT say where `web` listens; then go on here, nobody is invited twice"


class ReadTable(msgspec.Struct, frozen=True):
    """A table as it is kept, and the order with what is known of it now."""

    order: UploadOrder
    chunks: list[bytes]


class _WordingFields(msgspec.Struct):
    language: str = ""
    content: str = ""


_decode_wording = msgspec.json.Decoder(_WordingFields).decode


def read_table(content: bytes, order: UploadOrder) -> ReadTable:
    """Read a table of people. Raises PeopleFileError."""
    fixed = order.fixed_fields
    chunks: list[bytes] = []
    rows: list[UploadedRow] = []
    fields: set[str] = set()
    variables: set[str] = set()
    overridden: set[str] = set()
    count = size = 0
    for row in read_people(content, order.survey, fixed, "", order.country):
        count += 1
        own = {name for name, value in fixed.items() if row.body[name] != value}
        if elsewhere := sorted(own & {"campaign", "channel"}):
            raise PeopleFileError(
                f"line {row.line} has a {elsewhere[0]} of its own: expected that of the form, to which the "
                "budget belongs"
            )
        overridden |= own
        if count > MAX_ROWS:
            raise PeopleFileError(
                f"line {row.line}: there are more than {MAX_ROWS:,} people in it: divide it, or use "
                "`parley invite --csv`"
            )
        fields.update(row.body)
        variables.update(row.body.get("userSessionVariables", ()))
        rows.append(UploadedRow(row.line, msgspec.json.encode(row.body)))
        size += len(rows[-1].invitation)
        if size > MAX_BYTES:
            raise PeopleFileError(
                f"line {row.line}: this is too much: divide it, or give columns shorter names"
            )
        if len(rows) == ROWS_IN_CHUNK:
            chunks.append(encode_rows(rows))
            rows = []
    if rows:
        chunks.append(encode_rows(rows))
    if not count:
        raise PeopleFileError("there is nobody in it: expected a row for each person, below the header")
    known = (fields - fixed.keys() | overridden) - {"clientReference", "userSessionVariables", "identifier"}
    return ReadTable(
        msgspec.structs.replace(
            order, rows=count, fields=sorted(known)[:MOST_NAMES], variables=sorted(variables)[:MOST_NAMES]
        ),
        chunks,
    )


class UploadWork:
    """Makes the work of jobs."""

    def __init__(self, deployment: Deployment, store: UploadStore, api: ApiClient) -> None:
        self._deployment = deployment
        self.store = store
        self._api = api
        self.budgets = CampaignBudgets(deployment.lanes)
        self.spending = SpendingReader(deployment)

    def check(self, upload: Upload) -> JobWork:
        return partial(_told_in_words, partial(self._check, upload))

    def invite(self, upload: Upload) -> JobWork:
        return partial(_told_in_words, partial(self._invite, upload))

    def _check(self, upload: Upload, hand: JobHand) -> None:
        order = upload.order
        rows = [row for some in self.store.read_rows(upload.id) for row in some]
        _require_all(rows, order.rows)
        asked = [(place, row) for place, row in enumerate(rows) if row.invitation]
        hand.progress.total = len(asked)
        hand.save()
        results = self._api.invitations(order.survey, _THEN).foresee([row.invitation for _, row in asked])
        _require_answers(results)
        sums, good, invited = InvitationSums(), GoodRows(), Counter[InvitationWording]()
        for (place, row), result in zip(asked, results, strict=True):
            if sums.add_result(row.line, result) == "accepted":
                good.add(place)
                wording = _decode_wording(row.invitation)
                invited[InvitationWording(wording.language, wording.content)] += 1
        survey = self._deployment.surveys.current(order.survey)
        if survey is None:
            raise JobFailedError(f"The survey {order.survey} is not there any more.")
        cost = SurveyCosts(survey).cost_of(invited)
        check = UploadCheck(
            at=redis_client.server_time_ms(self._deployment.lanes),
            version=survey.version,
            sums=sums,
            cost=cost,
            budget=self._budget_of(order, cost.segments if cost else None),
        )
        self.store.save_check(upload.id, check, good.stored)
        hand.progress.counts = _counts_of(sums, "would be invited")

    def _budget_of(self, order: UploadOrder, more: int | None) -> BudgetView:
        told: Any = self._api.get(f"/v1/campaigns/{quote(order.campaign, safe='')}")
        spending = self.spending.read(order.campaign, told)
        kept = self.budgets.find(order.campaign)
        if order.price and kept.budget and not (kept.price or order.budget):
            raise JobFailedError(
                f"The budget of {order.campaign} is {kept.budget} segments: with a price, write it in money."
            )
        terms = CampaignBudget(order.price or kept.price, order.budget or kept.budget)
        return BudgetView(terms, spending.spent_segments, spending.ahead, more, spending.unread)

    def _invite(self, upload: Upload, hand: JobHand) -> None:
        good, place, sums = self.store.read_good(upload.id), 0, InvitationSums()
        check = upload.check
        hand.progress.total = check.sums.accepted if check else 0
        hand.save()
        if check is not None:  # others may have invited since it was checked
            budget = self._budget_of(upload.order, check.budget.more)
            if budget.is_exceeded:
                again = " What was sent of it since counts twice: check it again." if upload.sent else ""
                raise JobFailedError(f"{budget.sentence}{again}")
            if budget.terms != CampaignBudget():
                self.budgets.save(upload.order.campaign, budget.terms)
        api = self._api.invitations(upload.order.survey, _THEN)
        waiting: list[UploadedRow] = []
        for some in self.store.read_rows(upload.id):
            waiting += [row for at, row in enumerate(some, place) if at in good and row.invitation]
            place += len(some)
            if len(waiting) >= ROWS_PER_REQUEST or place >= upload.order.rows:
                results = api.invite([row.invitation for row in waiting])
                for row, result in zip(waiting, results, strict=True):
                    sums.add_result(row.line, result)
                waiting = []
                hand.progress.counts = _counts_of(sums, "invited")
                self.store.save_sent(upload.id, sums)
                hand.save()
                _require_answers(results)
            if hand.is_stopping():
                return
        if place < upload.order.rows:
            raise JobFailedError("The table is not there any more: upload it again, nobody is invited twice.")
        self.store.forget_rows(upload.id)


def _told_in_words(work: JobWork, hand: JobHand) -> None:
    """Do it. Raises JobFailedError with what the API says, or does not."""
    try:
        work(hand)
    except (InvitationApiError, ApiUnavailableError) as e:
        raise JobFailedError(f"{e}.") from e


def _require_all(rows: list[UploadedRow], expected: int) -> None:
    if len(rows) != expected:
        raise JobFailedError("The table is not there any more: upload it again.")


def _require_answers(results: Sequence[LineResult]) -> None:
    """Raises JobFailedError if it is not known what came of some, or would: a server of Redis was away, or lacked replicas."""
    if unknown := sum(each.status >= 500 for each in results):
        raise JobFailedError(
            f"Redis did not answer for {unknown:,} of them: go on here once it does, nobody is invited twice."
        )


def _counts_of(sums: InvitationSums, invited: str) -> dict[str, int]:
    counts = {invited: sums.accepted, "had been before": sums.repeated, "refused": sums.refused}
    return {name: count for name, count in counts.items() if count}
