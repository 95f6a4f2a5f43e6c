r"""A conversation as plain text: what tests keep as goldens, and what `parley chat` saves and plays.

    # clinic: a fever is asked about       which surveys the channel offers, and a title
    @ 2026-11-21T10:30Z Europe/Paris       when it begins, and whose calendar counts; may be left out
    ! invited language=no $agentId=7       an invitation; $ marks a session variable
    > START                                came in
    < What is your name?                   went out
      (You may leave it out.)              a further line of the same SMS, two blanks before it
    +1h30m                                 went by
    ! mms type=image/png                   an MMS came in: an attachment, and no text
    ! stopped text="STOP"                  the provider tells that the person opted out with it
    ! cancelled                            whoever invited wants no more of the open session
    ! unreachable why="unknown number"     the provider tells that the number gets no SMS
    ! told number=+33700000001 contact=Rey the channel's number, and the person's name, from here on
    * stopped                              was decided besides

A line of text stands as it is, its blanks at the ends apart, unless one could not see what it is. An empty one, one
with blanks at its ends or a quotation mark at its beginning, or with anything invisible in it, stands in quotation
marks, in which \" \\ \n \r \t, \u2028 and \u{e0067} mean what they do in other languages. What `format_transcript` writes, `parse_transcript` reads
as it was; a carriage return before a line feed, as some editors write, does not count.
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from engine.model.durations import compact_duration, parse_duration
from engine.model.errors import ParleyError


class TranscriptError(ParleyError, ValueError):
    """The text is no transcript. The message is a sentence with the line's number and what was expected."""


class SmsIn(msgspec.Struct, frozen=True):
    """An SMS from the person."""

    text: str


class MmsIn(msgspec.Struct, frozen=True):
    """An MMS from the person: an attachment of this media type, and no text."""

    media_type: str = "image/jpeg"


class SmsOut(msgspec.Struct, frozen=True):
    """An SMS to the person."""

    text: str


class TimePassed(msgspec.Struct, frozen=True):
    """Time went by."""

    ms: int


class DecisionNote(msgspec.Struct, frozen=True):
    """What was decided besides."""

    what: str


class PersonInvited(msgspec.Struct, frozen=True):
    """An invitation as in engine.model.events; an empty `survey` is the channel's first. `expires_in` is in ms; None: as
    the survey says."""

    survey: str = ""
    language: str = ""
    content: str = ""
    variables: dict[str, str] = {}
    expires_in: int | None = None
    reference: str = ""


class ProviderOptOut(msgspec.Struct, frozen=True):
    """The provider tells that the person opted out with it."""

    text: str = ""


class ChannelDetails(msgspec.Struct, frozen=True):
    """From here on the channel has this number, and knows the person by this name. Empty: as nobody told."""

    number: str = ""
    contact: str = ""


class SessionCancelled(msgspec.Struct, frozen=True):
    """Whoever invited wants no more of the open session."""


class PersonUnreachable(msgspec.Struct, frozen=True):
    """The provider tells that the last SMS failed, and that the number gets none."""

    why: str = ""


class Remark(msgspec.Struct, frozen=True):
    """What is there for a reader only; an empty one is an empty line."""

    text: str = ""


TranscriptAction = (
    SmsIn
    | MmsIn
    | TimePassed
    | PersonInvited
    | ProviderOptOut
    | SessionCancelled
    | PersonUnreachable
    | ChannelDetails
)
"""What is done to the engine. The rest is its doing, or nobody's."""

TranscriptEntry = TranscriptAction | SmsOut | DecisionNote | Remark


class TranscriptStart(msgspec.Struct, frozen=True):
    """`at` in ms; `timezone` as in Europe/Paris."""

    at: int
    timezone: str


class Transcript(msgspec.Struct, frozen=True):
    """`surveys` is empty if the text has no first line that names them: whoever plays it knows."""

    surveys: tuple[str, ...]
    title: str
    entries: tuple[TranscriptEntry, ...]
    begins: TranscriptStart | None = None


_QUOTED_TEXT = r'"(?:[^"\\]|\\.)*"'
_BARE_NAME = r"[\w.-]+(?: [\w.-]+)*"
_SURVEY_NAME = re.compile(rf"{_QUOTED_TEXT}|{_BARE_NAME}")
_FIELD_PATTERN = re.compile(rf"(\$?)({_QUOTED_TEXT}|[\w.-]+)=({_QUOTED_TEXT}|[^\s\"]+)(?:\s+|$)")
_BARE_VALUE = re.compile(r"[^\s\"]+")
_BARE_KEY = re.compile(r"[\w.-]+")
_ESCAPE_SEQUENCE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_ESCAPES_BY_CHARACTER = {meant: "\\" + escape for escape, meant in _ESCAPED_CHARACTERS.items()}
_ONE_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EXPECTED_LEADS = "> < + * ! # at its beginning, or two blanks before a further line of an SMS"


def format_transcript(transcript: Transcript) -> str:
    """The text of a transcript."""
    lines = (
        [_format_head(transcript)]
        if transcript.surveys or transcript.title or _remarks_first(transcript)
        else []
    )
    if transcript.begins is not None:
        lines.append(f"@ {_format_time(transcript.begins.at)} {transcript.begins.timezone}")
    return "".join(line + "\n" for line in (*lines, *map(format_entry, transcript.entries)))


def format_entry(entry: TranscriptEntry) -> str:
    """The line or lines of one entry, without the last line feed."""
    match entry:
        case SmsIn(text):
            return "> " + _format_sms(text)
        case MmsIn(media_type):
            return "! mms" + ("" if entry == MmsIn() else f" type={_format_value(media_type)}")
        case SmsOut(text):
            return "< " + _format_sms(text)
        case TimePassed(ms):
            return "+" + compact_duration(ms)
        case DecisionNote(what):
            return "* " + quoted_if_needed(what)
        case PersonInvited():
            return _format_invitation(entry)
        case ProviderOptOut(text):
            return "! stopped" + (f" text={_format_value(text)}" if text else "")
        case SessionCancelled():
            return "! cancelled"
        case PersonUnreachable(why):
            return "! unreachable" + (f" why={_format_value(why)}" if why else "")
        case ChannelDetails(number, contact):
            fields = [("number", number), ("contact", contact)]
            return "! told" + "".join(f" {name}={_format_value(value)}" for name, value in fields if value)
        case Remark(text):
            return "# " + quoted_if_needed(text) if text else ""
        case _:
            assert_never(entry)


def quoted_if_needed(line: str) -> str:
    """`line` as it is, or in quotation marks if one could not see what it is."""
    plain = line and line == line.strip() and line[0] != '"' and not any(map(_is_invisible, line))
    return line if plain else _quote_text(line)


def _format_sms(text: str) -> str:
    return "\n  ".join(map(quoted_if_needed, text.split("\n")))


def _quote_text(text: str) -> str:
    return (
        '"'
        + "".join(
            _ESCAPES_BY_CHARACTER.get(c) or (_escape_character(c) if _is_invisible(c) else c) for c in text
        )
        + '"'
    )


def _escape_character(c: str) -> str:
    return f"\\u{ord(c):04x}" if c <= "\uffff" else f"\\u{{{ord(c):x}}}"


def _is_invisible(c: str) -> bool:
    return c != " " and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp")


def _format_head(transcript: Transcript) -> str:
    names = ", ".join(
        name if re.fullmatch(_BARE_NAME, name) else _quote_text(name) for name in transcript.surveys
    )
    title = f": {quoted_if_needed(transcript.title)}" if transcript.title else ""
    return f"# {names}{title}".rstrip()


def _remarks_first(transcript: Transcript) -> bool:
    return isinstance(next(iter(transcript.entries), None), Remark)


def _format_time(at: int) -> str:
    moment = _EPOCH + at * _ONE_MILLISECOND
    if at % 60_000 == 0:
        return moment.strftime("%Y-%m-%dT%H:%MZ").rjust(17, "0")
    precision = "seconds" if at % 1000 == 0 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _format_invitation(entry: PersonInvited) -> str:
    fields = [("survey", entry.survey), ("language", entry.language)]
    fields += [(f"${_format_key(name)}", value) for name, value in entry.variables.items()]
    fields += [("content", entry.content), ("reference", entry.reference)]
    parts = [f" {name}={_format_value(value)}" for name, value in fields if value or name.startswith("$")]
    if entry.expires_in is not None:
        sign = "-" if entry.expires_in < 0 else ""
        parts.append(f" expires={sign}{compact_duration(abs(entry.expires_in))}")
    return "! invited" + "".join(parts)


def _format_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _quote_text(name)


def _format_value(value: str) -> str:
    return (
        value if _BARE_VALUE.fullmatch(value) and not any(map(_is_invisible, value)) else _quote_text(value)
    )


def parse_transcript(text: str) -> Transcript:
    """The transcript in `text`. Raises TranscriptError."""
    lines = [line.rstrip(" \t\r") for line in text.removeprefix("\ufeff").split("\n")]
    if lines[-1] == "":
        lines.pop()
    reader = _TranscriptParser()
    for number, line in enumerate(lines, 1):
        try:
            reader.parse_line(number, line)
        except TranscriptError as e:
            raise TranscriptError(f"line {number}: {e}") from None
    return Transcript(reader.surveys, reader.title, tuple(reader.entries), reader.begins)


class _TranscriptParser:
    """A transcript while it is read, line by line."""

    def __init__(self) -> None:
        self.surveys: tuple[str, ...] = ()
        self.title = ""
        self.begins: TranscriptStart | None = None
        self.entries: list[TranscriptEntry] = []

    def parse_line(self, number: int, line: str) -> None:
        lead, rest = line[:1], line[1:].strip()
        match lead:
            case "#" if number == 1:
                self.surveys, self.title = _parse_head(rest)
            case "#":
                self.entries.append(Remark(_parse_remark(rest)))
            case "@" if not self.entries and self.begins is None:
                self.begins = _parse_start(rest)
            case "@":
                raise TranscriptError("expected the time at which it begins once, before anything happens")
            case " " if line.startswith("  "):
                self._continue_sms(rest)
            case _:
                self.entries.append(_parse_entry(line, lead, rest))

    def _continue_sms(self, written_line: str) -> None:
        text = _unquote_text(written_line)
        match self.entries[-1] if self.entries else None:
            case SmsIn(before):
                self.entries[-1] = SmsIn(f"{before}\n{text}")
            case SmsOut(before):
                self.entries[-1] = SmsOut(f"{before}\n{text}")
            case _:
                raise TranscriptError(
                    f"there is no SMS above that it could continue: expected {_EXPECTED_LEADS}"
                )


def _parse_entry(line: str, lead: str, rest: str) -> TranscriptEntry:
    match lead:
        case "":
            return Remark()
        case ">":
            return SmsIn(_unquote_text(rest))
        case "<":
            return SmsOut(_unquote_text(rest))
        case "*":
            return DecisionNote(_unquote_text(rest))
        case "+" if (ms := parse_duration(rest)) is not None:
            return TimePassed(ms)
        case "+":
            raise TranscriptError(f"found {line!r}, expected how long it is, as in +31s, +5m, +2h30m, +1d")
        case "!":
            return _parse_event(rest)
        case _:
            raise TranscriptError(f"found {line[:40]!r}, expected {_EXPECTED_LEADS}")


def _unquote_text(text: str) -> str:
    if not text.startswith('"'):
        return text
    if re.fullmatch(_QUOTED_TEXT, text) is None:
        raise TranscriptError(
            f"found {text[:40]}, expected a quotation mark at its end, too; a text that begins "
            "with one is written "
            r'"\"Yes\", she said"'
        )
    return _ESCAPE_SEQUENCE.sub(_unescape_match, text[1:-1])


def _unescape_match(escape: re.Match[str]) -> str:
    long, short, letter = escape.groups()
    if letter is not None:
        if letter not in _ESCAPED_CHARACTERS:
            raise TranscriptError(
                rf"\{letter} means nothing: expected \n \r \t \" \\ or a character's number as in \u2028"
            )
        return _ESCAPED_CHARACTERS[letter]
    number = int(long or short, 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise TranscriptError(
            rf"{escape[0]} is no character: expected its number in Unicode, as in \u{{1f600}}"
        )
    return chr(number)


def _parse_remark(text: str) -> str:
    """Remarks are free: one that only looks quoted is what it is."""
    try:
        return _unquote_text(text)
    except TranscriptError:
        return text


def _parse_head(text: str) -> tuple[tuple[str, ...], str]:
    names: list[str] = []
    if not text or text[0] == ":":
        return (), _unquote_text(text[1:].strip())
    while (found := _SURVEY_NAME.match(text)) is not None:
        names.append(_unquote_text(found[0]))
        text = text[found.end() :].lstrip()
        if not text or text[0] == ":":
            return tuple(names), _unquote_text(text[1:].strip())
        if text[0] != ",":
            break
        text = text[1:].lstrip()
    raise TranscriptError("expected the survey's name and a title, as in `# clinic: a fever is asked about`")


def _parse_start(text: str) -> TranscriptStart:
    when, _, zone = text.partition(" ")
    try:
        at = datetime.fromisoformat(when)
        if at.utcoffset() is None:
            raise ValueError(when)  # noqa: TRY301 (a time without a zone is as wrong as no time)
        return TranscriptStart((at - _EPOCH) // _ONE_MILLISECOND, ZoneInfo(zone.strip()).key)
    except (ValueError, OverflowError, OSError, ZoneInfoNotFoundError):
        raise TranscriptError(
            f"found {text!r}, expected a time and a zone, as in 2026-11-21T10:30Z Europe/Paris"
        ) from None


def _parse_event(text: str) -> TranscriptEntry:
    what, _, rest = text.partition(" ")
    fields, variables = _parse_fields(rest.strip())
    match what:
        case "invited":
            expires = fields.pop("expires", "")
            entry: TranscriptEntry = PersonInvited(
                fields.pop("survey", ""),
                fields.pop("language", ""),
                fields.pop("content", ""),
                variables,
                _parse_signed_duration(expires) if expires else None,
                fields.pop("reference", ""),
            )
            known = "survey, language, content, expires, reference, or a variable as in $agentId=7"
        case "mms":
            entry, known = MmsIn(fields.pop("type", MmsIn().media_type)), "type"
        case "stopped":
            entry, known = ProviderOptOut(fields.pop("text", "")), "text"
        case "cancelled":
            entry, known = SessionCancelled(), "field"
        case "unreachable":
            entry, known = PersonUnreachable(fields.pop("why", "")), "why"
        case "told":
            entry, known = (
                ChannelDetails(fields.pop("number", ""), fields.pop("contact", "")),
                "number, contact",
            )
        case _:
            raise TranscriptError(
                f"found {what!r}, expected `invited`, `mms`, `stopped`, `cancelled`, `unreachable` or `told`"
            )
    if what != "invited":
        fields |= {f"${name}": value for name, value in variables.items()}
    if fields:
        raise TranscriptError(f"'{what}' knows no {', '.join(fields)}: expected {known}")
    return entry


def _parse_fields(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Fields and variables, by name."""
    fields: dict[str, str] = {}
    variables: dict[str, str] = {}
    while text:
        found = _FIELD_PATTERN.match(text)
        if found is None:
            raise TranscriptError(f'found {text[:40]!r}, expected name=value or name="a value with blanks"')
        mark, name, value = found.groups()
        into = variables if mark else fields
        if (key := _unquote_text(name)) in into:
            raise TranscriptError(f"{mark}{key} is given twice")
        into[key] = _unquote_text(value)
        text = text[found.end() :]
    return fields, variables


def _parse_signed_duration(text: str) -> int:
    ms = parse_duration(text.removeprefix("-"))
    if ms is None:
        raise TranscriptError(f"found expires={text}, expected how long, as in expires=2h")
    return -ms if text.startswith("-") else ms


def has_only_actions(entries: Iterable[TranscriptEntry]) -> bool:
    """Does a transcript say only what is done to the engine, and not what it does?"""
    return not any(isinstance(entry, (SmsOut, DecisionNote)) for entry in entries)
