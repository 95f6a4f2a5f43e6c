"""Compile a parsed survey file into a Survey, or report every problem that it has.

All problems of a file are found in one pass. Each names the step by its id, and the field."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import assert_never, cast

import msgspec

from engine.answers import (
    NO_MEDIA,
    AnswerReader,
    InvalidAnswer,
    InvalidReason,
    invalid_answer_text,
    invalid_reasons,
    read_answer,
)
from engine.answers.translations import has_words_for
from engine.model.patterns import CompiledPattern
from engine.model.segments import LONGEST_SMS
from engine.model.text_normalization import fold_text, fold_word
from engine.surveys.compiling.routes import RouteCompiler
from engine.surveys.compiling.scope import CompilerScope, WrittenStep
from engine.surveys.compiling.text_parsing import PLAIN_KEYWORD, TextCompiler
from engine.surveys.findings import MOST_FINDINGS, InvalidSurveyError, SurveyFinding, invalid_file_finding
from engine.surveys.keywords import HELP_WORDS, is_stop
from engine.surveys.phrases import fixed_text
from engine.surveys.program import (
    FixedText,
    IgnoreInvalid,
    QuestionStep,
    ReaskInvalid,
    ReminderRule,
    StartKeywords,
    StatementStep,
    Survey,
    SurveyStep,
)
from engine.surveys.survey_file import (
    ANY_SMS,
    LANGUAGE_TAG,
    AskStep,
    DeclaredVariables,
    Reminder,
    SayStep,
    SurveyFile,
    convert_with_problems,
)
from engine.surveys.survey_file import WrittenKeywords as KeywordsWritten
from engine.surveys.texts import LocalizedText, join_templates, literal_length
from engine.surveys.variables import (
    BUILTIN_VARIABLES,
    CONTACT_KEY,
    KEY_PATTERN,
    LONGEST_VALUE,
    PUZZEL_KEYS,
    answer_key,
)

__all__ = ["InvalidSurveyError", "compile_survey"]

_MOST_LANGUAGES = 50
"""There is a text for each of them in each place."""

_DEFAULT_ATTEMPTS = next(
    field.default for field in msgspec.structs.fields(AskStep) if field.name == "attempts"
)

_DURATIONS = ("idle", "expires", "cooldown", "keep")

_NAME_RULE = "letters from a to z, digits, - and _ that begin with a letter"


def compile_survey(raw: object, file: str, source: bytes, version: str) -> tuple[Survey, list[SurveyFinding]]:
    """Compile a parsed survey file (`raw`) into a Survey, with warnings about how it is written. Raises Rejected,
    which holds every error."""
    if not isinstance(raw, dict):
        raise InvalidSurveyError(
            [invalid_file_finding("it holds no survey: the fields `survey` and `steps` are expected")]
        )
    header, problems = convert_with_problems(raw, SurveyFile)
    sources, findings = _convert_steps(raw.get("steps"))
    languages = header.languages if header else tuple(_strings_in(raw.get("languages"))) or ("en",)
    variables = _variable_lengths(header.variables) if header else {}
    so_far = [
        *map(invalid_file_finding, problems),
        *findings,
        *(_header_findings(header) if header else ()),
        *(_unspoken_language_warnings(header, sources) if header else ()),
    ]
    scope = CompilerScope(
        languages[:_MOST_LANGUAGES], _step_indexes(raw.get("steps")), sources, variables, so_far
    )
    compiler = _StepCompiler(scope)
    keywords = compiler.compile_keywords(header.start if header else _strings_in(raw.get("start")))
    texts = compiler.compile_fixed_texts(header) if header else {}
    steps = [compiler.compile_step(place, each) for place, each in enumerate(sources) if each is not None]
    if header is None or scope.errors:
        raise InvalidSurveyError(scope.errors)
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
        told=frozenset(place for place in BUILTIN_VARIABLES if place[1:] in scope.variables),
        keep_ms=header.keep.ms if header.keep is not None else None,
        lenient=header.lenient,
        durations={name: each.written for name in _DURATIONS if (each := getattr(header, name)) is not None},
    )
    return survey, scope.findings


def _takes_no_empty_sms(reader: AnswerReader) -> bool:
    return isinstance(read_answer(reader, "", lambda: date(2000, 1, 1)), InvalidAnswer)


def _header_findings(header: SurveyFile) -> list[SurveyFinding]:
    problems: list[str] = []
    if not KEY_PATTERN.fullmatch(header.survey):
        problems.append(f"field survey: found '{header.survey}', expected {_NAME_RULE}")
    if header.keep is not None and header.keep.ms == 0:
        problems.append("field keep: found no time at all, expected at least 1s, or 30d for 30 days")
    if header.most_sms is not None and header.most_sms < 1:
        problems.append(f"field most_sms: found {header.most_sms}, expected 1 or more")
    if header.lenient and header.most_sms is None:
        problems.append("field lenient: `most_sms` is expected beside it, which ends what nothing else does")
    if not header.languages:
        problems.append("field languages: at least one language is expected")
    if len(header.languages) > _MOST_LANGUAGES:
        problems.append(f"field languages: found {len(header.languages)}, expected {_MOST_LANGUAGES} at most")
    problems += [
        f"field languages: found '{each}', expected a tag such as en, fr or pt-BR"
        for each in header.languages
        if not LANGUAGE_TAG.fullmatch(each)
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
        f"field variables: found '{name}', expected {_NAME_RULE}"
        for name in header.variables
        if not KEY_PATTERN.fullmatch(name) and answer_key(name) != CONTACT_KEY
    ]
    return [invalid_file_finding(each) for each in problems]


def _unspoken_language_warnings(
    header: SurveyFile, sources: Iterable[WrittenStep | None]
) -> Iterator[SurveyFinding]:
    """Yield a warning for each language of the survey in which Parley has no phrases of its own and the author left
    some to it."""
    ours = [
        f"`texts.{name}`"
        for name in header.texts.__struct_fields__
        if getattr(header.texts, name) is None and fixed_text(cast(FixedText, name), "en", "") is not None
    ]
    ours += [
        f"`invalid` of '{each.id}'" for each in sources if isinstance(each, AskStep) and each.invalid is None
    ]
    ours += [
        f"{words} of '{each.id}'"
        for each in sources
        if isinstance(each, AskStep) and (words := each.answer.default_words())
    ]
    for language in header.languages:
        if ours and not has_words_for(language):
            more = f" and {len(ours) - 3} more" if len(ours) > 3 else ""
            reason = f"we have no words in '{language}', and would speak English: {', '.join(ours[:3])}{more}"
            yield SurveyFinding("warning", "unspoken_language", "", reason, f"write them in '{language}'")


def _variable_lengths(declared: DeclaredVariables) -> dict[str, int]:
    """Map each session variable, in lower case, to the longest value it may have, in characters: the declared ones
    and PUZZEL_KEYS, which need no declaration."""
    longest = declared if isinstance(declared, dict) else dict.fromkeys(declared, LONGEST_VALUE)
    return dict.fromkeys((each.lower() for each in PUZZEL_KEYS), LONGEST_VALUE) | {
        name.lower(): each for name, each in longest.items()
    }


def _strings_in(written: object) -> list[str]:
    """Return the strings of a header's list, also of one that has problems, so that the rest of the file can be
    checked."""
    return [each for each in written if isinstance(each, str)] if isinstance(written, list) else []


def _convert_steps(raw: object) -> tuple[list[WrittenStep | None], list[SurveyFinding]]:
    """Convert the steps, and report their problems. A step that cannot be converted is None, so that indexes stay."""
    if not isinstance(raw, list):
        return [], []
    if not raw:
        return [], [invalid_file_finding("field steps: at least one step is expected")]
    sources: list[WrittenStep | None] = []
    findings: list[SurveyFinding] = []
    for place, each in enumerate(raw):
        source, problems = _convert_step(each) if len(findings) <= MOST_FINDINGS else (None, [])
        sources.append(source)
        findings += [_step_finding(each, place, problem) for problem in problems]
    return sources, findings


def _convert_step(raw: object) -> tuple[WrittenStep | None, list[str]]:
    if not isinstance(raw, dict):
        return None, ["a mapping with `say` or `ask` is expected"]
    if "ask" in raw and "say" in raw:
        return None, ["either `say` or `ask` is expected, not both"]
    if "ask" in raw:
        return convert_with_problems(raw, AskStep)
    if "say" in raw:
        return convert_with_problems(raw, SayStep)
    return None, ["either `say` or `ask` is expected"]


def _step_finding(raw: object, place: int, problem: str) -> SurveyFinding:
    """`problem` is about the step `raw`; one without an id is known by its number."""
    identity = raw.get("id") if isinstance(raw, dict) else None
    if isinstance(identity, str):
        return invalid_file_finding(problem, identity)
    return invalid_file_finding(f"step number {place + 1}, {problem}")


def _step_indexes(raw: object) -> dict[str, int]:
    """Map step ids to indexes, steps that cannot be converted included: a route to one of them is then no second
    problem."""
    ids: dict[str, int] = {}
    for place, each in enumerate(raw if isinstance(raw, list) else []):
        if isinstance(each, dict) and isinstance(each.get("id"), str):
            ids.setdefault(each["id"], place)
    return ids


class _StepCompiler:
    """Compiles step by step, and notes what is wrong with each in its scope."""

    def __init__(self, scope: CompilerScope) -> None:
        self._scope = scope
        self.texts = TextCompiler(scope)
        self._routes = RouteCompiler(scope)
        self._no_media: LocalizedText | None = None

    def compile_fixed_texts(self, header: SurveyFile) -> Mapping[FixedText, LocalizedText]:
        """Compile the fixed texts, before the steps: `no_media` is said beside questions."""
        texts = self.texts.compile_fixed_texts(header.texts, header.start, header.title)
        self._no_media = texts.get("no_media")
        return texts

    def compile_step(self, place: int, source: WrittenStep) -> SurveyStep:
        scope = self._scope
        scope.current_step = source.id
        if source.id == "end" or not KEY_PATTERN.fullmatch(source.id):
            scope.add_error(f"field id: found '{source.id}', expected {_NAME_RULE}, and not 'end'")
        if scope.index_by_id[source.id] != place:
            scope.add_error("field id: another step has the same id")
        match source:
            case SayStep():
                return StatementStep(
                    source.id,
                    self.texts.compile_text("say", source.say),
                    self._routes.compile_routes(place, source),
                )
            case AskStep():
                return self._compile_ask(place, source)
            case _:
                assert_never(source)

    def _compile_ask(self, place: int, source: AskStep) -> QuestionStep:
        reader = source.answer.compile_reader(self._scope.add_error)
        options = self.texts.compile_option_lines(source.answer.option_lines())
        text = self.texts.compile_text("ask", source.ask, options=options)
        return QuestionStep(
            id=source.id,
            text=text,
            reader=reader,
            invalid=self._compile_invalid(source, text, reader),
            routes=self._routes.compile_routes(place, source),
            remind=self._compile_reminder(source.remind) if source.remind else None,
            answer_type=source.answer.type_name(),
        )

    def _compile_invalid(
        self, source: AskStep, question: LocalizedText, reader: AnswerReader
    ) -> ReaskInvalid | IgnoreInvalid:
        """What follows an invalid answer: the question again, or, where `invalid` is `none`, nothing."""
        if source.invalid == "none":
            if source.attempts != _DEFAULT_ATTEMPTS or source.give_up is not None:
                self._scope.add_error(
                    "field invalid: `none` passes over invalid answers, however many: "
                    "`attempts` and `give_up` are expected without it only"
                )
            return IgnoreInvalid()
        return ReaskInvalid(
            texts=self._compile_reasks(source, question, reader),
            attempts=source.attempts,
            give_up=self._routes.resolve_step("give_up", source.give_up)
            if source.give_up is not None
            else None,
        )

    def _compile_reasks(
        self, source: AskStep, question: LocalizedText, reader: AnswerReader
    ) -> Mapping[InvalidReason, LocalizedText]:
        """Return the SMS for each reason for which an answer is rejected: the author's `invalid` or Parley's phrase, or
        the author's `no_media`, then the question again."""
        reasks = self._compile_complaints(source, question, reader)
        if self._no_media is not None and _takes_no_empty_sms(reader):
            told = self._join_reask(self._no_media, question, f"texts.no_media, at '{source.id}'")
            return {**reasks, NO_MEDIA: told}
        return reasks

    def _compile_complaints(
        self, source: AskStep, question: LocalizedText, reader: AnswerReader
    ) -> Mapping[InvalidReason, LocalizedText]:
        if source.attempts < 1:
            self._scope.add_error(f"field attempts: found {source.attempts}, expected 1 or more")
        if source.invalid is not None:
            told = self._join_reask(self.texts.compile_text("invalid", source.invalid), question)
            return dict.fromkeys(invalid_reasons(reader), told)
        return {
            why: self._join_reask(
                {each: invalid_answer_text(reader, why, each) for each in self._scope.languages}, question
            )
            for why in invalid_reasons(reader)
        }

    def _join_reask(
        self, told: LocalizedText, question: LocalizedText, field: str = "invalid"
    ) -> LocalizedText:
        """Join a rejection, which the author wrote in `field`, and the question after it, in every language. Reports a
        problem if the two exceed LONGEST_SMS characters."""
        reask = {each: join_templates(told[each], " ", question[each]) for each in question}
        if any(literal_length(each) > LONGEST_SMS for each in reask.values()):
            self._scope.add_error(
                f"field {field}: with the question after it, it is longer than {LONGEST_SMS} characters"
            )
        return reask

    def _compile_reminder(self, source: Reminder) -> ReminderRule:
        if source.times < 1:
            self._scope.add_error(f"field remind.times: found {source.times}, expected 1 or more")
        if source.after.ms == 0:
            self._scope.add_error("field remind.after: found no time at all, expected at least 1s")
        return ReminderRule(
            source.after.ms,
            source.times,
            self.texts.compile_text("remind.text", source.text),
            source.after.written,
        )

    def compile_keywords(self, written: KeywordsWritten) -> StartKeywords:
        scope = self._scope
        words: dict[str, str] = {}
        patterns: list[tuple[CompiledPattern, str]] = []
        anything = ""
        first_language: dict[str, str] = {}
        for language, each in _language_keyword_pairs(written, scope.default_language):
            if (first := first_language.setdefault(fold_text(each.strip()), language)) != language:
                scope.add_warning(
                    "keyword",
                    f"field start: '{each}' stands there for '{first}' and for '{language}': "
                    f"it starts the survey in '{first}'",
                    "give each language keywords of its own",
                )
            if language not in scope.languages:
                scope.add_error(f"field start: '{language}' is none of the survey's languages")
            if each.strip() == ANY_SMS:
                anything = anything or language
            elif not each.strip():
                scope.add_error("field start: a keyword is empty, and an SMS without a text would start it")
            elif fold_word(each) in HELP_WORDS or is_stop(fold_word(each)):
                scope.add_error(f"field start: '{each}' is a word for STOP or HELP")
            elif PLAIN_KEYWORD.fullmatch(each):
                words.setdefault(fold_text(each), language)
            elif pattern := self._routes.compile_folded_pattern("start", each):
                patterns.append((pattern, language))
        return StartKeywords(words, tuple(patterns), anything)


def _language_keyword_pairs(written: KeywordsWritten, default: str) -> list[tuple[str, str]]:
    """List the start keywords as pairs (language, keyword)."""
    by_language = written if isinstance(written, dict) else {default: written}
    return [
        (language, each)
        for language, keywords in by_language.items()
        for each in ([keywords] if isinstance(keywords, str) else keywords)
    ]
