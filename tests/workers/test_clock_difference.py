"""What a worker makes of a server's clock that is not its own."""

import pytest

from config.host import Host
from engine.model.events import InboundSms, Mail
from workers.store.clock_difference import AGREED, ClockVerdict, ServerClockJudge

NOW, HOUR, DAY = 1_795_283_600_000, 3_600_000, 86_400_000


class Clocks:
    """The server's, this machine's, and one that nobody sets, all of which go on."""

    def __init__(self):
        self.server = self.own = NOW
        self.seconds = 5.0
        self.judge = ServerClockJudge(Host(wall_s=lambda: self.own / 1_000, monotonic_s=lambda: self.seconds))

    def go_on(self, ms):
        self.server, self.own, self.seconds = self.server + ms, self.own + ms, self.seconds + ms / 1_000

    def say(self):
        return self.judge.judge(self.server)


@pytest.fixture
def clocks():
    return Clocks()


@pytest.mark.parametrize("off", [0, 999, -30_000, 30_000])
def test_clocks_that_nearly_agree_are_the_servers(clocks, off):
    clocks.own += off
    assert clocks.say() == AGREED


@pytest.mark.parametrize("off", [30_001, -30_001, HOUR, -31 * DAY])
def test_while_they_differ_no_deadline_fires_and_nobody_knows_which_is_right(clocks, off):
    clocks.own += off
    assert clocks.say() == ClockVerdict(hold_deadlines=True)
    clocks.own -= off
    assert clocks.say() == AGREED


@pytest.mark.parametrize("step", [HOUR, -HOUR, 31 * DAY])
def test_a_server_whose_clock_was_set_is_known_and_its_moments_are_mended(clocks, step):
    clocks.say()
    clocks.go_on(5 * HOUR)
    clocks.server += step
    assert clocks.say() == ClockVerdict(True, -step, agreed_ms=NOW)
    clocks.go_on(1_000)
    assert clocks.say().correction_ms == -step
    clocks.server -= step
    assert clocks.say() == AGREED


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_machine_whose_own_clock_was_set_believes_the_server(clocks, step):
    clocks.say()
    clocks.go_on(1_000)
    clocks.own += step
    assert clocks.say() == ClockVerdict(hold_deadlines=True)


@pytest.mark.parametrize("waits_ms", [1_000, 75_000, HOUR])
def test_an_answer_that_is_read_late_is_no_difference(clocks, waits_ms):
    clocks.say()
    asked_s, said = clocks.judge.asked_at_s(), clocks.server
    clocks.go_on(waits_ms)
    assert clocks.judge.judge(said, asked_s) == AGREED
    assert clocks.say() == AGREED


def test_a_step_that_is_read_late_is_as_long_as_it_is(clocks):
    clocks.say()
    asked_s, said = clocks.judge.asked_at_s(), clocks.server - HOUR
    clocks.go_on(75_000)
    assert clocks.judge.judge(said, asked_s) == ClockVerdict(True, HOUR, agreed_ms=NOW)


def mail(at):
    return Mail(at, InboundSms("1", "clinic", "Ada", False))


@pytest.mark.parametrize(
    "server, correction, accepted, right",
    [
        (NOW + HOUR, -HOUR, NOW + HOUR - 5, NOW - 5),  # while it was ahead
        (NOW + HOUR, -HOUR, NOW - 5, NOW - 5),  # before
        (NOW + HOUR, -HOUR, NOW + 40_000, NOW - 10),  # while it was ahead by less
        (NOW - HOUR, HOUR, NOW - HOUR - 5, NOW - 5),  # while it was behind
        (NOW - HOUR, HOUR, NOW - 5, NOW - 5),  # before
        (NOW, 0, NOW - 5, NOW - 5),
    ],
)
def test_an_event_has_come_when_it_has(server, correction, accepted, right):
    assert ClockVerdict(True, correction, agreed_ms=NOW - 10).corrected(mail(accepted), server) == mail(right)
