"""`parley replay`: do stored conversations come out the same, and how would they go on another version?"""

import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import describe_failure
from config.settings.channels import channel_policies
from config.store import keyspace, redis_client
from config.store.audit import record_operator
from config.telemetry.logs import hash_sender
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS, EXIT_UNUSABLE, exit_unusable
from engine.commands.json_output import json_line, print_json
from engine.commands.terminal import open_console, simple_table
from engine.model.events import ArchiveRecord
from engine.model.policy import ChannelPolicies
from engine.proofs.transcripts import Transcript, TranscriptError, format_transcript, parse_transcript
from engine.simulator.session_replay import (
    RecordedSession,
    ReplayedDifferent,
    ReplayedSame,
    ReplayImpossible,
    SessionCollector,
    SessionComparison,
    SessionReplayResult,
    replay_on_version,
    sessions_of,
)
from engine.simulator.session_replay import replay_session as run_again
from engine.simulator.simulator import SIMULATED_SENDER, phone_for, play_entries, playable_surveys
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from workers.archiving.archived_versions import load_archived_versions
from workers.commands.connect import connect_lanes
from workers.commands.reports.open_archive import open_archive_or_warn
from workers.history.joined_history import HistoryReader
from workers.history.record_wording import format_record, record_fields
from workers.store.deployment import Deployment
from workers.store.survey_versions import load_versions

EXIT_SAME, EXIT_DIFFERENT, EXIT_IMPOSSIBLE = EXIT_OK, EXIT_PROBLEMS, EXIT_UNUSABLE
"""What came of a session, and the exit status that says so."""

_MAX_LISTED = 10


@click.command()
@click.argument("source", metavar="TRANSCRIPT_OR_SENDER", default="")
@click.option("--all", "everything", is_flag=True, help="Every session that is stored; a summary.")
@click.option("--session", default="", help="Only this session.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="Another version of the survey, to compare with."
)
@click.option(
    "--survey", "files", multiple=True, type=click.Path(path_type=Path),
    help="A survey that a transcript is of, or a version that neither Redis nor the archive has.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, everything in it.")
def replay(
    source: str, everything: bool, session: str, against: Path | None, files: Sequence[Path], as_json: bool
) -> None:
    """Run stored conversations again, and say where they differ.

    They come from a transcript, or from the archive and Redis: those with one sender, or all of them. Without --against
    each must come out as it was stored, byte for byte, as far as the release that stored it recorded it. With it they run
    on another version of their survey, at the same times, and what differs is told: path, outcome, SMS, segments, and
    replies that are no longer read.

    Exit status 0 if nothing differs, 1 if something does, 2 if nothing could be run.

    \b
    Example:
      parley replay +33612345678
      parley replay tests/goldens/clinic-fever.txt --survey clinic.yaml
      parley replay --all --against new-clinic.yaml
    """
    if everything == bool(source):
        raise click.UsageError(
            "name a transcript or a sender, or say --all" + (", not both" if source else "")
        )
    other = _compile_survey_file(against) if against is not None else None
    show = _JsonWriter() if as_json else _TerminalWriter()
    if source and not re.fullmatch(r"\+[0-9]+", source):
        sys.exit(_replay_transcript(show, Path(source), _read_survey_files(files), session, other))
    try:
        sys.exit(_replay_stored(show, source, session, _read_survey_files(files), other))
    except SQLAlchemyError as e:
        exit_unusable(f"the archive failed: {describe_failure(e)}")


def _read_survey_files(files: Iterable[Path]) -> dict[str, bytes]:
    try:
        return {str(path): path.read_bytes() for path in files}
    except OSError as e:
        exit_unusable(f"{e.filename}: cannot be read ({e.strerror})")


def _compile_survey_file(path: Path) -> Survey:
    surveys, problems = playable_surveys(_read_survey_files([path]))
    if problems:
        exit_unusable(*problems)
    (survey,) = filter(None, map(surveys.current, surveys.current_names()))
    return survey


def _add_survey(surveys: SurveyRegistry, path: str, content: bytes) -> None:
    try:
        surveys.add_version(read_stored_survey(path, content))
    except InvalidSurveyError as e:
        exit_unusable(*e.tell(path))


def _filter_sessions(session: str, found: Iterable[RecordedSession]) -> Iterator[RecordedSession]:
    return (stored for stored in found if not session or stored.id == session)


def _replay_stored(
    show: "_ResultWriter", source: str, session: str, sources: dict[str, bytes], other: Survey | None
) -> int:
    """Replay stored sessions of the sender `source`, or of everybody if it is empty. Returns the exit status."""
    deployment = connect_lanes(os.environ)
    whose = hash_sender(deployment.open_log_key(), source) if source else "everybody"
    record_operator(deployment.lanes, "replay conversations", whose, session=session)
    surveys = deployment.surveys
    load_versions(deployment.lanes, surveys)
    with open_archive_or_warn(deployment) as archive:
        if archive is not None:
            with archive.reading() as connection:
                load_archived_versions(connection, surveys)
        for path, content in sources.items():
            _add_survey(surveys, path, content)
        run = _SessionRerunner(surveys, channel_policies(deployment.settings.channels), other)
        history = HistoryReader(deployment.lanes, archive)
        if not source:
            return show.write_totals(run, _all_sessions(deployment, history))
        named = f"session {session} of {source}" if session else f"session of {source}"
        found = _sender_sessions(deployment, history, source)
        return show.write_sessions(run, _filter_sessions(session, found), named)


def _sender_sessions(
    deployment: Deployment, history: HistoryReader, sender: str
) -> Iterator[RecordedSession]:
    entries = history.read_sender(keyspace.shard_of(sender, deployment.settings.shards), sender)
    return sessions_of(sender, (record for entry in entries for record in entry.records))


def _all_sessions(deployment: Deployment, history: HistoryReader) -> Iterator[RecordedSession]:
    """Every session that is stored now, shard by shard, read page by page. Only those that have not ended are held in
    memory."""
    until_ms = redis_client.server_time_ms(deployment.lanes)
    for k in range(deployment.settings.shards):
        found = SessionCollector()
        for entry in history.read_shard(k, until_ms):
            yield from found.add_records(entry.sender, entry.records)
        yield from found.unended_sessions()


def _replay_transcript(
    show: "_ResultWriter", path: Path, sources: dict[str, bytes], session: str, other: Survey | None
) -> int:
    """Replay the transcript at `path` on the survey in `sources`, or compare with `other`. Returns the exit status."""
    if not path.exists():
        exit_unusable(f"{path} is no transcript, and no sender either: one is written as in +33612345678")
    if not sources:
        exit_unusable(f"{path}: name the file of its survey with --survey")
    surveys, problems = playable_surveys(sources)
    if problems:
        exit_unusable(*problems)
    try:
        transcript = parse_transcript(path.read_text(encoding="utf-8"))
        phone = phone_for(transcript, surveys, surveys.current_names())
    except (OSError, UnicodeDecodeError, TranscriptError) as e:
        exit_unusable(f"{path}: {e.strerror if isinstance(e, OSError) else e}")
    entries = tuple(entry for done in play_entries(transcript.entries, phone) for entry in done)
    if other is None:
        return show.write_transcript(path, transcript, msgspec.structs.replace(transcript, entries=entries))
    run = _SessionRerunner(surveys, {phone.channel: phone.policy}, other)
    return show.write_sessions(
        run, _filter_sessions(session, sessions_of(SIMULATED_SENDER, phone.records)), str(path)
    )


class _SessionRerunner:
    """How each session is run: again as it was, or on another version."""

    def __init__(self, surveys: SurveyRegistry, policy: ChannelPolicies, other: Survey | None) -> None:
        self._surveys = surveys
        self._policy = policy
        self.other = other

    def __call__(self, stored: RecordedSession) -> SessionReplayResult | SessionComparison:
        if self.other is None:
            return run_again(stored, self._surveys, self._policy)
        return replay_on_version(stored, self.other, self._surveys, self._policy)


def _combined_exit_status(verdicts: Collection[int]) -> int:
    """The exit status of several results: different if any differs, else same if any is, else impossible."""
    return next((status for status in (EXIT_DIFFERENT, EXIT_SAME) if status in verdicts), EXIT_IMPOSSIBLE)


def _exit_status_of_result(came: SessionReplayResult | SessionComparison) -> int:
    match came:
        case ReplayedSame():
            return EXIT_SAME
        case ReplayedDifferent():
            return EXIT_DIFFERENT
        case ReplayImpossible():
            return EXIT_IMPOSSIBLE
        case SessionComparison():
            return EXIT_SAME if came.is_same else EXIT_DIFFERENT


class RerunTotals:
    """What came of many sessions, in bounded memory."""

    def __init__(self) -> None:
        self.verdicts: Counter[int] = Counter()
        self.impossible: Counter[str] = Counter()
        self.different: list[dict[str, Any]] = []
        self.paths = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.sms = [0, 0]
        self.segments = [0, 0]
        self.no_longer_read: Counter[tuple[str, str]] = Counter()

    def add(self, stored: RecordedSession, came: SessionReplayResult | SessionComparison) -> None:
        verdict = _exit_status_of_result(came)
        self.verdicts[verdict] += 1
        if isinstance(came, ReplayImpossible):
            self.impossible[came.why] += 1
        if verdict == EXIT_DIFFERENT and len(self.different) < _MAX_LISTED:
            self.different.append({"sender": stored.sender, "session": stored.id})
        if isinstance(came, SessionComparison):
            self._add_comparison(came)

    def _add_comparison(self, came: SessionComparison) -> None:
        self.paths += came.diverges_at is not None
        self.outcomes[came.before.outcome, came.after.outcome] += 1
        for place, course in enumerate((came.before, came.after)):
            self.sms[place] += course.sms
            self.segments[place] += course.segments
        self.no_longer_read.update(came.no_longer_read)

    @property
    def exit_status(self) -> int:
        return _combined_exit_status(self.verdicts)


class _ResultWriter:
    """Where results go. Each method answers with the exit status."""

    def write_transcript(self, path: Path, stored: Transcript, came: Transcript) -> int:
        raise NotImplementedError

    def write_sessions(self, run: _SessionRerunner, found: Iterable[RecordedSession], named: str) -> int:
        raise NotImplementedError

    def write_totals(self, run: _SessionRerunner, found: Iterable[RecordedSession]) -> int:
        tally = RerunTotals()
        for stored in found:
            tally.add(stored, run(stored))
        self.write_summary(run, tally)
        return tally.exit_status

    def write_summary(self, run: _SessionRerunner, tally: RerunTotals) -> None:
        raise NotImplementedError


class _JsonWriter(_ResultWriter):
    """One object a line."""

    def write_transcript(self, path: Path, stored: Transcript, came: Transcript) -> int:
        print_json(
            {
                "transcript": str(path),
                "result": _result_word(stored == came),
                "diff": _diff_lines(stored, came),
            }
        )
        return EXIT_SAME if stored == came else EXIT_DIFFERENT

    def write_sessions(self, run: _SessionRerunner, found: Iterable[RecordedSession], named: str) -> int:
        results = []
        for stored in found:
            results.append(came := run(stored))
            print_json({"sender": stored.sender, "session": stored.id, **_result_fields(came)})
        return _combined_exit_status([_exit_status_of_result(came) for came in results])

    def write_summary(self, run: _SessionRerunner, tally: RerunTotals) -> None:
        summary: dict[str, Any] = {
            "same": tally.verdicts[EXIT_SAME],
            "different": tally.verdicts[EXIT_DIFFERENT],
            "impossible": dict(tally.impossible),
            "first_different": tally.different,
        }
        if run.other is not None:
            summary |= {
                "paths_differ": tally.paths,
                "outcomes": [
                    {"before": before, "after": after, "sessions": sessions}
                    for (before, after), sessions in sorted(tally.outcomes.items())
                ],
                "sms": {"before": tally.sms[0], "after": tally.sms[1]},
                "segments": {"before": tally.segments[0], "after": tally.segments[1]},
                "no_longer_read": [
                    {"step": step, "why": why, "replies": replies}
                    for (step, why), replies in tally.no_longer_read.most_common()
                ],
            }
        print_json(summary)


def _result_word(same: bool) -> str:
    return "same" if same else "different"


def _result_fields(came: SessionReplayResult | SessionComparison) -> dict[str, Any]:
    match came:
        case ReplayedSame():
            return {"result": "same"}
        case ReplayedDifferent(place, stored, came_out):
            return {
                "result": "different",
                "record": place,
                "stored": None if stored is None else record_fields(stored),
                "came_out": None if came_out is None else record_fields(came_out),
            }
        case ReplayImpossible(why):
            return {"result": "impossible", "why": why}
        case SessionComparison():
            return {
                "result": _result_word(came.is_same),
                "before": msgspec.to_builtins(came.before),
                "after": msgspec.to_builtins(came.after),
                "parts_at": came.diverges_at,
                "no_longer_read": [{"step": step, "why": why} for step, why in came.no_longer_read],
            }


def _diff_lines(stored: Transcript, came: Transcript) -> list[str]:
    """What is stored with -, what came out with +."""
    lines = unified_diff(
        format_transcript(stored).splitlines(), format_transcript(came).splitlines(), lineterm="", n=2
    )
    return list(lines)[2:]


class _TerminalWriter(_ResultWriter):
    """Lines and tables."""

    def __init__(self) -> None:
        self._console = open_console(soft_wrap=True)

    def write_transcript(self, path: Path, stored: Transcript, came: Transcript) -> int:
        if stored == came:
            self._console.print(f"{path} comes out the same.")
            return EXIT_SAME
        self._console.print(f"{path} comes out otherwise: - is what it says, + is what came out")
        for written in _diff_lines(stored, came):
            self._console.print(Text(written, {"-": "red", "+": "green"}.get(written[0], "dim")))
        return EXIT_DIFFERENT

    def write_sessions(self, run: _SessionRerunner, found: Iterable[RecordedSession], named: str) -> int:
        results = [(stored, run(stored)) for stored in found]
        if not results:
            exit_unusable(f"no {named} is archived; a sender is written as in +33612345678")
        compared = [came for _, came in results if isinstance(came, SessionComparison)]
        if compared:
            self._console.print(_comparison_table(compared), soft_wrap=False)
        for stored, came in results:
            if not isinstance(came, SessionComparison):
                self._print_result(stored, came)
        return _combined_exit_status([_exit_status_of_result(came) for _, came in results])

    def _print_result(self, stored: RecordedSession, came: SessionReplayResult) -> None:
        named = f"session {stored.id}" + (f" of {stored.opened.survey}" if stored.opened else "")
        match came:
            case ReplayedSame():
                self._console.print(
                    f"{named}: its {len(stored.records)} records come out the same, byte for byte"
                )
            case ReplayImpossible(why):
                self._console.print(Text(f"{named}: cannot be run again: {why}", "yellow"))
            case ReplayedDifferent(place, was, now):
                self._console.print(
                    Text(f"{named}: differs at record {place + 1} of {len(stored.records)}", "red")
                )
                self._console.print(Text(f"  stored:   {_describe_record(was)}"))
                self._console.print(Text(f"  came out: {_describe_record(now)}"))

    def write_summary(self, run: _SessionRerunner, tally: RerunTotals) -> None:
        put = self._console.print
        kinds = ("same", "different", "cannot be run again")
        put("sessions: " + ", ".join(f"{tally.verdicts[kind]} {says}" for kind, says in enumerate(kinds)))
        for why, sessions in tally.impossible.most_common(_MAX_LISTED):
            put(f"  {sessions}: {why}")
        if run.other is not None:
            self._print_comparison(run.other, tally)
        for each in tally.different:
            against = f" --against {shlex.quote(run.other.file)}" if run.other is not None else ""
            put(f"  see: parley replay {each['sender']} --session {each['session']}{against}")

    def _print_comparison(self, other: Survey, tally: RerunTotals) -> None:
        put = self._console.print
        put(f"on {other.file}, version {other.version}:")
        put(f"  another path: {tally.paths}")
        for (before, after), sessions in sorted(tally.outcomes.items()):
            put(f"  {before}, {'as before' if before == after else f'now {after}'}: {sessions}")
        put(f"  SMS out: {tally.sms[0]}, now {tally.sms[1]}")
        put(f"  segments: {tally.segments[0]}, now {tally.segments[1]}")
        for (step, why), replies in tally.no_longer_read.most_common(_MAX_LISTED):
            put(f"  replies to '{step}' that are no longer read, {why}: {replies}")


def _describe_record(record: ArchiveRecord | None) -> str:
    return (
        "nothing more" if record is None else f"{format_record(record)}   {json_line(record_fields(record))}"
    )


def _comparison_table(compared: Sequence[SessionComparison]) -> Table:
    """Before and after, a row a session."""
    columns = ("session", "path", "outcome", "SMS out", "segments", "no longer read")
    table = simple_table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for each in compared:
        before, after = each.before, each.after
        table.add_row(
            each.id,
            _format_both_paths(each),
            _format_change(before.outcome, after.outcome),
            _format_change(before.sms, after.sms),
            _format_change(before.segments, after.segments),
            "\n".join(f"{step}: {why}" for step, why in each.no_longer_read),
        )
    return table


def _format_change(before: object, after: object) -> str:
    return str(before) if before == after else f"{before} → {after}"


def _format_both_paths(compared: SessionComparison) -> str:
    """Both paths as far as the first difference."""
    place = compared.diverges_at
    if place is None:
        return "same"
    return (
        f"before: {_format_path(compared.before.path, place)}\nafter: "
        f"{_format_path(compared.after.path, place)}"
    )


def _format_path(path: Sequence[str], place: int) -> str:
    shown = [*path[max(0, place - 2) : place + 1]]
    if place >= len(path):
        shown.append("no more")
    return " > ".join((["…"] if place > 2 else []) + shown)
