"""What a page says of a survey: put together from what runs here, what is proved of it, and what the archive counts."""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter

import msgspec
from markupsafe import Markup

from config.archive.step_sessions import VersionSessions
from engine.commands.chat_screen import describe_keywords
from engine.drawing import Drawing
from engine.model.durations import format_duration
from engine.model.plurals import pluralize
from engine.proofs.lint_report import LintReport, at_most, describe_ending, describe_path, lint_source
from engine.surveys.findings import SurveyFinding
from engine.surveys.program import Survey
from workers.console.blocking_calls import BlockingCalls
from workers.console.console_state import Console
from workers.console.kept_readings import KeptReading, KeptReadings
from workers.console.surveys import survey_readings
from workers.console.surveys.graph_layout import GraphLayouts, LayoutFailedError
from workers.console.surveys.survey_graph import draw_graph, graph_markup, graph_picture, survey_address
from workers.console.surveys.survey_readings import SurveyReading, SurveyTotals
from workers.results.archive_state import describe_archive
from workers.results.result_wording import describe_states, format_share, readable_word
from workers.results.survey_funnel import describe_counted, funnel_numbers
from workers.store.deployment import Deployment

DAY_MS = 86_400_000


class SurveyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One survey in the list. `report` is None while it is being proved."""

    survey: Survey
    channels: Sequence[str]
    versions: Sequence[VersionSessions]
    report: LintReport | None

    @property
    def open_sessions(self) -> int:
        return sum(each.open for each in self.versions)

    @property
    def dearest(self) -> Sequence[tuple[str, str, str]]:
        return dearest_lines(self.report)


class ShownSurveys(msgspec.Struct, frozen=True, kw_only=True):
    """All surveys. `gone` are versions of surveys that do not run here; `refused` files that have errors; `totals` may be waited for."""

    rows: Sequence[SurveyRow]
    gone: Sequence[VersionSessions]
    refused: dict[str, list[str]]
    totals: KeptReading[SurveyTotals]


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of people at one step."""

    step: str
    reached: int
    reached_share: str
    answered: str
    misread: str
    left: int
    left_how: str
    waiting: int
    median: str


class ShownSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a survey. `graph` is None if it is too large to be part of a page, or could not be drawn."""

    survey: Survey
    language: str
    is_current: bool
    keywords: str
    channels: Sequence[str]
    reading: KeptReading[SurveyReading]
    report: LintReport | None
    graph: Markup | None
    graph_problem: str = ""

    @property
    def findings(self) -> Sequence[SurveyFinding]:
        return self.report.findings if self.report is not None else ()

    @property
    def ending(self) -> str:
        bounds = self.report.bounds if self.report is not None else None
        return describe_ending(bounds) if bounds is not None else ""

    @property
    def dearest(self) -> Sequence[tuple[str, str, str]]:
        return dearest_lines(self.report)

    @property
    def states(self) -> str:
        found = self.reading.what
        return describe_states(found.funnel.states) if found is not None else ""

    @property
    def archive(self) -> Sequence[str]:
        return describe_archive(self.reading.what.archive) if self.reading.what is not None else ()

    @property
    def steps(self) -> Sequence[StepRow]:
        return list(_step_rows(self.reading.what)) if self.reading.what is not None else ()

    @property
    def versions(self) -> Sequence[VersionSessions]:
        """Those that the archive has, newest first, and the current one, which may have no session yet."""
        found = self.reading.what
        if found is None:
            return ()
        order = [each.version for each in found.kept]
        counted = sorted(
            found.versions,
            key=lambda each: order.index(each.version) if each.version in order else len(order),
        )
        if self.is_current and self.survey.version not in {each.version for each in counted}:
            counted.insert(0, VersionSessions(self.survey.name, self.survey.version, 0, 0))
        return counted


class SurveyViews:
    """Puts views together. What is awaited here is never waited for long: what is not there yet is shown as that."""

    def __init__(self, deployment: Deployment, readings: KeptReadings, calls: BlockingCalls) -> None:
        self._deployment = deployment
        self._calls = calls
        self._readings = readings
        self._layouts = GraphLayouts()

    async def find(self, name: str, version: str = "") -> Survey | None:
        """A version of a survey; the current one if none is asked for."""
        if not version:
            return self._deployment.surveys.current(name)
        find = survey_readings.find_version
        if (found := await self._calls.run(find, self._deployment, name, version)) is not None:
            return found
        archived = (await self.reading_of(name)).what
        kept = archived.kept if archived is not None else ()
        return next((each for each in kept if each.version == version), None)

    def channels_of(self, name: str) -> list[str]:
        return [each.name for each in self._deployment.settings.channels.values() if name in each.surveys]

    async def report_of(self, survey: Survey) -> LintReport | None:
        """What is proved of a version; None while that goes on."""
        keep_days = self._deployment.settings.keep_ms // DAY_MS
        proved = await self._readings.look(
            ("proof", survey.version, survey.file),
            lambda: lint_source(survey.file, survey.source, keep_days)[0],
            lasts=True,
            threads="proving",
        )
        return proved.what

    async def reading_of(self, name: str) -> KeptReading[SurveyReading]:
        return await self._readings.look(
            ("survey", name), partial(survey_readings.read_survey, self._deployment, name)
        )

    async def list_surveys(self) -> ShownSurveys:
        surveys = self._deployment.surveys.snapshot()
        current = [found for name in surveys.current_names() if (found := surveys.current(name))]
        totals, refused, reports = await asyncio.gather(  # they are waited for together
            self._readings.look("surveys", partial(survey_readings.read_totals, self._deployment)),
            self._readings.look(
                "refused surveys",
                partial(survey_readings.read_refused_files, self._deployment),
                threads="proving",
            ),
            asyncio.gather(*map(self.report_of, current)),
        )
        counted = sorted(totals.what.versions if totals.what is not None else (), key=attrgetter("survey"))
        by_name = {name: list(found) for name, found in groupby(counted, key=attrgetter("survey"))}
        rows = [
            SurveyRow(
                survey=each,
                channels=self.channels_of(each.name),
                versions=by_name.pop(each.name, ()),
                report=report,
            )
            for each, report in zip(current, reports, strict=True)
        ]
        gone = [each for found in by_name.values() for each in found]
        return ShownSurveys(rows=rows, gone=gone, refused=refused.what or {}, totals=totals)

    async def view(
        self, survey: Survey, language: str, *, now: str = "", been: Collection[str] = ()
    ) -> "SurveyDraft":
        """What there is to be said of a version, but for its graph, which `SurveyDraft.draw` makes."""
        report, reading = await asyncio.gather(self.report_of(survey), self.reading_of(survey.name))
        return SurveyDraft(
            self._layouts,
            survey,
            language if language in survey.languages else survey.languages[0],
            report,
            reading,
            is_current=self._deployment.surveys.current(survey.name) == survey,
            channels=self.channels_of(survey.name),
            now=now,
            been=been,
        )


async def survey_values(
    console: Console, views: SurveyViews, survey: Survey, version: str, language: str,
    *, now: str = "", been: Collection[str] = (),
) -> dict[str, object]:  # fmt: skip
    """What the page shows of a survey, but for the phone. An empty `version` is the current one, whichever that is."""
    draft = await views.view(survey, language, now=now, been=been)
    values = await console.calls.run(draft_values, draft)
    return values | {"body": console.templates.render("survey_body.html", values), "version": version}


def draft_values(draft: "SurveyDraft") -> dict[str, object]:
    return {"view": draft.draw(), "address": survey_address}


class SurveyDraft:
    """A view whose graph is yet to be laid out."""

    def __init__(
        self, layouts: GraphLayouts, survey: Survey, language: str, report: LintReport | None,
        reading: KeptReading[SurveyReading], *, is_current: bool, channels: Sequence[str], now: str,
        been: Collection[str],
    ) -> None:  # fmt: skip
        self._layouts = layouts
        self._survey = survey
        self._language = language
        self._report = report
        self._reading = reading
        self._is_current = is_current
        self._channels = channels
        self._now = now
        self._been = been

    @property
    def key(self) -> tuple[object, ...]:
        """What the view is made of: the same gives the same."""
        return (
            self._survey.version,
            self._survey.file,
            self._language,
            self._report is None,
            self._reading.number,
        )

    def draw(self) -> ShownSurvey:
        """Waits for Graphviz, if it is the first time."""
        graph, problem = None, ""
        try:
            graph = graph_markup(self._survey, self._drawing(), self._layouts, now=self._now, been=self._been)
        except LayoutFailedError as e:
            problem = str(e)
        return ShownSurvey(
            survey=self._survey,
            language=self._language,
            is_current=self._is_current,
            keywords=describe_keywords(self._survey),
            channels=self._channels,
            reading=self._reading,
            report=self._report,
            graph=graph,
            graph_problem=problem,
        )

    def picture(self) -> bytes:
        """The graph as a file. Raises LayoutFailedError."""
        return graph_picture(self._drawing(), self._layouts)

    def _drawing(self) -> Drawing:
        found = self._reading.what
        numbers = None
        if found is not None:
            numbers = funnel_numbers(found.funnel, describe_counted(found.funnel, found.archive))
        steps = dearest_steps(self._report, self._language)
        return draw_graph(self._survey, self._language, steps, numbers)


def dearest_steps(report: LintReport | None, language: str) -> Sequence[str]:
    """The steps of the dearest path in a language, as far as it is proved."""
    bound = report.bounds.segments.get(language) if report is not None and report.bounds else None
    return [stop.step for stop in bound.path] if bound else []


def dearest_lines(report: LintReport | None) -> Sequence[tuple[str, str, str]]:
    """For each language: it, how many segments a session costs at most, and by which way."""
    if report is None or report.bounds is None:
        return ()
    return [
        (language, at_most(bound, "segment"), describe_path(bound.path))
        for language, bound in report.bounds.segments.items()
    ]


def describe_findings(report: LintReport) -> str:
    """`no findings`, `1 error, 2 warnings`."""
    errors, warnings = report.error_count, len(report.findings) - report.error_count
    told = [pluralize(errors, "error")] * bool(errors) + [pluralize(warnings, "warning")] * bool(warnings)
    return ", ".join(told) or "no findings"


def _step_rows(reading: SurveyReading) -> Sequence[StepRow]:
    sessions = reading.funnel.sessions
    return [
        StepRow(
            step=each.step,
            reached=each.reached,
            reached_share=format_share(each.reached, sessions),
            answered=f"{each.answered:,} ({format_share(each.answered, each.reached)})" if each.asks else "",
            misread=f"{each.misread_sessions:,} ({format_share(each.misread_sessions, each.reached)})"
            if each.misread_sessions
            else "",
            left=each.left_sessions,
            left_how=", ".join(f"{number:,} {readable_word(how)}" for how, number in each.left.items()),
            waiting=each.waiting,
            median=format_duration(each.median_s * 1000) if each.median_s is not None else "",
        )
        for each in reading.funnel.steps
    ]
