"""Providers as the deployment meets them: they take SMS, lose answers, and know an id again, or can be asked, or neither."""

from collections.abc import Callable, Container, Coroutine
from typing import Any, NamedTuple, TypeVar

from engine.model.events import OutboundSms
from engine.providers import (
    ChannelFault,
    OutcomeUnknown,
    Recourse,
    RetryLater,
    SendAccepted,
    SendOutcome,
    SendRejected,
    SmsNotFound,
)
from tests.simulated.world import faults
from tests.simulated.world.faults import Fault
from tests.simulated.world.ledger import Arrival, Ledger
from tests.simulated.world.scheduler import AnswerLater, Call, Process, Scheduler
from workers.sending.deadline_transport import ExchangeDeadline
from workers.sending.http_client import TRY_TIMEOUT_S
from workers.sending.send_policy import provider_health

CLOCK_DIFFERENCE_S = 300
"""How far a provider's clock may be from the deployment's, which a look-up allows for, as Twilio's does."""

LISTED_AFTER_US = 8_000_000
"""How long a provider may take to list what it has got: less than the deployment waits before it asks."""

T = TypeVar("T")

_NO_ANSWER = OutcomeUnknown("ReadTimeout", "no answer")


class Trouble(NamedTuple):
    """What is wrong with a provider: whatever it is asked, it answers `outcome`, after so many ms. If it `takes`, it takes an SMS
    all the same."""

    outcome: RetryLater | ChannelFault | OutcomeUnknown
    after_ms: int = 0
    takes: bool = False


def run_alone(work: Coroutine[Any, Any, T]) -> T:
    """Run what waits for no event loop, and return what it returns."""
    try:
        work.send(None)
    except StopIteration as e:
        answer: T = e.value
        return answer
    raise AssertionError("it waits for an event loop")


def _answer(outcome: SendOutcome, after_us: int) -> SendOutcome:
    """Answer so, at once or after a while. Raises AnswerLater."""
    if after_us:
        raise AnswerLater(after_us, outcome)
    return outcome


class SimulatedProvider:
    """One channel's provider. `deliver` is called with each SMS that a person gets."""

    def __init__(
        self,
        scheduler: Scheduler,
        channel: str,
        recourse: Recourse,
        ledger: Ledger,
        change: Callable[[], int],
        deliver: Callable[[OutboundSms], None],
    ) -> None:
        self.channel = channel
        self.recourse: Recourse = recourse
        self.scheduler = scheduler
        self.rejected_numbers: set[str] = set()
        """Numbers to which it takes no SMS."""
        self.trouble: Callable[[OutboundSms], Trouble | None] = lambda sms: None
        """What is wrong with it when it is asked to send this SMS, or for it."""
        self.answers_after_ms = 0
        """How long it takes to say that it has taken an SMS."""
        self._ledger = ledger
        self._change = change
        self._deliver = deliver
        self.watching: list[Callable[[Arrival], None]] = []
        """They are called with each SMS that it takes."""

    @property
    def taken(self) -> list[Arrival]:
        return [each for each in self._ledger.arrivals if each.channel == self.channel]

    def take(self, sms: OutboundSms) -> str:
        """Take an SMS, unless its id is known here; answer its ticket."""
        if (known := self._known_ticket(sms)) is not None:
            return known
        ticket = f"{self.channel}-{len(self._ledger.arrivals) + 1}"
        arrival = Arrival(self.channel, sms, ticket, self.scheduler.now_us, self._change())
        self._ledger.arrivals.append(arrival)
        self._deliver(sms)
        for watch in self.watching:
            watch(arrival)
        return ticket

    def _known_ticket(self, sms: OutboundSms) -> str | None:
        """The ticket of an SMS whose id the provider knows again."""
        if self.recourse != "repeat":
            return None
        return next((each.ticket for each in self.taken if each.sms.id == sms.id), None)

    def send(self, sms: OutboundSms, fault: Fault | None) -> SendOutcome:
        if sms.to in self.rejected_numbers:
            return SendRejected("400", "not this number")
        if (trouble := self.trouble(sms)) is not None:
            if trouble.takes:
                self.take(sms)
            return _answer(trouble.outcome, trouble.after_ms * 1_000)
        match fault.kind if fault is not None else "":
            case "refuse_sms" if (known := self._known_ticket(sms)) is not None:
                return SendAccepted(known)
            case "unavailable":
                return RetryLater("503", "not now")
            case "refuse_sms":
                return SendRejected("400", "not this one")
            case "account":
                return ChannelFault("402", "no credit")
            case "unknown_taken":
                self.take(sms)
                return _NO_ANSWER
            case "unknown_lost":
                return _NO_ANSWER
            case "taken_late" if fault is not None:
                at = self.scheduler.now_us + fault.amount * 1_000
                self.scheduler.at(at, lambda: self._take_late(sms))
                return _answer(_NO_ANSWER, round(TRY_TIMEOUT_S * 1_000_000))
            case _:
                return _answer(SendAccepted(self.take(sms)), self.answers_after_ms * 1_000)

    def look_up(self, sms: OutboundSms, since_s: float, known: Container[str]) -> SendAccepted | SmsNotFound:
        """Say whether an SMS like this one is there, sent since then, that is none of the known ones."""
        for each in self.taken:
            listed = each.at_us + LISTED_AFTER_US <= self.scheduler.now_us
            alike = each.sms.to == sms.to and each.sms.text == sms.text
            if (
                listed
                and alike
                and each.at_us / 1_000_000 >= since_s - CLOCK_DIFFERENCE_S
                and each.ticket not in known
            ):
                return SendAccepted(each.ticket)
        return SmsNotFound()

    def _take_late(self, sms: OutboundSms) -> None:
        self._ledger.taken_late.add(sms.id)
        self.take(sms)


class SimulatedProviderClient:
    """A process's client of a provider, instead of one that speaks HTTP. It waits in virtual time, and for no event loop."""

    def __init__(self, provider: SimulatedProvider, process: Process) -> None:
        self.recourse = provider.recourse
        self._provider = provider
        self._process = process

    def close(self) -> None:
        pass

    async def send(self, sms: OutboundSms, deadline: ExchangeDeadline) -> SendOutcome | None:
        scheduler = self._process.scheduler

        def perform(fault: Fault | None) -> SendOutcome | None:
            if scheduler.now_us / 1_000_000 > deadline.first_byte_s:
                return None
            return self._provider.send(sms, fault)

        outcome: SendOutcome | None = scheduler.call(
            Call(f"{self._provider.channel} send {sms.id}", perform, faults.PROVIDER, 8.0)
        )
        return outcome

    async def look_up(
        self, sms: OutboundSms, since: float, known: Container[str], answer_by_s: float
    ) -> SendOutcome | SmsNotFound:
        scheduler = self._process.scheduler

        def perform(fault: Fault | None) -> SendOutcome | SmsNotFound:
            left_us = round(answer_by_s * 1_000_000) - scheduler.now_us
            if left_us < 0 or (fault is not None and fault.kind == "unknown_lost"):
                return _NO_ANSWER
            if fault is not None and fault.kind == "unavailable":
                return RetryLater("503", "not now")
            trouble = self._provider.trouble(sms)
            if trouble is not None and provider_health(trouble.outcome) != "works":
                after_us = trouble.after_ms * 1_000
                return _answer(trouble.outcome if after_us < left_us else _NO_ANSWER, min(after_us, left_us))
            return self._provider.look_up(sms, since, known)

        found: SendOutcome | SmsNotFound = scheduler.call(
            Call(f"{self._provider.channel} look_up {sms.id}", perform, faults.PROVIDER[:5:4], 8.0)
        )
        return found

    def metric_code(self, code: str) -> str:
        return code
