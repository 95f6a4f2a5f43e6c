"""`parley invite`: ask a person, or a file of people, to take a survey, through the API.

A file goes in requests of a thousand rows. Every row has a reference of its own, so whatever is cut off may be sent
again, by this command or by whoever calls it once more: nobody is invited twice.
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from config.invitations.invitation_client import ROWS_PER_REQUEST, InvitationApi, InvitationApiError
from config.invitations.line_result import MAX_LINES
from config.invitations.people_table import (
    InvitationRow,
    PeopleFileError,
    UnknownCountryError,
    full_number,
    parse_country,
    read_people,
)
from config.settings.channels import SIMULATOR
from config.settings.settings import local_url
from config.settings.survey_folder import read_survey_files
from engine.commands.money import PriceType
from engine.proofs.survey_loader import load_surveys
from engine.surveys.program import Survey
from ingest.commands.invite_report import InviteReport


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
    "--at",
    "send_at",
    default="",
    metavar="TIME",
    help="When their turn comes, as in 2026-12-01T09:00:00+01:00; or 09:00, where each of them is.",
)
@click.option(
    "--reference", default="", help="Yours; with --csv, what the references of its rows begin with."
)
@click.option(
    "--url", default="", help="Where `web` listens.  [default: $PARLEY_PUBLIC_URL, or this machine]"
)
@click.option(
    "--country",
    default="",
    metavar="CODE",
    help="Where numbers are from that are written without a country, as in DE.",
)
@click.option(
    "--dry-run", is_flag=True, help="Invite nobody: say who would be refused, and what it would cost at most."
)
@click.option("--price", type=PriceType(), help="Money for one segment, such as 0.05, for --dry-run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: what came of each invitation.")
def invite(
    number: str | None, file: Path | None, survey: str, channel: str, language: str, content: str,
    variables: tuple[str, ...], expires: str, originator: str, campaign: str, send_at: str, reference: str,
    url: str, country: str, dry_run: bool, price: Decimal | None, as_json: bool,
) -> None:  # fmt: skip
    """Ask a person, or a table of people, to take a survey.

    The table has a header. Its column `identifier` (or `number`, or `phone`) holds numbers in full, or, with --country, as they are
    written there; columns called
    channel, language, content, clientReference, expiryTime, originator, campaign and sendAt are what they say; every other
    column is a session variable. The same table again invites nobody twice: give another --reference for another time.

    The key to the API is $PARLEY_API_KEY; simulated channels take `simulator`, which is the default. Exit status 1 if
    somebody could not be invited. Whoever is in a conversation, or opts out until then, is refused when their turn
    comes: `parley transcript NUMBER` tells.

    \b
    Examples:
      parley invite +33612345678 --survey clinic --variable agentid=7
      parley invite --csv people.csv --survey clinic --reference november
      parley invite --csv people.csv --survey clinic --country DE --at 09:00 --dry-run --price 0.05
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
    rows = _read_rows(number, file, survey, fixed, reference, _parse_country_option(country))
    again = "run this command again, nobody is invited twice"
    if file is None and not reference:
        again = (
            f"run this command again with --reference {rows[0].body['clientReference']}, so that nobody is "
            "invited twice"
        )
    then = f"start `parley run`, or say where with --url; then {again}"
    api = InvitationApi(_api_url(url), _api_key(), survey, then)
    report = InviteReport(str(file) if file else "", as_json=as_json, shown_from=ROWS_PER_REQUEST + 1)
    try:
        if dry_run:
            for chunk in _row_chunks(rows, MAX_LINES):
                for row, result in zip(chunk, api.foresee(_encode_rows(chunk)), strict=True):
                    report.note_result(row, result, with_body=True)
            report.exit_with_forecast(rows, _find_survey(survey), price)
            return
        with report.progress_bar(len(rows)) as advance:
            for chunk in _row_chunks(rows, ROWS_PER_REQUEST):
                for row, result in zip(chunk, api.invite(_encode_rows(chunk)), strict=True):
                    report.note_result(row, result)
                advance(len(chunk))
    except InvitationApiError as e:
        raise click.ClickException(str(e)) from e
    except KeyboardInterrupt:
        report.exit_interrupted(again)
    report.exit_with_summary()


def _read_rows(
    number: str | None, file: Path | None, survey: str, fixed: dict[str, Any], reference: str, country: str
) -> list[InvitationRow]:
    if file is None:
        assert number is not None  # noqa: S101 - one of the two is there
        return [
            InvitationRow(
                0,
                {
                    **fixed,
                    "identifier": full_number(number, country),
                    "clientReference": reference or f"cli-{secrets.token_hex(8)}",
                },
            )
        ]
    try:
        return list(read_people(file.read_bytes(), survey, fixed, reference, country))
    except PeopleFileError as e:
        raise click.UsageError(f"{file}: {e}") from e
    except OSError as e:
        raise click.UsageError(f"{file}: cannot be read ({e.strerror})") from e


def _parse_country_option(written: str) -> str:
    try:
        return parse_country(written)
    except UnknownCountryError as e:
        raise click.UsageError(f"--country {e}") from e


def _find_survey(name: str) -> Survey | None:
    """The survey, if its file is here: the API may be elsewhere."""
    folder = Path(os.environ.get("PARLEY_SURVEYS") or "config/surveys/")
    try:
        surveys, _ = load_surveys(read_survey_files(folder))
    except OSError:
        return None
    return surveys.current(name)


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


def _encode_rows(rows: Iterable[InvitationRow]) -> list[bytes]:
    return [msgspec.json.encode(row.body) for row in rows]


def _row_chunks(rows: Iterable[InvitationRow], size: int) -> Iterator[list[InvitationRow]]:
    left = iter(rows)
    while chunk := list(islice(left, size)):
        yield chunk
