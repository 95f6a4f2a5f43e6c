"""`parley invite`: ask a person, or a file of people, to take a survey, through the API.

A file goes in requests of a thousand rows. Every row has a reference of its own, so whatever is cut off may be sent
again, by this command or by whoever calls it once more: nobody is invited twice.
"""

import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Any, NoReturn
from urllib.parse import quote

import click
import msgspec
import requests

from config.settings.channels import SIMULATOR
from config.settings.settings import local_url
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.json_output import print_json, print_json_document
from engine.commands.terminal import open_console, progress_bar
from engine.model.errors import ParleyError
from ingest.api.invitations import LINE_TYPES, LineResult
from ingest.api.problems import FieldError, Problem
from ingest.commands.people import InvitationRow, PeopleFileError, error_sentence, read_people

ROWS_PER_REQUEST = 1_000
HTTP_TIMEOUT_S = (5, 120)
POST_TRIES = 6
RETRY_PAUSE_S = 0.5
"""Before the second try; doubled before each later one."""

_STATUS_ACCEPTED, _STATUS_REPEATED = 202, 200


class InvitationApiError(ParleyError, click.ClickException):
    """The API cannot be reached, or refuses the request in a way that another try will not change."""


class InvitationApi:
    """HTTP to one survey's invitations."""

    def __init__(self, url: str, key: str, survey: str, again: str) -> None:
        """`again` is the end of what is said when nobody answers: how to go on, so that nobody is invited twice."""
        self._url = f"{url}/v1/surveys/{quote(survey, safe='')}/invitations"
        self._survey = survey
        self._again = again
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"
        self._session.headers["Content-Type"] = LINE_TYPES[0]

    def invite(self, rows: Sequence[InvitationRow]) -> list[LineResult]:
        """The result of each row, in their order. Raises InvitationApiError."""
        results: dict[int, LineResult] = {}
        left = list(range(len(rows)))
        for tried in range(POST_TRIES):
            if tried:
                sleep(RETRY_PAUSE_S * 2 ** (tried - 1))
            answers = self._post_rows([rows[place] for place in left], last=tried == POST_TRIES - 1)
            results |= dict(zip(left, answers, strict=False))
            left = [place for place in left if place not in results or results[place].status >= 500]
            if not left:
                break
        return [results[place] for place in range(len(rows))]

    def _post_rows(self, rows: Sequence[InvitationRow], *, last: bool) -> list[LineResult]:
        body = b"".join(msgspec.json.encode(row.body) + b"\n" for row in rows)
        try:
            reply = self._session.post(self._url, data=body, timeout=HTTP_TIMEOUT_S)
        except requests.RequestException as e:
            if last:
                raise InvitationApiError(
                    f"{self._url} does not answer ({type(e).__name__}): start `parley run`, or say where "
                    "with --url; "
                    f"then {self._again}"
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
            case 404:
                return f"no channel there offers a survey called {self._survey}"
            case status:
                return f"{self._url} answered {status}: {_problem_sentence(reply.content)}"


@click.command()
@click.argument("number", required=False)
@click.option(
    "--csv", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A table of people."
)
@click.option("--survey", required=True, help="The survey's name.")
@click.option(
    "--channel", default="", help="The channel; needed where the key has several that offer the survey."
)
@click.option("--language", default="", help="One of the survey's.")
@click.option("--content", default="", help="Opens the first SMS.")
@click.option(
    "--variable", "variables", multiple=True, metavar="KEY=VALUE", help="A session variable; may be repeated."
)
@click.option(
    "--expires", default="", metavar="TIME", help="When the session ends, as in 2026-12-01T18:00:00+01:00."
)
@click.option("--originator", default="", help="A sub-number of the channel for the session.")
@click.option("--campaign", default="", help="Yours: what the invitations belong to.")
@click.option(
    "--send-at", default="", metavar="TIME", help="When their turn comes, as in 2026-12-01T09:00:00+01:00."
)
@click.option(
    "--reference", default="", help="Yours; with --csv, what the references of its rows begin with."
)
@click.option(
    "--url", default="", help="Where `web` listens.  [default: $PARLEY_PUBLIC_URL, or this machine]"
)
@click.option("--dry-run", is_flag=True, help="Read everything, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: what came of each invitation.")
def invite(
    number: str | None, file: Path | None, survey: str, channel: str, language: str, content: str,
    variables: tuple[str, ...], expires: str, originator: str, campaign: str, send_at: str, reference: str,
    url: str, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Ask a person, or a table of people, to take a survey.

    The table has a header. Its column `identifier` (or `number`, or `phone`) holds numbers in full; columns called
    channel, language, content, clientReference, expiryTime, originator, campaign and sendAt are what they say; every other
    column is a session variable. The same table again invites nobody twice: give another --reference for another time.

    The key to the API is $PARLEY_API_KEY; simulated channels take `simulator`, which is the default. Exit status 1 if
    somebody could not be invited. Whoever has opted out, or is in a conversation, is refused only when their turn
    comes: `parley transcript NUMBER` tells.

    \b
    Examples:
      parley invite +33612345678 --survey clinic --variable agentid=7
      parley invite --csv people.csv --survey clinic --reference november
    """
    if (number is None) == (file is None):
        raise click.UsageError("expected either one number, as in +33612345678, or --csv FILE")
    for written in filter(
        None,
        (
            number,
            survey,
            channel,
            language,
            content,
            *variables,
            expires,
            originator,
            campaign,
            send_at,
            reference,
        ),
    ):
        if not _is_text(written):
            raise click.UsageError(f"{written!r}: expected text in UTF-8")
    fixed = _given_fields(
        channel=channel, language=language, content=content, expiryTime=expires, originator=originator,
        campaign=campaign, sendAt=send_at, userSessionVariables=_parse_variables(variables),
    )  # fmt: skip
    rows = _read_rows(number, file, survey, fixed, reference)
    again = "run this command again, nobody is invited twice"
    if file is None and not reference:
        again = (
            f"run this command again with --reference {rows[0].body['clientReference']}, so that nobody is "
            "invited twice"
        )
    api = InvitationApi(_api_url(url), _api_key(), survey, again)
    report = _InviteReport(str(file) if file else "", as_json=as_json)
    if dry_run:
        report.show_dry_run(rows)
        return
    try:
        with report.progress_bar(len(rows)) as advance:
            for chunk in _row_chunks(rows):
                for row, result in zip(chunk, api.invite(chunk), strict=True):
                    report.note_result(row, result)
                advance(len(chunk))
    except KeyboardInterrupt:
        report.exit_interrupted(again)
    report.exit_with_summary()


class _InviteReport:
    """Prints the result of each invitation as it comes, and sums them up."""

    def __init__(self, file: str, *, as_json: bool) -> None:
        self._file = file
        self._as_json = as_json
        self._counts: Counter[int] = Counter()
        self._console = open_console(stderr=True, soft_wrap=True)

    def progress_bar(self, total: int) -> AbstractContextManager[Callable[[float], None]]:
        return progress_bar(total, "inviting", shown_from=ROWS_PER_REQUEST + 1, console=self._console)

    def show_dry_run(self, rows: Sequence[InvitationRow]) -> None:
        """Print what would be invited: every body as JSON, or a sentence and the first."""
        if self._as_json:
            for row in rows:
                print_json({"line": row.line, **row.body})
            return
        references = {row.body["clientReference"] for row in rows}
        click.echo(
            f"{len(rows)} would be invited, {len(rows) - len(references)} of them repeated. The first:"
        )
        for row in rows[:1]:
            print_json_document(row.body)

    def note_result(self, row: InvitationRow, result: LineResult) -> None:
        self._counts[result.status] += 1
        errors = result.errors or []
        if self._as_json:
            said = {"line": row.line, "reference": row.body["clientReference"], "status": result.status}
            said |= {"id": result.id} if result.id else {}
            said |= {"errors": errors} if errors else {}
            print_json(said)
        for error in [] if self._as_json else errors:
            where = f"{self._file}, line {row.line}: " if self._file else ""
            self._console.print(where + error_sentence(error))

    def exit_with_summary(self) -> None:
        """Sum up, and end with status 1 if somebody was not invited."""
        if not self._as_json:
            click.echo(self._summary_sentence())
        if self._refused_count:
            raise SystemExit(EXIT_PROBLEMS)

    def exit_interrupted(self, again: str) -> NoReturn:
        """Say how far it came, and how to go on."""
        self._console.print(f"Interrupted. So far: {self._summary_sentence()} To go on, {again}.")
        raise SystemExit(EXIT_PROBLEMS)

    @property
    def _refused_count(self) -> int:
        return self._counts.total() - self._counts[_STATUS_ACCEPTED] - self._counts[_STATUS_REPEATED]

    def _summary_sentence(self) -> str:
        return (
            f"{self._counts[_STATUS_ACCEPTED]} invited, {self._counts[_STATUS_REPEATED]} had been before, "
            f"{self._refused_count} refused."
        )


def _read_rows(
    number: str | None, file: Path | None, survey: str, fixed: dict[str, Any], reference: str
) -> list[InvitationRow]:
    if file is None:
        return [
            InvitationRow(
                0,
                {
                    **fixed,
                    "identifier": number,
                    "clientReference": reference or f"cli-{secrets.token_hex(8)}",
                },
            )
        ]
    try:
        return list(read_people(file, survey, fixed, reference))
    except PeopleFileError as e:
        raise click.UsageError(str(e)) from e
    except OSError as e:
        raise click.UsageError(f"{file}: cannot be read ({e.strerror})") from e


def _is_text(written: str) -> bool:
    """False of bytes that a terminal of another encoding sent."""
    return not any("\ud800" <= character <= "\udfff" for character in written)


def _given_fields(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _parse_variables(written: Iterable[str]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for each in written:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--variable {each}: expected KEY=VALUE, such as agentid=7")
        variables[key] = value
    return variables


def _api_key() -> str:
    """The key to the API. Keys are made of such letters alone, and a header takes no others."""
    key = os.environ.get("PARLEY_API_KEY") or SIMULATOR
    if not re.fullmatch(r"[!-~]+", key):
        raise click.UsageError(
            "PARLEY_API_KEY: expected a key as `parley key` prints it, without blanks and line ends"
        )
    return key


def _api_url(written: str) -> str:
    if not written:
        return _default_api_url()
    if not re.match(r"https?://[^/]", written):
        raise click.UsageError(
            f"--url {written}: expected http:// or https:// and a host, such as http://127.0.0.1:8000"
        )
    return written.rstrip("/")


def _default_api_url() -> str:
    """Where the API is, as `web` is told by the same variables."""
    if public := os.environ.get("PARLEY_PUBLIC_URL"):
        return public.rstrip("/")
    return local_url(os.environ.get("PARLEY_HOST") or "127.0.0.1", os.environ.get("PARLEY_PORT") or 8000)


def _row_chunks(rows: Iterable[InvitationRow]) -> Iterator[list[InvitationRow]]:
    left = iter(rows)
    while chunk := list(islice(left, ROWS_PER_REQUEST)):
        yield chunk


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
    errors: Sequence[FieldError] = problem.errors
    return "; ".join([problem.title, problem.detail, *map(error_sentence, errors)]).strip("; ")
