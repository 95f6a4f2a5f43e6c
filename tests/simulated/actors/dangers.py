"""Answers that break whoever reads them: one raises, one ends its process."""

from collections import Counter
from typing import Any

import msgspec
from greenlet import GreenletExit

from engine.answers.answer_type import InvalidAnswer, Today
from engine.answers.text_answers import TextReader
from engine.model.events import Answer
from engine.surveys.program import QuestionStep, Survey, SurveyStep
from engine.surveys.survey_registry import SurveyRegistry
from tests.simulated.world.scheduler import Actor, Scheduler
from workers.dead_letters.crash_probe import CrashProbe

RAISES = "boom"
KILLS = "deadly"
"""How these answers begin."""


def is_deadly(text: str) -> bool:
    return text.startswith(KILLS)


class Dangers:
    """What a release of this engine cannot read. `deaths` counts by answer the processes that it has ended. Once it is
    `mended`, everything is read."""

    def __init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        self.is_mended = False
        self.scheduler: Scheduler | None = None
        self._probing: set[Actor] = set()

    def arm(self, surveys: SurveyRegistry) -> SurveyRegistry:
        """Return the same surveys, whose answers of type text are dangerous."""
        current = filter(None, map(surveys.current, surveys.current_names()))
        return SurveyRegistry([self._armed(each) for each in current])

    def meet(self, text: str) -> None:
        """Read an answer as the actor that runs."""
        if self.is_mended:
            return
        if text.startswith(RAISES):
            raise ArithmeticError("this answer cannot be read")
        if is_deadly(text):
            assert self.scheduler is not None
            actor = self.scheduler.current
            if actor in self._probing:
                raise _ProbeDiedError
            self.deaths[text] += 1
            actor.process.die()
            raise GreenletExit

    def probe(self) -> CrashProbe:
        """Return what tries something in a process of its own."""

        def tried(judge: Any) -> str:
            assert self.scheduler is not None
            actor = self.scheduler.current
            self._probing.add(actor)
            try:
                judge()
            except _ProbeDiedError:
                return "it ends its process, with status -9"
            finally:
                self._probing.discard(actor)
            return ""

        return tried

    def _armed(self, survey: Survey) -> Survey:
        return msgspec.structs.replace(survey, steps=tuple(map(self._armed_step, survey.steps)))

    def _armed_step(self, step: SurveyStep) -> SurveyStep:
        if isinstance(step, QuestionStep) and isinstance(step.reader, TextReader):
            reader = step.reader
            dangerous = _DangerousReader(reader.min, reader.max, reader.pattern, self)
            return msgspec.structs.replace(step, reader=dangerous)
        return step


class _ProbeDiedError(BaseException):
    """The process of a probe has ended."""


class _DangerousReader(TextReader, frozen=True):
    dangers: Any = None

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        self.dangers.meet(sms)
        return super().read_reply(sms, today)
