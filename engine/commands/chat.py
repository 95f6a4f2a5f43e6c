"""`parley chat`: a whole conversation in the terminal, without a server."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from difflib import unified_diff
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import msgspec
from rich.console import Console
from rich.text import Text

from engine.commands.chat_screen import ChatScreen, describe_keywords, describe_state
from engine.commands.exit_status import EXIT_PROBLEMS, exit_unusable
from engine.commands.money import PriceType
from engine.commands.terminal import PROMPT, open_console
from engine.model.durations import compact_duration, parse_duration
from engine.model.events import SessionOpened
from engine.model.policy import ChannelPolicy
from engine.model.text_normalization import fold_text
from engine.proofs import survey_findings
from engine.proofs.transcripts import (
    ChannelDetails,
    MmsIn,
    PersonInvited,
    PersonUnreachable,
    ProviderOptOut,
    Remark,
    SessionCancelled,
    SmsIn,
    TimePassed,
    Transcript,
    TranscriptAction,
    TranscriptEntry,
    TranscriptError,
    TranscriptStart,
    format_entry,
    format_transcript,
    has_only_actions,
    parse_transcript,
    quoted_if_needed,
)
from engine.simulator.explanations import explain_moment
from engine.simulator.simulator import (
    DEFAULT_START_MS,
    DEFAULT_TIMEZONE,
    SIMULATED_NUMBER,
    SimulatedPhone,
    phone_for,
    play_entries,
    playable_surveys,
)
from engine.surveys.documents import not_utf8_error
from engine.surveys.survey_registry import SurveyRegistry

_COMMANDS = {
    "/wait": ("[2h]", "let time go by; without a time, until something is due"),
    "/why": ("", "what the engine made of the last SMS, and why"),
    "/state": ("", "where the session stands, and what is due if nobody writes"),
    "/back": ("", "take the last thing back"),
    "/restart": ("", "begin anew, as another person"),
    "/save": ("FILE", "write the transcript, which is also a golden test"),
    "/sms": ('"…"', r'text what cannot be typed: /sms "", /sms "two\nlines", /sms /wait'),
    "/mms": ("[TYPE]", "send a picture, or an attachment of this media type, and no text"),
    "/invite": ("[…]", "invite this person: /invite language=no $agentId=7"),
    "/stopped": ("", "the provider tells that this person opted out with it"),
    "/cancelled": ("", "whoever invited wants no more of the session"),
    "/unreachable": ("", "the provider tells that the number gets no SMS"),
    "/help": ("", "this"),
    "/quit": ("", "leave, as Ctrl-D does"),
}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--language", default="", help="Invite the person in this language.")
@click.option(
    "--var", "variables", multiple=True, metavar="KEY=VALUE", help="Invite with a session variable."
)
@click.option("--content", default="", help="Invite with a text that opens the first SMS.")
@click.option(
    "--contact", default="", metavar="NAME", help="Be somebody whom the channel knows by this name."
)
@click.option("--number", default="", metavar="NUMBER", help="The channel's number, as in +33700000001.")
@click.option("--price", type=PriceType(), help="What one segment costs, to show money.")
@click.option(
    "--save", "save", type=click.Path(dir_okay=False, path_type=Path), help="Write the transcript there."
)
@click.option(
    "--script", type=click.Path(path_type=Path), help="Play this transcript, and compare what is said."
)
@click.option("--timezone", default="UTC", show_default=True, help="Whose calendar counts.")
@click.option("--at", "begins", default="", metavar="TIME", help="When it begins.  [default: now]")
def chat(
    files: Sequence[Path], language: str, variables: Sequence[str], content: str, price: Decimal | None,
    save: Path | None, script: Path | None, timezone: str, begins: str, contact: str, number: str,
) -> None:  # fmt: skip
    """A whole conversation in the terminal, without a server. You text, the surveys in FILES answer.

    The first survey is the one that answers for the channel. Time stands still until you /wait; /help says what else
    can be done. With a file or a pipe as its input it reads line by line. Exit status 1 if --script says otherwise,
    2 if there is nothing to chat with.

    \b
    Example:
      parley chat clinic.yaml
      parley chat clinic.yaml --var agentId=7 --language no
      parley chat conversation.yaml --contact Rey --number +15005550006
      parley chat clinic.yaml --script tests/goldens/clinic-fever.txt
    """
    console = open_console(wrap_words=True)
    surveys, offered = _read_surveys(files)
    invited = _parse_invitation(language, variables, content)
    first: list[TranscriptAction] = [ChannelDetails(number, contact)] if number or contact else []
    first += [invited] if invited is not None else []
    if script is not None:
        if first or begins:
            raise click.UsageError("a script says itself who is known, who is invited and when it begins")
        _play_script(console, script, surveys, offered, price, save)
        return
    if save is not None and not save.parent.is_dir():
        raise click.UsageError(f"--save {save}: there is no folder {save.parent}")
    talk = _InteractiveChat(console, surveys, offered, price, _parse_start(begins, timezone), first)
    talk.greet()
    for line in _typed_lines(console):
        if not talk.take_line(line):
            break
    if save is not None:
        talk.save_transcript(save)


def _read_surveys(files: Sequence[Path]) -> tuple[SurveyRegistry, tuple[str, ...]]:
    """The surveys, and their names in the order of the files. Ends the command if one has problems."""
    try:
        sources = {str(path): path.read_bytes() for path in files}
    except OSError as e:
        exit_unusable(f"{e.filename}: cannot be read ({e.strerror})")
    surveys, problems = playable_surveys(sources)
    if problems:
        exit_unusable(*problems)
    by_file = {survey.file: name for name in surveys.current_names() if (survey := surveys.current(name))}
    return surveys, tuple(dict.fromkeys(by_file[file] for file in sources))


def _parse_invitation(language: str, variables: Sequence[str], content: str) -> PersonInvited | None:
    if not (language or variables or content):
        return None
    pairs = [written.partition("=") for written in variables]
    if wrong := [key + sign for key, sign, _ in pairs if not key or not sign]:
        raise click.UsageError(f"--var {wrong[0]}: expected a key and a value, as in agentId=7")
    return PersonInvited(
        language=language, content=content, variables={key: value for key, _, value in pairs}
    )


def _parse_start(written: str, timezone: str) -> TranscriptStart:
    if not written:
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        written = now.strftime("%Y-%m-%dT%H:%MZ")
    try:
        begins = parse_transcript(f"@ {written} {timezone}").begins
    except TranscriptError as e:
        raise click.UsageError(f"--at or --timezone: {str(e).removeprefix('line 1: ')}") from None
    return begins or TranscriptStart(DEFAULT_START_MS, DEFAULT_TIMEZONE)


def _typed_lines(console: Console) -> Iterator[str]:
    """What is typed, line by line. What comes from elsewhere is shown, too."""
    if not sys.stdin.isatty():
        for line in sys.stdin.buffer:
            typed = line.decode(errors="replace").rstrip("\r\n")
            console.print(Text((PROMPT + quoted_if_needed(typed)) if typed else PROMPT.strip(), "bold cyan"))
            yield typed
        return
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 (editing and a history for `input`, where Python has it)
    while True:
        try:
            yield input(PROMPT).encode(errors="replace").decode()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return


def _play_script(
    console: Console,
    script: Path,
    surveys: SurveyRegistry,
    offered: tuple[str, ...],
    price: Decimal | None,
    save: Path | None,
) -> None:
    """Play a transcript, and end with status 1 if what is said is not what it says."""
    try:
        transcript = parse_transcript(script.read_text(encoding="utf-8"))
        phone = phone_for(transcript, surveys, offered)
    except UnicodeDecodeError as e:
        wrong = not_utf8_error(e)
        exit_unusable(f"{script}: line {wrong.line}, {wrong}: {wrong.mend}")
    except (OSError, TranscriptError) as e:
        exit_unusable(f"{script}: {e.strerror if isinstance(e, OSError) else e}")
    if all(isinstance(entry, Remark) for entry in transcript.entries):
        exit_unusable(f"{script}: nothing happens in it: expected lines such as > START")
    transcript = msgspec.structs.replace(transcript, surveys=transcript.surveys or offered)
    screen = ChatScreen(console, phone, price)
    played: list[TranscriptEntry] = []
    for entries in play_entries(transcript.entries, phone):
        screen.print_entry(entries[0])
        screen.print_outcome(entries[0])
        played += entries
    outcome = msgspec.structs.replace(transcript, entries=tuple(played))
    if save is not None:
        _write_transcript(save, outcome)
    if not has_only_actions(transcript.entries) and outcome != transcript:
        wanted, came = format_transcript(transcript).splitlines(), format_transcript(outcome).splitlines()
        console.print(f"\n{script} says otherwise: - is what it says, + is what came")
        for line in list(unified_diff(wanted, came, lineterm="", n=2))[2:]:
            console.print(Text(line, {"-": "red", "+": "green", "@": "dim"}.get(line[0], "")))
        sys.exit(EXIT_PROBLEMS)


def _write_transcript(path: Path, transcript: Transcript) -> None:
    try:
        path.write_text(format_transcript(transcript), encoding="utf-8")
    except OSError as e:
        raise click.ClickException(f"{path} cannot be written: {e.strerror}") from e


class _InteractiveChat:
    """A conversation while somebody types."""

    def __init__(
        self, console: Console, surveys: SurveyRegistry, offered: tuple[str, ...], price: Decimal | None,
        begins: TranscriptStart, first: Sequence[TranscriptAction],
    ) -> None:  # fmt: skip
        self._console = console
        self._surveys = surveys
        self._offered = offered
        self._begins = begins
        self._first = first
        self._phone = self._new_phone()
        self._screen = ChatScreen(console, self._phone, price)
        self._entries: list[TranscriptEntry] = []
        self._undo_stack: list[tuple[SimulatedPhone, int]] = []
        self._command_handlers: dict[str, Callable[[str], None]] = {
            "/wait": self._wait, "/why": self._why, "/state": self._state, "/back": self._back,
            "/restart": self._restart, "/save": self._save, "/sms": self._sms, "/mms": self._mms,
            "/invite": self._invite,
            "/stopped": self._stopped, "/cancelled": self._cancelled, "/unreachable": self._unreachable,
            "/help": self._help,
        }  # fmt: skip

    def greet(self) -> None:
        for name in self._offered:
            if (survey := self._surveys.current(name)) is not None:
                title = f": {survey.title}" if survey.title else ""
                self._console.print(
                    Text(f"{name}{title}", "bold"), Text(f"({survey.file}, version {survey.version})", "dim")
                )
                self._screen.print_dim(f"  {describe_keywords(survey)}")
                if any(finding.level == "error" for finding in survey_findings(survey)):
                    self._complain(f"it may not run: `parley lint {survey.file}` says why")
        self._screen.print_dim(
            "Time stands still until you /wait. /why explains, /help says what else; Ctrl-D leaves."
        )
        for done in self._first:
            self._play_action(done, shown=True)

    def take_line(self, line: str) -> bool:
        """Do what was typed; False if it was goodbye."""
        if not line.strip():
            return True
        if not line.startswith("/"):
            self._play_action(SmsIn(line))
            return True
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return False
        door = self._command_handlers.get(command)
        if door is None:
            self._complain(f"there is no {command}: /help names what there is; to text it, /sms {line}")
        else:
            door(rest.strip())
        return True

    def save_transcript(self, path: Path) -> None:
        title = next((s.title for name in self._offered if (s := self._surveys.current(name))), "")
        usual = self._begins == TranscriptStart(DEFAULT_START_MS, DEFAULT_TIMEZONE)
        transcript = Transcript(
            self._offered, title, (Remark(), *self._entries), None if usual else self._begins
        )
        _write_transcript(path, transcript)
        self._screen.print_dim(f"written to {path}: play it with --script")

    def _play_action(self, done: TranscriptAction, *, shown: bool = False) -> None:
        self._undo_stack.append((self._phone.clone(), len(self._entries)))
        if shown:
            self._screen.print_entry(done)
        self._entries += [done, *self._phone.play_action(done)]
        self._screen.print_outcome(done)
        if isinstance(done, PersonInvited):
            self._check_language(done.language)

    def _check_language(self, wanted: str) -> None:
        """Complain if an invitation asked for a language that the survey does not have."""
        opened = next(
            (
                each
                for moment in self._phone.moments
                for each in moment.records
                if isinstance(each, SessionOpened)
            ),
            None,
        )
        if opened is not None and wanted and fold_text(opened.language) != fold_text(wanted):
            self._complain(f"'{opened.survey}' has no texts in {wanted!r}, and speaks {opened.language}")

    def _wait(self, written: str) -> None:
        alarm = self._phone.alarm
        ms = parse_duration(written) if written else None
        if not written and alarm is not None:
            ms = max(0, alarm - self._phone.now)
            self._screen.print_dim(f"  {compact_duration(ms)} go by")
        if ms is None and written:
            self._complain(f"found {written!r}, expected how long, as in /wait 2h, /wait 1d2h or /wait 90s")
        elif ms is None:
            self._complain("nothing is due, however long you wait: say how long, as in /wait 2h")
        else:
            self._play_action(TimePassed(ms))

    def _why(self, _: str) -> None:
        phone = self._phone
        lines = [
            line
            for moment in phone.moments
            for line in explain_moment(moment, phone.channel, phone.surveys, phone.policy)
        ]
        for line in lines or ["Nothing has happened yet."]:
            self._console.print(Text("  " + line, "magenta"))

    def _state(self, _: str) -> None:
        for line in describe_state(self._phone):
            self._screen.print_dim("  " + line)

    def _back(self, _: str) -> None:
        if not self._undo_stack:
            self._complain("nothing has happened yet")
            return
        self._phone, kept = self._undo_stack.pop()
        undone = self._entries[kept]
        del self._entries[kept:]
        self._screen.switch_phone(self._phone)
        self._screen.print_dim(f"  taken back: {format_entry(undone)}")

    def _restart(self, _: str) -> None:
        self._phone, self._entries, self._undo_stack = self._new_phone(), [], []
        self._screen.switch_phone(self._phone)
        self._screen.print_dim("  as if nothing had happened")
        for done in self._first:
            self._play_action(done, shown=True)

    def _save(self, written: str) -> None:
        if not written:
            self._complain("expected a file, as in /save tests/goldens/clinic-fever.txt")
            return
        try:
            self.save_transcript(Path(written))
        except click.ClickException as e:
            self._complain(e.message)

    def _sms(self, written: str) -> None:
        self._play_transcript_line(f"> {written}")

    def _mms(self, media_type: str) -> None:
        self._play_action(MmsIn(media_type) if media_type else MmsIn())

    def _invite(self, written: str) -> None:
        self._play_transcript_line(f"! invited {written}")

    def _stopped(self, _: str) -> None:
        self._play_action(ProviderOptOut())

    def _cancelled(self, _: str) -> None:
        self._play_action(SessionCancelled())

    def _unreachable(self, why: str) -> None:
        self._play_action(PersonUnreachable(why))

    def _play_transcript_line(self, line: str) -> None:
        try:
            (entry,) = parse_transcript(line).entries
        except TranscriptError as e:
            self._complain(str(e).removeprefix("line 1: "))
            return
        if isinstance(entry, (SmsIn, PersonInvited)):
            self._play_action(entry)

    def _help(self, _: str) -> None:
        for command, (argument, meaning) in _COMMANDS.items():
            self._screen.print_dim(f"  {f'{command} {argument}':<14}{meaning}")
        self._screen.print_dim("  Anything else is texted.")

    def _complain(self, sentence: str) -> None:
        self._console.print(Text(f"  {sentence}", "red"))

    def _new_phone(self) -> SimulatedPhone:
        policy = ChannelPolicy(
            surveys=self._offered, timezone=ZoneInfo(self._begins.timezone), number=SIMULATED_NUMBER
        )
        return SimulatedPhone(self._surveys, policy, now=self._begins.at)
