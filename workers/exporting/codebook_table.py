"""The codebook as a table for people: a row for each column, and under a question one for each of its options."""

from collections.abc import Iterator, Sequence

from engine.codebook.codebook import Codebook, CodebookQuestion

CodebookCell = str | int | float | None


def codebook_rows(codebook: Codebook) -> Iterator[Sequence[CodebookCell]]:
    """The rows, a heading first. Texts and labels have a column for each language."""
    languages = codebook.languages
    yield (
        "name", "column", "holds", "type", "meaning", *(f"text {language}" for language in languages),
        "min", "max",
        "decimals", "pattern", "country", "option", "place", "versions", "remark",
    )  # fmt: skip
    for each in codebook.columns:
        yield _row(codebook, each.name, each.column, each.kind, meaning=each.meaning)
        if each.name == "state":
            for state in codebook.states:
                yield _row(codebook, "state", "", "", option=state.state, meaning=state.meaning)
    for variable in codebook.variables:
        yield _row(codebook, variable.name, variable.column, "text", meaning="a session variable")
    for question in codebook.questions:
        yield from _question_rows(codebook, question)


def _question_rows(codebook: Codebook, question: CodebookQuestion) -> Iterator[Sequence[CodebookCell]]:
    yield _row(
        codebook,
        question.name,
        question.column,
        question.kind,
        type_name=question.type,
        meaning="the answer to a question",
        texts=[question.texts.get(language, "") for language in codebook.languages],
        limits=(question.min, question.max, question.decimals, question.pattern, question.country),
        versions=question.versions,
        remark=_type_remark(question),
    )
    for option in question.options:
        yield _row(
            codebook,
            option.name if question.kind == "options" else question.name,
            option.column if question.kind == "options" else "",
            "",
            meaning="an option that is chosen alone" if option.exclusive else "an option",
            texts=[option.labels.get(language, "") for language in codebook.languages],
            option=option.id,
            place=option.place,
            versions=option.versions,
        )


def _type_remark(question: CodebookQuestion) -> str:
    if question.type_changed:
        types = ", ".join(f"{kind} in {version}" for version, kind in question.types.items())
        return f"its type changed: {types}"
    return "" if question.versions else "no version of the survey that is kept asks it"


def _row(
    codebook: Codebook,
    name: str,
    column: str,
    holds: str,
    *,
    type_name: str = "",
    meaning: str = "",
    texts: Sequence[str] = (),
    limits: Sequence[CodebookCell] = (None,) * 5,
    option: str = "",
    place: int | None = None,
    versions: Sequence[str] = (),
    remark: str = "",
) -> Sequence[CodebookCell]:
    in_languages = texts or [""] * len(codebook.languages)
    kept = " ".join(versions)
    return (name, column, holds, type_name, meaning, *in_languages, *limits, option, place, kept, remark)
