"""The engine decides and knows nothing of the world: no clock, no randomness, no network, no files."""

from engine.accepting import read_surveys
from engine.advance import Advance, UnknownChannel, UnknownVersion, advance, missing_versions, stop_alone
from engine.policy import ChannelPolicy, Policy
from engine.program import Survey
from engine.surveys import Surveys

__all__ = [
    "Advance",
    "ChannelPolicy",
    "Policy",
    "Survey",
    "Surveys",
    "UnknownChannel",
    "UnknownVersion",
    "advance",
    "missing_versions",
    "read_surveys",
    "stop_alone",
]
