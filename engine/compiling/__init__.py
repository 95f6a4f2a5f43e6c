"""A survey file into a program, or the sentences that say why not.

All problems of a file are found in one go. Each names the step by its id, and the field.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never, cast

import msgspec

from engine.answers import NO, YES, ChoiceReader, NumberReader, Reader, TextReader, YesNoReader
from engine.conditions import (
    Above,
    All,
    Answered,
    Any,
    AtLeast,
    AtMost,
    Below,
    Condition,
    Contains,
    Matches,
    Not,
    OneOf,
)
from engine.folding import fold, fold_word
from engine.graph import bound_sms, chatter, unreachable, untimely
from engine.keywords import HELP, STOP
from engine.patterns import BadPattern, Pattern, compile_folded, compile_pattern
from engine.phrases import expectation, fixed_text
from engine.program import END, Ask, FixedText, Keywords, Reask, Remind, Route, Say, Step, Survey
from engine.survey_file import (
    AskStep,
    ChoiceAnswer,
    Goto,
    NumberAnswer,
    Option,
    Reminder,
    SayStep,
    SurveyFile,
    TextAnswer,
    Texts,
    When,
    YesNoAnswer,
    convert,
)
from engine.texts import LONGEST_SMS, Slot, Template, Text, join, literal_length, slots, split

MOST_SMS = 100
"""Bounds the SMS of a session whose survey has cycles and does not say `most_sms`."""

_ID = re.compile(r"[A-Za-z_][\w-]*")
_A_NAME = "letters, digits, - and _ that begin with a letter"
_WORD = re.compile(r"[\w ]+")

Source = SayStep | AskStep


class Rejected(Exception):
    """The survey cannot be compiled. `problems` are sentences without the file's name."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def compile_survey(raw: object, file: str, source: bytes, version: str) -> Survey:
    """The survey in a parsed file. Raises Rejected."""
    if not isinstance(raw, dict):
        raise Rejected(["it holds no survey: the fields `survey` and `steps` are expected"])
    header, problems = convert(raw, SurveyFile)
    sources, more = _sources(raw.get("steps"))
    languages = header.languages if header else _texts_in(raw.get("languages")) or ["en"]
    compiler = _Compiler(languages, _ids(raw.get("steps")), sources)
    keywords = compiler.keywords(header.start if header else _texts_in(raw.get("start")))
    texts = compiler.fixed_texts(header) if header else {}
    steps = [compiler.step(place, each) for place, each in enumerate(sources) if each is not None]
    problems += [*more, *(_header_problems(header) if header else ()), *compiler.problems]
    if None not in sources:
        problems += [*chatter(steps), *untimely(steps)]
    if problems or header is None:
        raise Rejected(problems)
    return Survey(
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
        most_sms=_most_sms(steps, texts, header.most_sms),
        texts=texts,
        steps=tuple(steps),
        warnings=tuple(unreachable(steps)),
    )


def _header_problems(header: SurveyFile) -> list[str]:
    problems: list[str] = []
    if not _ID.fullmatch(header.survey):
        problems.append(f"field survey: found '{header.survey}', expected {_A_NAME}")
    if header.most_sms is not None and header.most_sms < 1:
        problems.append(f"field most_sms: found {header.most_sms}, expected 1 or more")
    return problems


def _most_sms(steps: Sequence[Step], texts: Mapping[FixedText, Text], written: int | None) -> int:
    """What can be computed; what the author wrote, if that is less or nothing can be; else MOST_SMS."""
    computed = bound_sms(steps, closing=1 if "completed" in texts else 0)
    return min(computed or written or MOST_SMS, written or computed or MOST_SMS)


def _texts_in(written: object) -> list[str]:
    """What of a list in a header with problems can be read, so that the rest of the file is looked at too."""
    return [each for each in written if isinstance(each, str)] if isinstance(written, list) else []


def _sources(raw: object) -> tuple[list[Source | None], list[str]]:
    """The steps as written, None for those that cannot be converted."""
    if not isinstance(raw, list):
        return [], []
    if not raw:
        return [], ["field steps: at least one step is expected"]
    sources: list[Source | None] = []
    problems: list[str] = []
    for place, each in enumerate(raw):
        source, found = _source(each)
        sources.append(source)
        problems += [f"{_called(each, place)}, {problem}" for problem in found]
    return sources, problems


def _source(raw: object) -> tuple[Source | None, list[str]]:
    if not isinstance(raw, dict):
        return None, ["a mapping with `say` or `ask` is expected"]
    if "ask" in raw:
        return convert(raw, AskStep)
    if "say" in raw:
        return convert(raw, SayStep)
    return None, ["either `say` or `ask` is expected"]


def _called(raw: object, place: int) -> str:
    identity = raw.get("id") if isinstance(raw, dict) else None
    return f"step '{identity}'" if isinstance(identity, str) else f"step number {place + 1}"


def _ids(raw: object) -> dict[str, int]:
    """Step id -> index, also of the steps that cannot be converted, so that routes to them are no second problem."""
    ids: dict[str, int] = {}
    for place, each in enumerate(raw if isinstance(raw, list) else []):
        if isinstance(each, dict) and isinstance(each.get("id"), str):
            ids.setdefault(each["id"], place)
    return ids


class _Compiler:
    """Compiles piece by piece, and notes what is wrong with each in `problems`."""

    def __init__(
        self, languages: Sequence[str], ids: Mapping[str, int], sources: Sequence[Source | None]
    ) -> None:
        self.problems: list[str] = []
        self._languages = languages
        self._ids = ids
        self._sources = sources
        self._asks = {each.id: each for each in sources if isinstance(each, AskStep)}
        self._where = ""
        if not languages:
            self._problem("field languages: at least one language is expected")

    def _problem(self, sentence: str) -> None:
        problem = f"{self._where}, {sentence}" if self._where else sentence
        if problem not in self.problems:  # a text is looked at once per language
            self.problems.append(problem)

    # -- steps

    def step(self, place: int, source: Source) -> Step:
        self._where = f"step '{source.id}'"
        if source.id == "end" or not _ID.fullmatch(source.id):
            self._problem(f"field id: found '{source.id}', expected {_A_NAME}, and not 'end'")
        if self._ids[source.id] != place:
            self._problem("field id: another step has the same id")
        match source:
            case SayStep():
                return Say(source.id, self._text("say", source.say), self._routes(place, source))
            case AskStep():
                return self._ask(place, source)
            case _:
                assert_never(source)

    def _ask(self, place: int, source: AskStep) -> Ask:
        reader = self._reader(source.answer)
        text = self._text("ask", source.ask, options=self._options(source.answer))
        invalid = self._text("invalid", source.invalid) if source.invalid is not None else None
        if source.attempts < 1:
            self._problem(f"field attempts: found {source.attempts}, expected 1 or more")
        return Ask(
            id=source.id,
            text=text,
            reader=reader,
            invalid=Reask(
                text=self._reask(
                    invalid or {each: expectation(reader, each) for each in self._languages}, text
                ),
                attempts=source.attempts,
                give_up=self._go("give_up", source.give_up) if source.give_up is not None else None,
            ),
            routes=self._routes(place, source),
            remind=self._remind(source.remind) if source.remind else None,
        )

    def _reask(self, invalid: Text, question: Text) -> Text:
        reask = {each: join(invalid[each], " ", question[each]) for each in question}
        if any(literal_length(each) > LONGEST_SMS for each in reask.values()):
            self._problem(
                f"field invalid: with the question after it, it is longer than {LONGEST_SMS} characters"
            )
        return reask

    def _remind(self, source: Reminder) -> Remind:
        if source.times < 1:
            self._problem(f"field remind.times: found {source.times}, expected 1 or more")
        if source.after.ms == 0:
            self._problem("field remind.after: found no time at all, expected at least 1s")
        return Remind(source.after.ms, source.times, self._text("remind.text", source.text))

    # -- answers

    def _reader(self, source: TextAnswer | NumberAnswer | YesNoAnswer | ChoiceAnswer) -> Reader:
        match source:
            case TextAnswer():
                return self._text_reader(source)
            case NumberAnswer():
                return self._number_reader(source)
            case YesNoAnswer():
                return YesNoReader()
            case ChoiceAnswer():
                return self._choice_reader(source)
            case _:
                assert_never(source)

    def _text_reader(self, source: TextAnswer) -> TextReader:
        if source.min < 0 or source.max < max(1, source.min):
            self._problem(f"field answer: no text has from {source.min} to {source.max} characters")
        pattern = self._pattern("answer.pattern", source.pattern) if source.pattern is not None else None
        return TextReader(source.min, source.max, pattern)

    def _number_reader(self, source: NumberAnswer) -> NumberReader:
        if source.min is not None and source.max is not None and source.min > source.max:
            self._problem(f"field answer: no number lies between {source.min:g} and {source.max:g}")
        if source.decimals is not None and source.decimals < 0:
            self._problem(f"field answer.decimals: found {source.decimals}, expected 0 or more")
        return NumberReader(source.min, source.max, source.decimals)

    def _choice_reader(self, source: ChoiceAnswer) -> ChoiceReader:
        options = [_option(each) for each in source.options]
        if not options:
            self._problem("field answer.options: at least one option is expected")
        places: dict[str, int] = {str(place + 1): place for place in range(len(options))}
        for place, option in enumerate(options):
            for written in (option.id, *_in_all_languages(option.label), *option.aliases):
                for form in (fold(written), fold_word(written)):
                    if form and places.setdefault(form, place) != place:
                        self._problem(
                            f"field answer.options[{place}]: '{written}' also reads as option {places[form] + 1}"
                        )
                        break
        return ChoiceReader(tuple(option.id for option in options), places)

    def _options(self, source: object) -> list[Text]:
        """The labels that are put under a question."""
        if not isinstance(source, ChoiceAnswer):
            return []
        return [
            self._text(f"answer.options[{place}]", _option(each).label, plain=True)
            for place, each in enumerate(source.options)
        ]

    # -- texts

    def _text(self, field: str, written: Texts, *, options: Sequence[Text] = (), plain: bool = False) -> Text:
        """A text in every language; where one is missing, in the first. A `plain` text has no placeholders."""
        by_language = dict.fromkeys(self._languages, written) if isinstance(written, str) else written
        for language in by_language:
            if language not in self._languages:
                self._problem(f"field {field}: '{language}' is none of the survey's languages")
        default = self._languages[0] if self._languages else ""
        if default not in by_language:
            self._problem(f"field {field}: there is no text in '{default}', the survey's first language")
        text: dict[str, Template] = {}
        for language in self._languages:
            wording = by_language.get(language) or by_language.get(default) or ""
            listed = "".join(f"\n{place + 1}. {option[language]}" for place, option in enumerate(options))
            text[language] = self._template(field, wording, language, listed, plain)
        return text

    def _template(self, field: str, wording: str, language: str, listed: str, plain: bool) -> Template:
        if not wording.strip():
            self._problem(f"field {field}: it is empty")
        template = wording if plain else join(self._resolve(field, split(wording), language), listed)
        if (length := literal_length(template)) > LONGEST_SMS:
            self._problem(f"field {field}: it has {length} characters, at most {LONGEST_SMS} are expected")
        return template

    def _resolve(self, field: str, template: Template, language: str) -> Template:
        if isinstance(template, str):
            return template
        return tuple(
            part if isinstance(part, str) else self._slot(field, part, language) for part in template
        )

    def _slot(self, field: str, slot: Slot, language: str) -> Slot:
        asked = self._asks.get(slot.step)
        if asked is None:
            if slot.step not in self._ids or isinstance(self._sources[self._ids[slot.step]], SayStep):
                self._problem(f"field {field}: {{{slot.step}}} names no question")
            return slot
        if not isinstance(asked.answer, ChoiceAnswer):
            return slot
        labels = tuple(_label(_option(each), language) for each in asked.answer.options)
        return msgspec.structs.replace(slot, labels=labels)

    # -- routes

    def _routes(self, place: int, source: Source) -> tuple[Route, ...]:
        following = place + 1 if place + 1 < len(self._sources) else END
        match source.next:
            case None:
                return (Route(None, following),)
            case str():
                return (Route(None, self._go("next", source.next)),)
            case list():
                routes = [self._route(f"next[{n}]", each, source) for n, each in enumerate(source.next)]
                return (
                    (*routes, Route(None, following)) if all(each.when for each in routes) else tuple(routes)
                )
            case _:
                assert_never(source.next)

    def _route(self, field: str, source: Goto, step: Source) -> Route:
        go = self._go(f"{field}.go", source.go)
        return Route(self._condition(f"{field}.when", source.when, step) if source.when else None, go)

    def _go(self, field: str, target: str) -> int:
        if target == "end":
            return END
        if target not in self._ids:
            self._problem(f"field {field}: no step is called '{target}'")
        return self._ids.get(target, END)

    # -- conditions

    def _condition(self, field: str, when: When, step: Source) -> Condition:
        about = when.answer or step.id
        if when.answer is None and isinstance(step, SayStep) and not (when.all or when.any or when.not_):
            self._problem(f"field {field}: a `say` has no answer; name a question with `answer`")
        elif when.answer is not None and when.answer not in self._ids:
            self._problem(f"field {field}.answer: no step is called '{when.answer}'")
        elif when.answer is not None and isinstance(self._sources[self._ids[when.answer]], SayStep):
            self._problem(f"field {field}.answer: '{when.answer}' asks nothing")
        conditions = [
            *self._bounds(field, when, about),
            *self._comparisons(field, when, about),
            *self._combined(field, when, step),
        ]
        if not conditions:
            self._problem(f"field {field}: it holds no condition")
        return conditions[0] if len(conditions) == 1 else All(tuple(conditions))

    def _bounds(self, field: str, when: When, about: str) -> Iterable[Condition]:
        bounds: dict[str, Condition] = {}
        if when.at_least is not None:
            bounds["at_least"] = AtLeast(about, when.at_least)
        if when.at_most is not None:
            bounds["at_most"] = AtMost(about, when.at_most)
        if when.above is not None:
            bounds["above"] = Above(about, when.above)
        if when.below is not None:
            bounds["below"] = Below(about, when.below)
        if about in self._asks and not isinstance(self._asks[about].answer, NumberAnswer):
            for name in bounds:
                self._problem(f"field {field}.{name}: the answer to '{about}' is no number")
        return bounds.values()

    def _comparisons(self, field: str, when: When, about: str) -> Iterable[Condition]:
        if when.equals is not None:
            yield OneOf(about, frozenset([self._value(f"{field}.equals", when.equals, about)]))
        if when.one_of is not None:
            values = [self._value(f"{field}.one_of", each, about) for each in when.one_of]
            yield OneOf(about, frozenset(values))
        if when.matches is not None:
            pattern = self._folded_pattern(f"{field}.matches", when.matches)
            yield Matches(about, pattern) if pattern else Answered(about)
        if when.contains is not None:
            words = [when.contains] if isinstance(when.contains, str) else when.contains
            yield Contains(about, tuple(map(fold, words)))
        if when.answered is not None:
            yield Answered(about) if when.answered else Not(Answered(about))

    def _combined(self, field: str, when: When, step: Source) -> Iterable[Condition]:
        if when.all is not None:
            yield All(
                tuple(self._condition(f"{field}.all[{n}]", each, step) for n, each in enumerate(when.all))
            )
        if when.any is not None:
            yield Any(
                tuple(self._condition(f"{field}.any[{n}]", each, step) for n, each in enumerate(when.any))
            )
        if when.not_ is not None:
            yield Not(self._condition(f"{field}.not", when.not_, step))

    def _value(self, field: str, written: str | float | bool, about: str) -> str | float | bool:
        """What the reader of `about` gives for the answer that the author wrote."""
        if about not in self._asks:
            return written
        match self._asks[about].answer:
            case NumberAnswer() if isinstance(written, bool) or not isinstance(written, (int, float)):
                self._problem(f"field {field}: found '{written}', but the answer to '{about}' is a number")
            case YesNoAnswer() if not isinstance(written, bool):
                word = fold_word(str(written))
                if word not in YES and word not in NO:
                    self._problem(
                        f"field {field}: found '{written}', but the answer to '{about}' is yes or no"
                    )
                return word in YES
            case ChoiceAnswer(options=options):
                ids = [_option(each).id for each in options]
                if written not in ids:
                    self._problem(f"field {field}: '{about}' has no option '{written}'")
            case TextAnswer():
                return fold(str(written))
            case _:
                pass
        return written

    # -- the survey as a whole

    def keywords(self, written: str | list[str]) -> Keywords:
        words: list[str] = []
        patterns: list[Pattern] = []
        for each in [written] if isinstance(written, str) else written:
            if fold_word(each) in STOP | HELP:
                self._problem(f"field start: '{each}' is a word for STOP or HELP")
            elif _WORD.fullmatch(each):
                words.append(fold(each))
            elif pattern := self._folded_pattern("start", each):
                patterns.append(pattern)
        return Keywords(frozenset(words), tuple(patterns))

    def fixed_texts(self, header: SurveyFile) -> dict[FixedText, Text]:
        self._where = ""
        texts: dict[FixedText, Text] = {}
        keyword = main_keyword(header.start)
        for field in header.texts.__struct_fields__:
            name = cast(FixedText, field)
            written: Texts | None = getattr(header.texts, field)
            if written == "none":
                continue
            if written is not None:
                texts[name] = self._text(f"texts.{field}", written)
                if field != "completed" and any(map(slots, texts[name].values())):
                    self._problem(
                        f"field texts.{field}: it is sent outside a session, where no answer is known"
                    )
            elif text := default_text(name, self._languages, keyword, header.title):
                texts[name] = text
        return texts

    # -- patterns

    def _pattern(self, field: str, source: str) -> Pattern | None:
        try:
            return compile_pattern(source)
        except BadPattern as e:
            self._problem(f"field {field}: RE2 refuses '{source}': {e}")
            return None

    def _folded_pattern(self, field: str, source: str) -> Pattern | None:
        try:
            return compile_folded(source)
        except BadPattern as e:
            self._problem(f"field {field}: RE2 refuses '{source}': {e}")
            return None


def default_text(name: FixedText, languages: Iterable[str], keyword: str, title: str = "") -> Text | None:
    wordings = {each: fixed_text(name, each, keyword, title) for each in languages}
    return {each: wording for each, wording in wordings.items() if wording is not None} or None


def main_keyword(start: str | Sequence[str]) -> str:
    """The keyword that a person is told to send: the first one that is a plain word."""
    words = [each for each in ([start] if isinstance(start, str) else start) if _WORD.fullmatch(each)]
    return words[0] if words else "START"


def _option(written: str | Option) -> Option:
    return Option(written, written) if isinstance(written, str) else written


def _label(option: Option, language: str) -> str:
    if isinstance(option.label, str):
        return option.label
    return option.label.get(language) or next(iter(option.label.values()), "")


def _in_all_languages(text: Texts) -> list[str]:
    return [text] if isinstance(text, str) else list(text.values())
