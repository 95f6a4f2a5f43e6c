"""What the engine costs by itself: a turn, and a proof.

A session of 40 turns through a survey of 40 steps with every common answer type, earlier answers in texts and
conditions on earlier answers; the same 40 turns through a survey of 4,000 steps. Every reply is checked to be the next
question.
"""

import json
from statistics import median
from time import perf_counter
from zoneinfo import ZoneInfo

from engine import proofs
from engine.model.events import InboundSms, Mail
from engine.model.lane import Lane, decode_lane, encode_lane
from engine.model.policy import ChannelPolicy
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance

TURNS = 40
POLICY = {"line": ChannelPolicy(surveys=("long",), timezone=ZoneInfo("Europe/Paris"), start_burst=0)}
SENDER = "+33612345678"
NOW = 1_800_000_000_000

ANSWERS: list[tuple[dict[str, object], str]] = [
    ({"type": "text", "max": 40}, "Ada Lovelace"),
    ({"type": "number", "min": 80, "max": 115}, "98,6"),
    ({"type": "yes_no"}, "Yes!"),
    ({"type": "choice", "options": ["red", "green", "blue"]}, "2"),
    ({"type": "scale", "from": 1, "to": 10}, "7"),
]


def survey_of(steps: int) -> Survey:
    """A survey of so many questions, each of which may lead to the one after the next, and here leads to the next."""
    written = []
    for number in range(steps):
        answer, _ = ANSWERS[number % len(ANSWERS)]
        earlier = number - number % len(ANSWERS)  # the last text answer
        step: dict[str, object] = {
            "id": f"q{number}",
            "ask": f"Question {number}, {{q{earlier}|you}}?",
            "answer": answer,
        }
        if 0 < number < steps - 2:
            never = {"answer": f"q{number - 1}", "equals": "nobody"}
            if number % len(ANSWERS) == 1:
                step["next"] = [{"when": never, "go": f"q{number + 2}"}, {"go": f"q{number + 1}"}]
        written.append(step)
    source = json.dumps({"survey": "long", "start": "START", "steps": written}).encode()
    return read_survey("long.json", source)[0]


def turn_us(survey: Survey, sessions: int) -> tuple[float, float]:
    """Microseconds of one turn: of `advance` alone, and with the lane decoded before and encoded after it. Medians of
    the sessions' means."""
    surveys = SurveyRegistry([survey])
    alone: list[float] = []
    whole: list[float] = []
    for _ in range(sessions):
        blob = encode_lane(Lane())
        inside = around = 0.0
        for turn in range(TURNS):
            text = ANSWERS[(turn - 1) % len(ANSWERS)][1] if turn else "START"
            mail = [Mail(NOW + turn * 1000, InboundSms(f"{turn:016x}", "line", text, turn == 0))]
            began = perf_counter()
            lane = decode_lane(blob)
            middle = perf_counter()
            advanced = advance(lane, SENDER, mail, NOW + turn * 1000, surveys, POLICY)
            after = perf_counter()
            blob = encode_lane(lane)
            around += perf_counter() - began
            inside += after - middle
            if not advanced.outbox[0].text.startswith(f"Question {turn},"):
                raise RuntimeError(f"turn {turn} was answered by {advanced.outbox[0].text!r}")
        alone.append(inside / TURNS * 1e6)
        whole.append(around / TURNS * 1e6)
    return median(alone), median(whole)


def proof_s(survey: Survey) -> float:
    """Seconds to read a survey, find what is wrong with it, and bound it: what `parley lint` does."""
    began = perf_counter()
    read, _ = read_survey(survey.file, survey.source)
    proof = proofs.SurveyProof(read)
    found, bounds = proof.findings(), proof.bounds()
    took = perf_counter() - began
    if (
        bounds is None
        or bounds.sms_out.most != 3 * len(survey.steps)
        or any(each.level == "error" for each in found)
    ):
        raise RuntimeError("the proof came to something else")
    return took


def reading_s(survey: Survey) -> float:
    """Seconds to read it only."""
    began = perf_counter()
    read_survey(survey.file, survey.source)
    return perf_counter() - began
