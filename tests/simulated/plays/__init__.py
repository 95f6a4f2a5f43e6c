"""The plays, by name."""

from tests.simulated.plays.absent_workers import ABSENT_WORKERS
from tests.simulated.plays.archived_conversation import ARCHIVED_DAYS, ARCHIVED_MINUTE
from tests.simulated.plays.bad_release import BAD_RELEASE
from tests.simulated.plays.campaign import CAMPAIGN, REPLICATED_CAMPAIGN
from tests.simulated.plays.conversation import (
    CLUSTERED,
    CROWD,
    DOUBTFUL,
    FAILING_OVER,
    LONE_CONVERSATION,
    REPLICATED,
    RINGING,
    STOPPING,
    TALKATIVE,
    UNCERTAIN,
    WRONG_CLOCK,
)
from tests.simulated.plays.dead_letters import KILLING, RAISING, REJECTED
from tests.simulated.plays.erasure import ERASURE
from tests.simulated.plays.impatient import IMPATIENT
from tests.simulated.plays.late_answers import LATE_ANSWERS
from tests.simulated.plays.limited import LIMITED
from tests.simulated.plays.opting_out import OPTING_OUT
from tests.simulated.plays.outage import OUTAGE, OUTAGE_AND_FAULTS
from tests.simulated.plays.paced import PACED
from tests.simulated.plays.play import Play
from tests.simulated.plays.set_clocks import DAYS_AHEAD, REFILLING
from tests.simulated.plays.spooling import SPOOLING
from tests.simulated.plays.unreadable import UNREADABLE
from tests.simulated.plays.webhook_answers import REPLICATED_ANSWERS, WEBHOOK_ANSWERS
from tests.simulated.plays.withdrawing import WITHDRAWING

PLAYS: dict[str, Play] = {
    play.name: play
    for play in (
        LONE_CONVERSATION, DOUBTFUL, STOPPING, CROWD, FAILING_OVER, REPLICATED, WRONG_CLOCK, UNCERTAIN, TALKATIVE,
        WEBHOOK_ANSWERS, SPOOLING, RAISING, KILLING, REJECTED, ERASURE, CAMPAIGN, OPTING_OUT, LIMITED,
        BAD_RELEASE, UNREADABLE, OUTAGE, OUTAGE_AND_FAULTS, PACED, WITHDRAWING, ARCHIVED_MINUTE, ARCHIVED_DAYS,
        ABSENT_WORKERS, IMPATIENT,
        DAYS_AHEAD, REFILLING, LATE_ANSWERS,
        REPLICATED_ANSWERS, REPLICATED_CAMPAIGN, CLUSTERED, RINGING,
    )
}  # fmt: skip

SEEDS_A_RUN = {
    OUTAGE.name: 4,
    OUTAGE_AND_FAULTS.name: 4,
    PACED.name: 4,
    ARCHIVED_MINUTE.name: 4,
    ARCHIVED_DAYS.name: 32,
}
"""Of plays that take long, only every so manieth seed is tried when all are."""
