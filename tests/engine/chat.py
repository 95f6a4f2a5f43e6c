"""What tests of conversations share: the surveys that we ship, and the phone of engine.simulator.simulator on a channel."""

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from engine.model.policy import ChannelPolicy
from engine.proofs.transcripts import format_transcript, parse_transcript
from engine.simulator import simulator
from engine.simulator.simulator import DEFAULT_START_MS as T0
from engine.simulator.simulator import SIMULATED_CHANNEL, SimulatedPhone
from engine.surveys.survey_reader import read_survey
from engine.surveys.survey_registry import SurveyRegistry

__all__ = [
    "ROOT",
    "SHIPPED",
    "SIMULATED_CHANNEL",
    "T0",
    "SimulatedPhone",
    "play",
    "policy_for",
    "same_bytes",
    "surveys_of",
]

ROOT = Path(__file__).parent.parent.parent
SHIPPED = {
    path.name: path.read_bytes()
    for path in sorted((ROOT / "config" / "surveys").iterdir())
    if path.suffix in (".yaml", ".json")
}


def surveys_of(files: Mapping[str, bytes | str]) -> SurveyRegistry:
    """The surveys in `files`. Nothing is proved about them, so that a test may look at what could not run."""
    return SurveyRegistry(
        read_survey(name, text.encode() if isinstance(text, str) else text)[0] for name, text in files.items()
    )


def policy_for(*surveys: str) -> ChannelPolicy:
    return ChannelPolicy(surveys=surveys, timezone=ZoneInfo("Europe/Paris"))


def play(transcript: str, surveys: SurveyRegistry) -> str:
    """The transcript of a phone that texts and waits as `transcript` says; its first line names the survey."""
    return format_transcript(simulator.play_transcript(parse_transcript(transcript), surveys))


def same_bytes(one: object, other: object) -> bool:
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
