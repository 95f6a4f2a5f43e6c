"""What tests of conversations share: the surveys that we ship, and the phone of engine.chatting on a channel."""

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from engine import Advance, ChannelPolicy, Surveys, chatting
from engine.chatting import BEGINS_AT as T0
from engine.chatting import CHANNEL, Phone
from engine.reading import read_survey
from engine.transcripts import compose, parse

__all__ = ["CHANNEL", "ROOT", "SHIPPED", "T0", "Phone", "play", "policy_for", "same_bytes", "surveys_of"]

ROOT = Path(__file__).parent.parent.parent
SHIPPED = {
    path.name: path.read_bytes()
    for path in sorted((ROOT / "config" / "surveys").iterdir())
    if path.suffix in (".yaml", ".json")
}


def surveys_of(files: Mapping[str, bytes | str]) -> Surveys:
    """The surveys in `files`. Nothing is proved about them, so that a test may look at what could not run."""
    return Surveys(
        read_survey(name, text.encode() if isinstance(text, str) else text)[0] for name, text in files.items()
    )


def policy_for(*surveys: str) -> ChannelPolicy:
    return ChannelPolicy(surveys=surveys, timezone=ZoneInfo("Europe/Paris"))


def play(transcript: str, surveys: Surveys) -> str:
    """The transcript of a phone that texts and waits as `transcript` says; its first line names the survey."""
    return compose(chatting.play(parse(transcript), surveys))


def same_bytes(one: Advance, other: Advance) -> bool:
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
