"""`parley replay`: do stored conversations come out the same, and how would they go on another version?"""

import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
import redis
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from config.store import keyspace
from engine.model.events import Record
from engine.model.policy import Policy
from engine.proofs.transcripts import Transcript, Unreadable, compose, parse
from engine.simulator.session_replay import (
    Compared,
    Different,
    Impossible,
    Replayed,
    Same,
    Sessions,
    Stored,
    compare,
    sessions_of,
)
from engine.simulator.session_replay import replay as run_again
from engine.simulator.simulator import SENDER, phone_for, playable, playing
from engine.surveys.findings import Rejected
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import Surveys
from workers.commands.connect import reach
from workers.commands.transcript import archived, line
from workers.store import archive
from workers.store.survey_versions import learn
from workers.turns.turns import policy_of

SAME, DIFFERENT, IMPOSSIBLE = 0, 1, 2
"""Exit statuses."""

_MOST_NAMED = 10
_WIDTH = 160  # of tables that no terminal shows


@click.command()
@click.argument("source", metavar="TRANSCRIPT_OR_SENDER", default="")
@click.option("--all", "everything", is_flag=True, help="Every session in the archive; a summary.")
@click.option("--session", default="", help="Only this session.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="Another version of the survey, to compare with."
)
@click.option(
    "--survey", "files", multiple=True, type=click.Path(path_type=Path),
    help="A survey that a transcript is of, or a version that Redis does not have.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, everything in it.")
def replay(
    source: str, everything: bool, session: str, against: Path | None, files: Sequence[Path], as_json: bool
) -> None:
    """Run stored conversations again, and say where they differ.

    They come from a transcript, or from the archive: those with one sender, or all of them. Without --against each
    must come out as it was stored, byte for byte. With it they run on another version of their survey, at the same
    times, and what differs is told: path, outcome, SMS, segments, and replies that are no longer read.

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
    other = _survey_in(against) if against is not None else None
    show = _Json() if as_json else _Terminal()
    if source and not re.fullmatch(r"\+[0-9]+", source):
        sys.exit(_replay_transcript(show, Path(source), _sources(files), session, other))
    settings, client = reach(os.environ)
    surveys = Surveys()
    learn(client, surveys)
    for path, content in _sources(files).items():
        _add(surveys, path, content)
    run = _Rerun(surveys, policy_of(settings.channels), other)
    if everything:
        sys.exit(show.tally(run, _archive(client, settings.shards)))
    k = keyspace.shard_of(source, settings.shards)
    found = sessions_of(source, archived(client, k, source))
    named = f"session {session} of {source}" if session else f"session of {source}"
    sys.exit(show.sessions(run, _only(session, found), named))


def _sources(files: Iterable[Path]) -> dict[str, bytes]:
    try:
        return {str(path): path.read_bytes() for path in files}
    except OSError as e:
        _impossible(f"{e.filename}: cannot be read ({e.strerror})")


def _survey_in(path: Path) -> Survey:
    surveys, problems = playable(_sources([path]))
    if problems:
        _impossible(*problems)
    (survey,) = filter(None, map(surveys.current, surveys.names()))
    return survey


def _add(surveys: Surveys, path: str, content: bytes) -> None:
    try:
        surveys.add(read_stored_survey(path, content))
    except Rejected as e:
        _impossible(*(f"{path}: {problem}" for problem in e.problems))


def _impossible(*why: str) -> NoReturn:
    for sentence in why:
        click.echo(sentence, err=True)
    sys.exit(IMPOSSIBLE)


def _only(session: str, found: Iterable[Stored]) -> Iterator[Stored]:
    return (stored for stored in found if not session or stored.id == session)


def _archive(client: redis.Redis, shards: int) -> Iterator[Stored]:
    """Every session that is in the archive now, page by page: held are only those that have not ended."""
    until = str(keyspace.server_ms(client))
    for k in range(shards):
        found = Sessions()
        for entry in archive.stored(client, k, until):
            yield from found.add(entry.sender, entry.records)
        yield from found.rest()


def _replay_transcript(
    show: "_Show", path: Path, sources: dict[str, bytes], session: str, other: Survey | None
) -> int:
    """The transcript is what is stored; its survey says what comes out."""
    if not path.exists():
        _impossible(f"{path} is no transcript, and no sender either: one is written as in +33612345678")
    if not sources:
        _impossible(f"{path}: name the file of its survey with --survey")
    surveys, problems = playable(sources)
    if problems:
        _impossible(*problems)
    try:
        transcript = parse(path.read_text(encoding="utf-8"))
        phone = phone_for(transcript, surveys, surveys.names())
    except (OSError, UnicodeDecodeError, Unreadable) as e:
        _impossible(f"{path}: {e.strerror if isinstance(e, OSError) else e}")
    entries = tuple(entry for done in playing(transcript.entries, phone) for entry in done)
    if other is None:
        return show.transcript(path, transcript, msgspec.structs.replace(transcript, entries=entries))
    run = _Rerun(surveys, {phone.channel: phone.policy}, other)
    return show.sessions(run, _only(session, sessions_of(SENDER, phone.records)), str(path))


class _Rerun:
    """How each session is run: again as it was, or on another version."""

    def __init__(self, surveys: Surveys, policy: Policy, other: Survey | None) -> None:
        self._surveys = surveys
        self._policy = policy
        self.other = other

    def __call__(self, stored: Stored) -> Replayed | Compared:
        if self.other is None:
            return run_again(stored, self._surveys, self._policy)
        return compare(stored, self.other, self._surveys, self._policy)


def _status(verdicts: Collection[int]) -> int:
    """The exit status for what came of some sessions."""
    return next((status for status in (DIFFERENT, SAME) if status in verdicts), IMPOSSIBLE)


def _verdict(came: Replayed | Compared) -> int:
    match came:
        case Same():
            return SAME
        case Different():
            return DIFFERENT
        case Impossible():
            return IMPOSSIBLE
        case Compared():
            return SAME if came.same else DIFFERENT


class Tally:
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

    def add(self, stored: Stored, came: Replayed | Compared) -> None:
        verdict = _verdict(came)
        self.verdicts[verdict] += 1
        if isinstance(came, Impossible):
            self.impossible[came.why] += 1
        if verdict == DIFFERENT and len(self.different) < _MOST_NAMED:
            self.different.append({"sender": stored.sender, "session": stored.id})
        if isinstance(came, Compared):
            self._add_compared(came)

    def _add_compared(self, came: Compared) -> None:
        self.paths += came.parts_at is not None
        self.outcomes[came.before.outcome, came.after.outcome] += 1
        for place, course in enumerate((came.before, came.after)):
            self.sms[place] += course.sms
            self.segments[place] += course.segments
        self.no_longer_read.update(came.no_longer_read)

    @property
    def status(self) -> int:
        return _status(self.verdicts)


class _Show:
    """Where results go. Each method answers with the exit status."""

    def transcript(self, path: Path, stored: Transcript, came: Transcript) -> int:
        raise NotImplementedError

    def sessions(self, run: _Rerun, found: Iterable[Stored], named: str) -> int:
        raise NotImplementedError

    def tally(self, run: _Rerun, found: Iterable[Stored]) -> int:
        tally = Tally()
        for stored in found:
            tally.add(stored, run(stored))
        self.summary(run, tally)
        return tally.status

    def summary(self, run: _Rerun, tally: Tally) -> None:
        raise NotImplementedError


class _Json(_Show):
    """One object a line."""

    def transcript(self, path: Path, stored: Transcript, came: Transcript) -> int:
        self._print({"transcript": str(path), "result": _result(stored == came), "diff": _diff(stored, came)})
        return SAME if stored == came else DIFFERENT

    def sessions(self, run: _Rerun, found: Iterable[Stored], named: str) -> int:
        results = []
        for stored in found:
            results.append(came := run(stored))
            self._print({"sender": stored.sender, "session": stored.id, **_plain(came)})
        return _status([_verdict(came) for came in results])

    def summary(self, run: _Rerun, tally: Tally) -> None:
        summary: dict[str, Any] = {
            "same": tally.verdicts[SAME],
            "different": tally.verdicts[DIFFERENT],
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
        self._print(summary)

    def _print(self, what: dict[str, Any]) -> None:
        click.echo(json.dumps(what, default=msgspec.structs.asdict))


def _result(same: bool) -> str:
    return "same" if same else "different"


def _plain(came: Replayed | Compared) -> dict[str, Any]:
    match came:
        case Same():
            return {"result": "same"}
        case Different(place, stored, came_out):
            return {
                "result": "different",
                "record": place,
                "stored": _event(stored),
                "came_out": _event(came_out),
            }
        case Impossible(why):
            return {"result": "impossible", "why": why}
        case Compared():
            return {
                "result": _result(came.same),
                "before": msgspec.to_builtins(came.before),
                "after": msgspec.to_builtins(came.after),
                "parts_at": came.parts_at,
                "no_longer_read": [{"step": step, "why": why} for step, why in came.no_longer_read],
            }


def _event(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {"event": type(record).__name__.lower()} | msgspec.structs.asdict(record)


def _diff(stored: Transcript, came: Transcript) -> list[str]:
    """What is stored with -, what came out with +."""
    lines = unified_diff(compose(stored).splitlines(), compose(came).splitlines(), lineterm="", n=2)
    return list(lines)[2:]


class _Terminal(_Show):
    """Lines and tables."""

    def __init__(self) -> None:
        self._console = Console(
            highlight=False,
            soft_wrap=True,
            emoji=False,
            markup=False,
            width=None if sys.stdout.isatty() else _WIDTH,
        )

    def transcript(self, path: Path, stored: Transcript, came: Transcript) -> int:
        if stored == came:
            self._console.print(f"{path} comes out the same.")
            return SAME
        self._console.print(f"{path} comes out otherwise: - is what it says, + is what came out")
        for written in _diff(stored, came):
            self._console.print(Text(written, {"-": "red", "+": "green"}.get(written[0], "dim")))
        return DIFFERENT

    def sessions(self, run: _Rerun, found: Iterable[Stored], named: str) -> int:
        results = [(stored, run(stored)) for stored in found]
        if not results:
            _impossible(f"no {named} is archived; a sender is written as in +33612345678")
        compared = [came for _, came in results if isinstance(came, Compared)]
        if compared:
            self._console.print(_table(compared), soft_wrap=False)
        for stored, came in results:
            if not isinstance(came, Compared):
                self._verdict(stored, came)
        return _status([_verdict(came) for _, came in results])

    def _verdict(self, stored: Stored, came: Replayed) -> None:
        named = f"session {stored.id}" + (f" of {stored.opened.survey}" if stored.opened else "")
        match came:
            case Same():
                self._console.print(
                    f"{named}: its {len(stored.records)} records come out the same, byte for byte"
                )
            case Impossible(why):
                self._console.print(Text(f"{named}: cannot be run again: {why}", "yellow"))
            case Different(place, was, now):
                self._console.print(
                    Text(f"{named}: differs at record {place + 1} of {len(stored.records)}", "red")
                )
                self._console.print(Text(f"  stored:   {_shown(was)}"))
                self._console.print(Text(f"  came out: {_shown(now)}"))

    def summary(self, run: _Rerun, tally: Tally) -> None:
        put = self._console.print
        kinds = ("same", "different", "cannot be run again")
        put("sessions: " + ", ".join(f"{tally.verdicts[kind]} {says}" for kind, says in enumerate(kinds)))
        for why, sessions in tally.impossible.most_common(_MOST_NAMED):
            put(f"  {sessions}: {why}")
        if run.other is not None:
            self._compared(run.other, tally)
        for each in tally.different:
            against = f" --against {shlex.quote(run.other.file)}" if run.other is not None else ""
            put(f"  see: parley replay {each['sender']} --session {each['session']}{against}")

    def _compared(self, other: Survey, tally: Tally) -> None:
        put = self._console.print
        put(f"on {other.file}, version {other.version}:")
        put(f"  another path: {tally.paths}")
        for (before, after), sessions in sorted(tally.outcomes.items()):
            put(f"  {before}, {'as before' if before == after else f'now {after}'}: {sessions}")
        put(f"  SMS out: {tally.sms[0]}, now {tally.sms[1]}")
        put(f"  segments: {tally.segments[0]}, now {tally.segments[1]}")
        for (step, why), replies in tally.no_longer_read.most_common(_MOST_NAMED):
            put(f"  replies to '{step}' that are no longer read, {why}: {replies}")


def _shown(record: Record | None) -> str:
    return (
        "nothing more"
        if record is None
        else f"{line(record)}   {json.dumps(_event(record), default=msgspec.structs.asdict)}"
    )


def _table(compared: Sequence[Compared]) -> Table:
    """Before and after, a row a session."""
    columns = ("session", "path", "outcome", "SMS out", "segments", "no longer read")
    table = Table(*(Column(each, overflow="fold") for each in columns))
    for each in compared:
        before, after = each.before, each.after
        table.add_row(
            each.id,
            _paths(each),
            _change(before.outcome, after.outcome),
            _change(before.sms, after.sms),
            _change(before.segments, after.segments),
            "\n".join(f"{step}: {why}" for step, why in each.no_longer_read),
        )
    return table


def _change(before: object, after: object) -> str:
    return str(before) if before == after else f"{before} → {after}"


def _paths(compared: Compared) -> str:
    """Both paths as far as the first difference."""
    place = compared.parts_at
    if place is None:
        return "same"
    return f"before: {_path(compared.before.path, place)}\nafter: {_path(compared.after.path, place)}"


def _path(path: Sequence[str], place: int) -> str:
    shown = [*path[max(0, place - 2) : place + 1]]
    if place >= len(path):
        shown.append("no more")
    return " > ".join((["…"] if place > 2 else []) + shown)
