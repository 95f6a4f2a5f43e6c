"""A survey file into a program, or the sentences that say why not.

All problems of a file are found in one go. Each names the step by its id, and the field.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import assert_never, cast

from engine.answers import Reader, Why
from engine.model.patterns import Pattern
from engine.model.text_normalization import fold, fold_word
from engine.surveys.compiling.answer_compiler import AnswerCompiler
from engine.surveys.compiling.routes import RouteCompiler
from engine.surveys.compiling.scope import Scope, Source
from engine.surveys.compiling.text_parsing import WORD, TextCompiler
from engine.surveys.findings import Finding, Rejected, broken
from engine.surveys.keywords import HELP, is_stop
from engine.surveys.phrases import fixed_text, refusal, speaks, whys
from engine.surveys.program import Ask, FixedText, Keywords, Reask, Remind, Say, Step, Survey
from engine.surveys.survey_file import (
    ANYTHING,
    TAG,
    AskStep,
    Reminder,
    SayStep,
    SurveyFile,
    Variables,
    YesNoAnswer,
    convert,
)
from engine.surveys.survey_file import Keywords as KeywordsWritten
from engine.surveys.texts import LONGEST_SMS, Text, join, literal_length
from engine.surveys.variables import CONTACT, LONGEST, NAME, TOLD, USUAL, place_of

__all__ = ["Rejected", "compile_survey"]

_A_NAME = "letters from a to z, digits, - and _ that begin with a letter"


def compile_survey(raw: object, file: str, source: bytes, version: str) -> tuple[Survey, list[Finding]]:
    """The survey in a parsed file, and warnings about how it is written. Raises Rejected."""
    if not isinstance(raw, dict):
        raise Rejected([broken("it holds no survey: the fields `survey` and `steps` are expected")])
    header, problems = convert(raw, SurveyFile)
    sources, findings = _sources(raw.get("steps"))
    languages = header.languages if header else tuple(_texts_in(raw.get("languages"))) or ("en",)
    variables = _variables(header.variables) if header else {}
    scope = Scope(languages, _ids(raw.get("steps")), sources, variables)
    compiler = _StepCompiler(scope)
    keywords = compiler.keywords(header.start if header else _texts_in(raw.get("start")))
    texts = compiler.texts.fixed(header.texts, header.start, header.title) if header else {}
    steps = [compiler.step(place, each) for place, each in enumerate(sources) if each is not None]
    found = [
        *map(broken, problems),
        *findings,
        *(_header_findings(header) if header else ()),
        *(_unspoken(header, sources) if header else ()),
        *scope.findings,
    ]
    if header is None or any(each.level == "error" for each in found):
        raise Rejected([each for each in found if each.level == "error"])
    survey = Survey(
        name=header.survey,
        version=version,
        source=source,
        file=file,
        title=header.title,
        languages=header.languages,
        start=keywords,
        idle_ms=header.idle.ms,
        expires_ms=header.expires.ms,
        cooldown_ms=header.cooldown.ms,
        again=header.again,
        most_sms=header.most_sms,
        texts=texts,
        steps=tuple(steps),
        variables=scope.variables,
        told=frozenset(place for place in TOLD if place[1:] in scope.variables),
        keep_ms=header.keep.ms if header.keep is not None else None,
    )
    return survey, found


def _header_findings(header: SurveyFile) -> list[Finding]:
    problems: list[str] = []
    if not NAME.fullmatch(header.survey):
        problems.append(f"field survey: found '{header.survey}', expected {_A_NAME}")
    if header.keep is not None and header.keep.ms == 0:
        problems.append("field keep: found no time at all, expected at least 1s, or 30d for 30 days")
    if header.most_sms is not None and header.most_sms < 1:
        problems.append(f"field most_sms: found {header.most_sms}, expected 1 or more")
    if not header.languages:
        problems.append("field languages: at least one language is expected")
    problems += [
        f"field languages: found '{each}', expected a tag such as en, fr or pt-BR"
        for each in header.languages
        if not TAG.fullmatch(each)
    ]
    if len(set(header.languages)) < len(header.languages):
        problems.append("field languages: one of them stands there twice")
    if isinstance(header.variables, dict):
        problems += [
            f"field variables.{name}: found {longest}, expected 1 to {LONGEST_SMS} characters"
            for name, longest in header.variables.items()
            if not 1 <= longest <= LONGEST_SMS
        ]
    problems += [
        f"field variables: found '{name}', expected {_A_NAME}"
        for name in header.variables
        if not NAME.fullmatch(name) and place_of(name) != CONTACT
    ]
    return [broken(each) for each in problems]


def _unspoken(header: SurveyFile, sources: Iterable[Source | None]) -> Iterator[Finding]:
    """Where we would say something in a language in which we have no words."""
    ours = [
        f"`texts.{name}`"
        for name in header.texts.__struct_fields__
        if getattr(header.texts, name) is None and fixed_text(cast(FixedText, name), "en", "") is not None
    ]
    ours += [
        f"`invalid` of '{each.id}'" for each in sources if isinstance(each, AskStep) and each.invalid is None
    ]
    ours += [
        f"the words for yes and no of '{each.id}'"
        for each in sources
        if isinstance(each, AskStep)
        and isinstance(each.answer, YesNoAnswer)
        and not (each.answer.yes and each.answer.no)
    ]
    for language in header.languages:
        if ours and not speaks(language):
            more = f" and {len(ours) - 3} more" if len(ours) > 3 else ""
            reason = f"we have no words in '{language}', and would speak English: {', '.join(ours[:3])}{more}"
            yield Finding("warning", "unspoken_language", "", reason, f"write them in '{language}'")


def _variables(declared: Variables) -> dict[str, int]:
    """Lower case -> longest value. What is declared, and what needs no declaration."""
    longest = declared if isinstance(declared, dict) else dict.fromkeys(declared, LONGEST)
    return dict.fromkeys((each.lower() for each in USUAL), LONGEST) | {
        name.lower(): each for name, each in longest.items()
    }


def _texts_in(written: object) -> list[str]:
    """What of a list in a header with problems can be read, so that the rest of the file is looked at too."""
    return [each for each in written if isinstance(each, str)] if isinstance(written, list) else []


def _sources(raw: object) -> tuple[list[Source | None], list[Finding]]:
    """The steps as written, None for those that cannot be converted."""
    if not isinstance(raw, list):
        return [], []
    if not raw:
        return [], [broken("field steps: at least one step is expected")]
    sources: list[Source | None] = []
    findings: list[Finding] = []
    for place, each in enumerate(raw):
        source, problems = _source(each)
        sources.append(source)
        findings += [_in_step(each, place, problem) for problem in problems]
    return sources, findings


def _source(raw: object) -> tuple[Source | None, list[str]]:
    if not isinstance(raw, dict):
        return None, ["a mapping with `say` or `ask` is expected"]
    if "ask" in raw and "say" in raw:
        return None, ["either `say` or `ask` is expected, not both"]
    if "ask" in raw:
        return convert(raw, AskStep)
    if "say" in raw:
        return convert(raw, SayStep)
    return None, ["either `say` or `ask` is expected"]


def _in_step(raw: object, place: int, problem: str) -> Finding:
    """`problem` is about the step `raw`; one without an id is known by its number."""
    identity = raw.get("id") if isinstance(raw, dict) else None
    if isinstance(identity, str):
        return broken(problem, identity)
    return broken(f"step number {place + 1}, {problem}")


def _ids(raw: object) -> dict[str, int]:
    """Step id -> index, also of the steps that cannot be converted, so that routes to them are no second problem."""
    ids: dict[str, int] = {}
    for place, each in enumerate(raw if isinstance(raw, list) else []):
        if isinstance(each, dict) and isinstance(each.get("id"), str):
            ids.setdefault(each["id"], place)
    return ids


class _StepCompiler:
    """Compiles step by step, and notes what is wrong with each in its scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.texts = TextCompiler(scope)
        self._answers = AnswerCompiler(scope, self.texts)
        self._routes = RouteCompiler(scope)

    def step(self, place: int, source: Source) -> Step:
        scope = self._scope
        scope.step = source.id
        if source.id == "end" or not NAME.fullmatch(source.id):
            scope.problem(f"field id: found '{source.id}', expected {_A_NAME}, and not 'end'")
        if scope.ids[source.id] != place:
            scope.problem("field id: another step has the same id")
        match source:
            case SayStep():
                return Say(source.id, self.texts.text("say", source.say), self._routes.routes(place, source))
            case AskStep():
                return self._ask(place, source)
            case _:
                assert_never(source)

    def _ask(self, place: int, source: AskStep) -> Ask:
        reader = self._answers.reader(source.answer)
        text = self.texts.text("ask", source.ask, options=self._answers.listed(source.answer))
        return Ask(
            id=source.id,
            text=text,
            reader=reader,
            invalid=Reask(
                texts=self._reasks(source, text, reader),
                attempts=source.attempts,
                give_up=self._routes.go("give_up", source.give_up) if source.give_up is not None else None,
            ),
            routes=self._routes.routes(place, source),
            remind=self._remind(source.remind) if source.remind else None,
        )

    def _reasks(self, source: AskStep, question: Text, reader: Reader) -> Mapping[Why, Text]:
        """What is said to each kind of invalid answer: the author's text or ours, and the question again."""
        if source.attempts < 1:
            self._scope.problem(f"field attempts: found {source.attempts}, expected 1 or more")
        if source.invalid is not None:
            told = self._before(self.texts.text("invalid", source.invalid), question)
            return dict.fromkeys(whys(reader), told)
        return {
            why: self._before({each: refusal(reader, why, each) for each in self._scope.languages}, question)
            for why in whys(reader)
        }

    def _before(self, told: Text, question: Text) -> Text:
        reask = {each: join(told[each], " ", question[each]) for each in question}
        if any(literal_length(each) > LONGEST_SMS for each in reask.values()):
            self._scope.problem(
                f"field invalid: with the question after it, it is longer than {LONGEST_SMS} characters"
            )
        return reask

    def _remind(self, source: Reminder) -> Remind:
        if source.times < 1:
            self._scope.problem(f"field remind.times: found {source.times}, expected 1 or more")
        if source.after.ms == 0:
            self._scope.problem("field remind.after: found no time at all, expected at least 1s")
        return Remind(source.after.ms, source.times, self.texts.text("remind.text", source.text))

    def keywords(self, written: KeywordsWritten) -> Keywords:
        scope = self._scope
        words: dict[str, str] = {}
        patterns: list[tuple[Pattern, str]] = []
        anything = ""
        for language, each in _by_language(written, scope.language):
            if language not in scope.languages:
                scope.problem(f"field start: '{language}' is none of the survey's languages")
            if each.strip() == ANYTHING:
                anything = anything or language
            elif not each.strip():
                scope.problem("field start: a keyword is empty, and an SMS without a text would start it")
            elif fold_word(each) in HELP or is_stop(fold_word(each)):
                scope.problem(f"field start: '{each}' is a word for STOP or HELP")
            elif WORD.fullmatch(each):
                words.setdefault(fold(each), language)
            elif pattern := self._routes.pattern("start", each):
                patterns.append((pattern, language))
        return Keywords(words, tuple(patterns), anything)


def _by_language(written: KeywordsWritten, default: str) -> list[tuple[str, str]]:
    """Language and keyword, one pair for each keyword."""
    by_language = written if isinstance(written, dict) else {default: written}
    return [
        (language, each)
        for language, keywords in by_language.items()
        for each in ([keywords] if isinstance(keywords, str) else keywords)
    ]
