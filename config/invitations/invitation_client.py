"""Sends invitations through the API, a line each. Every one has a reference of its own, so whatever is cut off is sent again, here or by
whoever calls it once more: nobody is invited twice."""

from collections.abc import Sequence
from io import BytesIO
from time import sleep
from urllib.parse import quote

import msgspec
import requests

from config.invitations.line_result import LINE_TYPES, LineResult, Problem, error_sentence
from engine.model.errors import ParleyError

ROWS_PER_REQUEST = 1_000
HTTP_TIMEOUT_S = (5, 120)
DRY_RUN_TIMEOUT_S = (5, 600)
"""To connect, and between two pieces of the answer: that of a dry run begins once all lines are read."""

POST_TRIES = 6
RETRY_PAUSE_S = 0.5
"""Before the second try; doubled before each later one."""


class InvitationApiError(ParleyError):
    """The API cannot be reached, or refuses the request in a way that another try will not change."""


class InvitationApi:
    """HTTP to one survey's invitations."""

    def __init__(self, url: str, key: str, survey: str, then: str) -> None:
        """`then` is the end of what is said when nobody answers: how to go on, so that nobody is invited twice."""
        self._url = f"{url}/v1/surveys/{quote(survey, safe='')}/invitations"
        self._dry_run_url = f"{self._url}/dry-run"
        self._survey = survey
        self._then = then
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"
        self._session.headers["Content-Type"] = LINE_TYPES[0]

    def foresee(self, invitations: Sequence[bytes]) -> list[LineResult]:
        """What would come of each invitation, a line of JSON each, in their order; nothing is done. Raises InvitationApiError."""
        return self._post_all(self._dry_run_url, invitations)

    def invite(self, invitations: Sequence[bytes]) -> list[LineResult]:
        """The result of each, in their order. Raises InvitationApiError."""
        return self._post_all(self._url, invitations)

    def _post_all(self, url: str, rows: Sequence[bytes]) -> list[LineResult]:
        results: dict[int, LineResult] = {}
        left = list(range(len(rows)))
        for tried in range(POST_TRIES):
            if tried:
                sleep(RETRY_PAUSE_S * 2 ** (tried - 1))
            answers = self._post_rows(url, [rows[place] for place in left], last=tried == POST_TRIES - 1)
            results |= dict(zip(left, answers, strict=False))
            left = [place for place in left if place not in results or results[place].status >= 500]
            if not left:
                break
        return [results[place] for place in range(len(rows))]

    def _post_rows(self, url: str, rows: Sequence[bytes], *, last: bool) -> list[LineResult]:
        body = b"".join(row + b"\n" for row in rows)
        try:
            timeout = DRY_RUN_TIMEOUT_S if url == self._dry_run_url else HTTP_TIMEOUT_S
            # in blocks: each has its time
            reply = self._session.post(url, data=BytesIO(body), timeout=timeout)
        except requests.RequestException as e:
            if last:
                raise InvitationApiError(
                    f"{self._url} does not answer ({type(e).__name__}): {self._then}"
                ) from e
            return []
        match reply.status_code:
            case requests.codes.ok if (results := _decode_results(reply.content, len(rows))) or not last:
                return results
            case requests.codes.too_many_requests if not last:
                sleep(float(reply.headers.get("Retry-After", RETRY_PAUSE_S)))
                return []
            case status if status >= 500 and not last:
                return []
            case _:
                raise InvitationApiError(self._failure_sentence(reply))

    def _failure_sentence(self, reply: requests.Response) -> str:
        match reply.status_code:
            case 401:
                return (
                    "the key is not one of that deployment: set PARLEY_API_KEY, or make one with `parley key`"
                )
            case 404 if not _problem_sentence(reply.content).startswith("no such survey"):
                return f"{self._url} is not there, or knows no dry runs: it has to be of this release"
            case 404:
                return f"no channel there offers a survey called {self._survey}"
            case status:
                return f"{self._url} answered {status}: {_problem_sentence(reply.content)}"


def _decode_results(body: bytes, wanted: int) -> list[LineResult]:
    """In the order of the lines; fewer if the answer was cut off."""
    try:
        results = [msgspec.json.decode(line, type=LineResult) for line in body.splitlines()]
    except msgspec.MsgspecError:
        return []
    return results if len(results) == wanted else []


def _problem_sentence(body: bytes) -> str:
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        return body[:200].decode(errors="replace")
    return "; ".join([problem.title, problem.detail, *map(error_sentence, problem.errors)]).strip("; ")
