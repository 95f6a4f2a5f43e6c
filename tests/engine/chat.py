"""A person texting one channel, and the transcript of it.

A transcript is plain text: `> START` came in, `< What is your name?` went out (its further lines are indented),
`+31s` went by, `* completed` is what else was decided. The lane is encoded and decoded between any two calls, as it
is in production.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from engine import Advance, ChannelPolicy, Surveys, advance, read_surveys
from engine.events import Ended, Mail, OptedIn, OptedOut, Outbound, ProviderStop, Record, Refused, Sms
from engine.keywords import is_start
from engine.lane import Lane, Line, decode, encode

ROOT = Path(__file__).parent.parent.parent
SHIPPED = {path.name: path.read_bytes() for path in sorted((ROOT / "config" / "surveys").iterdir())}
CHANNEL = "line"
T0 = 1_800_000_000_000

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def surveys_of(files: Mapping[str, bytes | str]) -> Surveys:
    """The surveys in `files`, in which there is no problem."""
    surveys, problems = read_surveys(
        {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    )
    assert problems == []
    return surveys


def policy_for(*surveys: str) -> ChannelPolicy:
    return ChannelPolicy(surveys=surveys, timezone=ZoneInfo("Europe/Paris"))


class Phone:
    """One person on one channel. `now` is in ms."""

    def __init__(self, surveys: Surveys, policy: ChannelPolicy) -> None:
        self.surveys = surveys
        self.policy = policy
        self.now = T0
        self.lane = Lane()
        self.last: Advance | None = None
        self.records: list[Record] = []
        self._count = 0

    @property
    def line(self) -> Line:
        return self.lane.lines[CHANNEL]

    def text(self, text: str, *, after_ms: int = 0) -> list[str]:
        """Text us; what we answer."""
        self.wait(after_ms)
        start = is_start(text, self.policy.surveys, self.surveys)
        return [sms.text for sms in self.apply(Sms(self._identity(), CHANNEL, text, start))]

    def provider_stop(self) -> list[Outbound]:
        return self.apply(ProviderStop(self._identity(), CHANNEL, "stop"))

    def apply(self, event: Sms | ProviderStop) -> list[Outbound]:
        return self._advance([Mail(self.now, event)])

    def wait(self, ms: int) -> list[str]:
        """Let time go by, alarms ringing as they fall due; what we say meanwhile."""
        until, said = self.now + ms, []
        while self.last is not None and self.last.alarm is not None and self.last.alarm <= until:
            self.now = max(self.now, self.last.alarm)
            said += [sms.text for sms in self._advance([])]
        self.now = until
        return said

    def seen(self, kind: type[Any]) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]

    def _advance(self, mail: list[Mail]) -> list[Outbound]:
        lane = decode(encode(self.lane))
        self.last = advance(lane, "+33612345678", mail, self.now, self.surveys, {CHANNEL: self.policy})
        self.lane = decode(encode(self.last.lane))
        self.records += self.last.records
        return self.last.outbox

    def _identity(self) -> str:
        self._count += 1
        return f"{self._count:016x}"


def play(transcript: str, surveys: Surveys) -> str:
    """The transcript of a phone that texts and waits as `transcript` says; its first line names the survey."""
    head, *lines = transcript.splitlines()
    phone = Phone(surveys, policy_for(head.removeprefix("# ").split(":")[0]))
    played = [head]
    for line in lines:
        if line.startswith("> "):
            noted = len(phone.records)
            played += [line, *map(_out, phone.text(line[2:])), *_notes(phone.records[noted:])]
        elif waited := re.fullmatch(r"\+(\d+)([smhd])", line):
            noted = len(phone.records)
            said = phone.wait(int(waited[1]) * _SECONDS[waited[2]] * 1000)
            played += [line, *map(_out, said), *_notes(phone.records[noted:])]
        elif not line or line.startswith("#"):
            played.append(line)
    return "\n".join(played) + "\n"


def _out(text: str) -> str:
    return "< " + text.replace("\n", "\n  ")


def _notes(records: list[Record]) -> list[str]:
    notes: list[str] = []
    for record in records:
        match record:
            case Ended(how=how):
                notes.append(f"* {how}")
            case Refused(reason=reason):
                notes.append(f"* refused: {reason}")
            case OptedOut():
                notes.append("* opted out")
            case OptedIn():
                notes.append("* opted in")
            case _:
                pass
    return notes


def same_bytes(one: Advance, other: Advance) -> bool:
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
