"""Counts, shares and values of results, in words: the same on a terminal and on a page."""

from collections.abc import Iterator, Mapping

from config.archive.question_summaries import HistogramBar, QuestionSummary, Value, ValueDistribution
from config.archive.result_columns import ResultColumn
from config.archive.session_results import SessionResult
from engine.model.durations import format_duration
from engine.model.plurals import pluralize


def format_count(number: int) -> str:
    """`1,234`, as people read it."""
    return f"{number:,}"


def format_sessions(number: int) -> str:
    return pluralize(number, "session").replace(str(number), format_count(number), 1)


def format_share(part: float, whole: float) -> str:
    """`12 %`; `<1 %` and `>99 %` where rounding would say none or all."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "<1 %"
    return ">99 %" if 99 < percent < 100 else f"{percent:.0f} %"


def readable_word(word: str) -> str:
    """`gave up`, of `gave_up`: an ending, or a reason."""
    return word.replace("_", " ")


def describe_states(states: Mapping[str, int]) -> str:
    """`930 completed, 120 open`."""
    ordered = sorted(states.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{format_count(number)} {readable_word(state)}" for state, number in ordered)


def describe_answered(summary: QuestionSummary, opened: int) -> str:
    """`980 answered (81 % of sessions), in 22 s · 80 misread first (8 %)`."""
    line = f"{format_count(summary.answered)} answered ({format_share(summary.answered, opened)} of sessions)"
    if summary.median_s is not None:
        line += f", in {format_duration(summary.median_s * 1000)}"
    if summary.misread_first:
        share = format_share(summary.misread_first, summary.answered)
        line += f" · {format_count(summary.misread_first)} misread first ({share})"
    return line


def describe_distribution(found: ValueDistribution) -> str:
    """`mean 98.66 · median 98.6 · half 97 to 100.3 · all 91.5 to 107.7`."""
    parts = [f"mean {format_value(found.mean, 2)}"] if found.mean is not None else []
    parts.append(f"median {format_value(found.median)}")
    parts.append(f"half {format_value(found.quarter)} to {format_value(found.three_quarters)}")
    parts.append(f"all {format_value(found.least)} to {format_value(found.greatest)}")
    return " · ".join(parts)


def format_value(value: Value, decimals: int = 4) -> str:
    """A number without needless decimals; a day or a time as it is."""
    if isinstance(value, str):
        return value
    return f"{round(value, decimals):g}" if abs(value) < 100_000 else f"{value:,.0f}"


def bar_label(bar: HistogramBar, *, is_whole: bool) -> str:
    """`7`; `10 to 19` of whole numbers; `97 to <98` of others; days and hours as they begin."""
    if bar.low == bar.high:
        return format_value(bar.low)
    if isinstance(bar.low, str) or isinstance(bar.high, str):
        return f"from {bar.low}"
    if is_whole:
        last = bar.high - 1
        return (
            format_value(bar.low) if last <= bar.low else f"{format_value(bar.low)} to {format_value(last)}"
        )
    return f"{format_value(bar.low)} to <{format_value(bar.high)}"


def option_counts(column: ResultColumn, summary: QuestionSummary, language: str) -> Iterator[tuple[str, int]]:
    """Options in the order of the survey's file, those too that nobody chose; texts and others by how often they came."""
    counts = {each.value: each.count for each in summary.counts}
    if summary.kind == "options":
        for option in column.wording.labels.get(language, {}):
            yield column.option_label(option, language), counts.pop(option, 0)
        for word in ("yes", "no") if column.type == "yes_no" else ():
            yield word, counts.pop(word, 0)
    yield from counts.items()


def answer_text(found: SessionResult, column: ResultColumn) -> str:
    """A session's answer to a question in one line; empty if there is none."""
    answer = found.answers.get(column.heading, "")
    return ", ".join(answer) if isinstance(answer, list) else " ".join(answer.split())


_SHORT_PSEUDONYM = 8


def shorten_pseudonym(pseudonym: str) -> str:
    """As much of it as tells people apart on a screen."""
    return pseudonym[:_SHORT_PSEUDONYM]
