"""Find SMS that mean something else than the author expects.

Two surveys of a channel with the same keyword: only the first ever starts. Answers that are also commands: STOP, HELP
and START are handled before a question's reader."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from engine.model.text_normalization import fold_word
from engine.proofs.automata import common_text
from engine.proofs.regions import atoms_of
from engine.surveys.conditions import OneOf
from engine.surveys.findings import SurveyFinding
from engine.surveys.keywords import AMBIGUOUS_HELP_WORDS, AMBIGUOUS_STOP_WORDS, HELP_WORDS, is_stop
from engine.surveys.program import QuestionStep, StartKeywords, Survey
from engine.surveys.wording import show_pattern


def keyword_clashes(surveys: Sequence[Survey]) -> list[SurveyFinding]:
    """A warning for each two surveys of one channel, in its order, that one SMS would start.

    Keywords come before a survey that any SMS starts, in whatever order the channel has them.
    """
    return [
        SurveyFinding(
            "warning", "keyword", "", f"{text} starts '{one.name}' and would start '{other.name}' as well",
            "give them keywords of their own, or offer them on different channels",
        )
        for one, other in combinations(surveys, 2)
        if (text := _common_start(one, other)) is not None
    ]  # fmt: skip


def command_answers(survey: Survey) -> list[SurveyFinding]:
    """Warn of each word that a question accepts but that is handled as STOP, HELP or a keyword first."""
    compared = _compared_by_step(survey)
    return [
        SurveyFinding(
            "warning", "command", step.id, f"'{word}' is no answer that can be given: it is a {command}",
            "let it be said in another word",
        )
        for step in survey.steps if isinstance(step, QuestionStep)
        for word in step.reader.named_answers(compared.get(step.id, ()))
        if (command := _command_meaning(survey, step, word)) is not None
    ]  # fmt: skip


def greedy_patterns(survey: Survey) -> list[SurveyFinding]:
    """A warning for each pattern that takes whatever a person texts, also what is another survey's keyword."""
    return [
        SurveyFinding(
            "warning", "keyword", "", f"the keyword {show_pattern(pattern)} matches any SMS, other surveys' keywords too",
            'write "*", which is any SMS that nothing else waits for',
        )
        for pattern, language in survey.start.patterns
        if not StartKeywords({}, ((pattern, language),)).names_survey("", "")
    ]  # fmt: skip


def _compared_by_step(survey: Survey) -> dict[str, set[str]]:
    """The values that conditions compare answers with, by step."""
    values: dict[str, set[str]] = {}
    for step in survey.steps:
        for route in step.routes:
            for atom in atoms_of(route.when):
                if isinstance(atom, OneOf):
                    values.setdefault(atom.step, set()).update(map(str, atom.values))
    return values


def _command_meaning(survey: Survey, step: QuestionStep, word: str) -> str | None:
    """Return, as a phrase, the command that the word is handled as, in the order of engine.hearing; None if it
    reaches the question."""
    taken = step.reader.takes_commands
    if is_stop(word) and not (word in AMBIGUOUS_STOP_WORDS and "stop" in taken):
        return "STOP, whatever is being asked"
    if word in HELP_WORDS and not (word in AMBIGUOUS_HELP_WORDS and "help" in taken):
        return "HELP, whatever is being asked"
    if survey.again != "answer" and survey.start.match_language(word, word) is not None:
        return "keyword, which starts the survey"
    return None


def _common_start(one: Survey, other: Survey) -> str | None:
    """An SMS that starts both, in words; None if none is known."""
    if one.start.any_sms_language and other.start.any_sms_language:
        return "any SMS"
    for survey, another in ((one, other), (other, one)):
        for word in survey.start.words:
            if another.start.match_language(word, fold_word(word)) is not None:
                return f"'{word}'"
    return next((f"'{text}'" for text in _pattern_overlaps(one, other)), None)


def _pattern_overlaps(one: Survey, other: Survey) -> Iterator[str]:
    for first, _ in one.start.patterns:
        for second, _ in other.start.patterns:
            if (text := common_text(first, second)) is not None:
                yield text
