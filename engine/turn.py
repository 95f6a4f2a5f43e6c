"""What a call of `advance` comes to, gathered while it is decided.

Everything that is said goes through `say` or `tell`, so that every SMS has its id and its record.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime

from engine.events import Ended, Ending, Outbound, Record, Said, Unsent
from engine.lane import Lane, Line, Session
from engine.policy import ChannelPolicy, Policy
from engine.program import FixedText, Survey
from engine.surveys import Surveys
from engine.texts import fill

HOUR_MS = 3_600_000
DAY_MS = 86_400_000


class UnknownVersion(Exception):
    """An open session is pinned to a version of a survey that this process was not given."""


class UnknownStep(Exception):
    """An open session waits at a step that asks nothing. Its state is corrupt."""


class UnknownChannel(Exception):
    """An event came in on a channel that has no policy."""


class Turn:
    """`now` is the time of what is being applied; `cause` the id of the event, empty for a deadline."""

    __slots__ = (
        "_replies", "cause", "duplicates", "lane", "now", "opened", "outbox", "policy", "records", "sender",
        "silenced", "surveys",
    )  # fmt: skip

    def __init__(self, lane: Lane, sender: str, surveys: Surveys, policy: Policy) -> None:
        self.lane = lane
        self.sender = sender
        self.surveys = surveys
        self.policy = policy
        self.now = lane.clock
        self.cause = ""
        self.outbox: list[Outbound] = []
        self.records: list[Record] = []
        self.silenced: list[str] = []
        self.opened: dict[str, int] = {}
        self.duplicates = 0
        self._replies = 0

    def begin(self, now: int, cause: str = "") -> None:
        """From here on, what happens is caused by this event, or by a deadline."""
        self.now = self.lane.clock = now
        self.cause = cause
        self._replies = 0

    def channel_policy(self, channel: str) -> ChannelPolicy:
        try:
            return self.policy[channel]
        except KeyError:
            raise UnknownChannel(f"no channel is called '{channel}'") from None

    def survey_of(self, session: Session) -> Survey:
        """The very version that the session began with."""
        survey = self.surveys.version(session.version)
        if survey is None:
            raise UnknownVersion(f"version {session.version} of the survey '{session.survey}' is not known")
        return survey

    def today(self, channel: str) -> date:
        """The day, on the channel's calendar."""
        moment = datetime.fromtimestamp(self.now / 1000, UTC)
        return moment.astimezone(self.channel_policy(channel).timezone).date()

    def say(self, channel: str, session: Session, step: str, text: str) -> None:
        """One SMS of a session."""
        identity = f"{session.id}x{session.said}"
        session.said += 1
        self._send(Outbound(identity, channel, self.sender, text, session.id), step)

    def tell(self, channel: str, line: Line, name: FixedText, survey: Survey | None) -> bool:
        """A fixed text in answer to the event, outside any session; False if the survey has none by this name.

        In the language of the last session, if the text has it.
        """
        if survey is None or name not in survey.texts:
            return False
        wordings = survey.texts[name]
        text = fill(wordings.get(line.language) or wordings[survey.languages[0]], {})
        self._send(Outbound(f"{self.cause}r{self._replies}", channel, self.sender, text), name)
        self._replies += 1
        return True

    def tell_sometimes(
        self, channel: str, line: Line, name: FixedText, survey: Survey | None, every_ms: int = HOUR_MS
    ) -> None:
        """`tell`, unless the same was told so little ago that two robots might be talking."""
        last = line.told.get(name)
        if (last is None or self.now - last >= every_ms) and self.tell(channel, line, name, survey):
            line.told[name] = self.now

    def end(self, channel: str, line: Line, session: Session, how: Ending) -> None:
        """The line's open session is over."""
        line.session = None
        line.ended_at, line.ended_how, line.ended_survey = self.now, how, session.survey
        self.records.append(Ended(self.now, channel, session.id, how))

    def silence(self, channel: str) -> None:
        """Withdraw whatever has not left on the channel."""
        if channel not in self.silenced:
            self.silenced.append(channel)
        withdrawn = [sms for sms in self.outbox if sms.channel == channel]
        self.outbox = [sms for sms in self.outbox if sms.channel != channel]
        self.records += [
            Unsent(self.now, channel, sms.session, sms.id, "stopped", "withdrawn by a STOP")
            for sms in withdrawn
        ]

    def line_survey(self, line: Line, offered: Sequence[str]) -> Survey | None:
        """Whose fixed texts answer a person who has no session: the last survey's, else the channel's first."""
        names = (line.ended_survey, *offered) if line.ended_survey else offered
        return next((survey for name in names if (survey := self.surveys.current(name))), None)

    def _send(self, sms: Outbound, step: str) -> None:
        self.outbox.append(sms)
        self.records.append(Said(self.now, sms.channel, sms.session, sms.id, step, sms.text))
