"""One sentence says why nothing happens with a person, or what happens next: a table of situations, and their sentences."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.store.pauses import StoredPause
from config.store.stored_values import StoredLock
from engine.model.events import OpeningRefused
from workers.diagnosis.diagnose import Severity, diagnose
from workers.diagnosis.sender_snapshot import (
    ChannelStatus,
    ConversationStatus,
    DeadLetterSummary,
    IncompleteSms,
    OpenSession,
    OptOutStatus,
    QueuedSms,
    QueuePosition,
    SenderSnapshot,
    UpcomingDeadline,
    WaitingInvitation,
    WaitingMail,
)
from workers.store.dead_letter_store import FailedAttempt

NOW = 1_795_283_600_000
S, MIN, H = 1_000, 60_000, 3_600_000
ALIVE = {"web": 1, "ratelimit": 1, "conversation": 2, "delivery": 1, "clock": 1}
QUEUES = {name: QueuePosition(0, 0) for name in ("starts", "replies", "outbound")}
CLINIC = ChannelStatus(timezone="UTC", sms_per_second=10)


def person(**known):
    """Somebody of whom nothing is known but that, where all runs well."""
    base = SenderSnapshot(
        sender="+33600000001", shard=3, now=NOW, alive=ALIVE, queues=QUEUES, channels={"clinic": CLINIC}
    )
    return msgspec.structs.replace(base, **known)


def without(*roles):
    return {role: count for role, count in ALIVE.items() if role not in roles}


def lock(*, since_ms, attempts=1, owner="ab", lease_ms=5 * S, fence=7):
    return StoredLock(fence, NOW - since_ms + lease_ms, attempts, NOW, owner)


def rest(owner, for_ms, attempts=0):
    return StoredLock(0, NOW + for_ms, attempts, NOW, owner)


def mail(*, count=1, age=0, kind="sms", alarm=2 * S, may_be_stop=False, **more):
    queue = "starts" if kind in ("start", "invitation") else "replies"
    waiting = [WaitingMail(kind, NOW - age, "clinic", "yes", queue, may_be_stop)] * count
    return {"mail": waiting, "mail_count": count, "alarm": None if alarm is None else NOW + alarm} | more


def sms(*, count=1, alarm=2 * S, channel="clinic", **more):
    outbox = [QueuedSms(channel, f"1x{n}", "How old?", "1", NOW - 10 * S) for n in range(count)]
    return {
        "outbox": outbox, "outbox_count": count, "outbox_alarm": None if alarm is None else NOW + alarm
    } | more  # fmt: skip


def session(*, ahead=((7 * MIN, "idle"), (3 * H, "expired")), problem="", touched=3 * MIN, **more):
    opened = OpenSession(
        id="1", survey="clinic", version="ab", current=True, step="temperature", language="en",
        opened_at=NOW - H, touched_at=NOW - touched, misread=0, problem=problem,
        ahead=[UpcomingDeadline(NOW + at, what) for at, what in ahead],
    )  # fmt: skip
    deadline = NOW + ahead[0][0]
    known = {"remembers": True, "clock": NOW - touched, "alarm": deadline, "deadline": deadline}
    return known | {"threads": [thread(session=opened)]} | more


def thread(**fields):
    none = {
        "channel": "clinic",
        "originator": "",
        "session": None,
        "ended_at": 0,
        "ended_how": None,
        "ended_survey": "",
    }
    return ConversationStatus(**none | fields)


def rung(queue, *, place=0, since=0, depth=1):
    return QUEUES | {queue: QueuePosition(depth, since, place, since)}


def paused(by, *, why="carrier incident", until=0, who=""):
    pause = StoredPause(by=by, why=why, since=NOW - 2 * H, who=who)
    return {"clinic": msgspec.structs.replace(CLINIC, pause=pause, pause_until=until and NOW + until)}


def letter(age, kind="event"):
    return [DeadLetterSummary("e1", kind, "engine_error", NOW - age, "clinic", "1", "boom")]


WRONG, HELD_UP, NORMAL, QUIET = Severity.WRONG, Severity.HELD_UP, Severity.NORMAL, Severity.QUIET

CASES = {
    # nobody knows them, or nothing is under way
    "unknown": (person(), QUIET, "Nothing is known of this number"),
    "only remembered": (person(remembers=True), QUIET, "Nothing waits and nothing is under way; no session is open."),
    "ended": (
        person(remembers=True, threads=[thread(ended_at=NOW - 3 * MIN, ended_how="completed", ended_survey="clinic")]),
        QUIET, "the last session, of clinic, ended 3 min ago, as its last step was reached. A START begins another.",
    ),
    "cools down": (
        person(
            remembers=True,
            threads=[
                thread(ended_at=NOW - MIN, ended_how="completed", ended_survey="clinic", cools={"clinic": NOW + H})
            ],
        ),
        QUIET, "A START begins another (clinic not for another 1 h).",
    ),
    # the lane and its mail
    "in hands": (person(**mail(), lock=lock(since_ms=200)), NORMAL, "A worker has it in its hands at this moment."),
    "not back": (
        person(**mail(age=3 * S), lock=lock(since_ms=3 * S)),
        HELD_UP,
        ("A worker that claimed it 3 s ago has not come back; an SMS waits in the mailbox, for 3 s; it is taken up "
        "again in 2 s."),
    ),
    "not back again": (
        person(**mail(age=9 * S), lock=lock(since_ms=200, attempts=3)),
        HELD_UP, "has not come back (attempt 3 of 5)",
    ),
    "outlives workers": (person(**mail(), lock=lock(since_ms=0, attempts=6)), HELD_UP, "has outlived 5 workers"),
    "abandoned": (
        person(**mail(age=12 * S, alarm=S), lock=lock(since_ms=12 * S)),
        HELD_UP,
        ("A worker that claimed it 12 s ago never came back; an SMS waits in the mailbox, for 12 s; a worker is rung "
        "for, or the clock rings in 1 s."),
    ),
    "abandoned and no clock": (
        person(**mail(age=12 * S, alarm=-7 * S), lock=lock(since_ms=12 * S), alive=without("clock")),
        WRONG, "the clock should have rung 7 s ago and has not: is `clock` running? No such process has been heard of.",
    ),
    "replayed": (person(lock=lock(since_ms=0, attempts=0, owner="replay-1")), NORMAL, "An operator replays"),
    "a replay was cut short, which is nobody's fault": (
        person(**mail(age=9 * S), lock=lock(since_ms=9 * S, attempts=0, owner="replay-1")),
        NORMAL,
        "An SMS waits in the mailbox, for 9 s; a worker is rung for",
    ),
    "just came": (person(**mail(), queues=rung("replies")), NORMAL, "a worker is rung for, first in its queue."),
    "no conversation": (
        person(
            **mail(count=12, age=40 * S), queues=rung("replies", since=40 * S), alive=without("conversation"),
            heard={"conversation": NOW - 3 * MIN},
        ),
        WRONG,
        ("12 events wait in the mailbox, the oldest for 40 s; a worker has been rung for 40 s: is `conversation` running? "
        "No such process has been heard of for 3 min."),
    ),
    "no conversation, not rung now": (
        person(**mail(age=40 * S), alive=without("conversation")),
        WRONG, "the clock rings again in 2 s, but nobody comes: is `conversation` running?",
    ),
    "no ratelimit": (
        person(**mail(kind="start", age=5 * S), queues=rung("starts", since=5 * S), alive=without("ratelimit")),
        WRONG, "A START waits in the mailbox, for 5 s; a worker has been rung for 5 s: is `ratelimit` running?",
    ),
    "an invitation, no ratelimit": (
        person(**mail(kind="invitation", age=5 * S), alive=without("ratelimit")),
        WRONG,
        "An invitation waits in the mailbox, for 5 s; the clock rings again in 2 s, but nobody comes: is `ratelimit`",
    ),
    "START rung as a reply": (
        person(**mail(kind="start", age=5 * S), queues=rung("replies"), alive=without("conversation")),
        WRONG, "is `conversation` running?",
    ),
    "a STOP, no ratelimit": (
        person(
            **mail(count=2, kind="start", age=5 * S, may_be_stop=True), queues=rung("starts", since=5 * S), alive=without("ratelimit"),
        ),
        NORMAL, "2 events wait in the mailbox, the oldest for 5 s; a worker is rung for, or the clock rings in 2 s.",
    ),
    "a STOP, no conversation": (
        person(**mail(age=5 * S, may_be_stop=True), alive=without("conversation")), NORMAL, "or the clock rings in 2 s.",
    ),
    "a STOP, nobody": (
        person(**mail(age=5 * S, may_be_stop=True), alive=without("conversation", "ratelimit")),
        WRONG, "but nobody comes: is `conversation` running?",
    ),
    "behind others": (
        person(**mail(age=20 * S), queues=rung("replies", place=120, since=20 * S, depth=300)),
        HELD_UP, "behind 120 others: 2 `conversation` live, and are busy with others, or stuck",
    ),
    "a worker that is silent": (
        person(
            **mail(age=20 * S), queues=rung("replies", since=14 * S), heard={"conversation": NOW - 15 * S}
        ),
        HELD_UP, "first in its queue: no `conversation` has been heard of for 15 s, it may be gone.",
    ),
    "nobody takes it": (person(**mail(age=30 * S)), HELD_UP, "a worker is rung for, or the clock rings in 2 s."),
    "no clock, due": (person(**mail(age=30 * S, alarm=-28 * S)), WRONG, "should have rung 28 s ago and has not"),
    "no clock, not due yet": (person(**mail(), alive=without("clock")), WRONG, "the clock should ring in 2 s"),
    "mail without alarm": (
        person(**mail(alarm=None)),
        WRONG, "which cannot be explained; `redis-cli ZADD '{3}:alarms' 0 +33600000001` sets one.",
    ),
    "deadline overdue": (
        person(**session(ahead=((-20 * S, "idle"),)) | {"alarm": NOW - 20 * S}),
        WRONG, "What was to happen 20 s ago is due; the clock should have rung 20 s ago",
    ),
    "deadline without alarm": (
        person(**session() | {"alarm": None}),
        WRONG, "Something is to happen in 7 min, but no alarm is set, which cannot be explained",
    ),
    "deadline with a late alarm": (
        person(**session() | {"alarm": NOW + H}), WRONG, "but its alarm is set for 1 h from now",
    ),
    # the outbox
    "paused by an operator": (
        person(**sms(count=2), channels=paused("operator"), outbox_lock=rest("untried", 50 * S)),
        HELD_UP,
        ('The clinic channel is paused by an operator since 15:53 UTC ("carrier incident"); 2 SMS wait; '
        "`parley channel resume clinic`."),
    ),
    "paused by somebody for a while": (
        person(**sms(), channels=paused("operator", until=H, who="anna@ops")),
        HELD_UP, "by an operator, anna@ops since 15:53 UTC until 18:53 UTC",
    ),
    "circuit open": (
        person(**sms(), channels=paused("circuit", why="500: Impossible", until=40 * S)),
        HELD_UP,
        ('The clinic channel is paused since 15:53 UTC, as its provider fails ("500: Impossible"); 1 SMS waits; one SMS tries '
        "again in 40 s."),
    ),
    "account refused": (
        person(**sms(), channels=paused("account", why="101", until=S)),
        HELD_UP,
        ('as its provider refuses the account ("101"); 1 SMS waits; one SMS tries again in 1 s by itself, or at once by '
        "`parley channel resume clinic`."),
    ),
    "being sent": (
        person(**sms(), outbox_lock=lock(since_ms=300, lease_ms=15 * S)),
        NORMAL, "An SMS is being sent, for 0.3 s now; 1 SMS waits.",
    ),
    "sender not back": (
        person(**sms(), outbox_lock=lock(since_ms=12 * S, lease_ms=15 * S)),
        HELD_UP, "began to send an SMS 12 s ago has not come back; 1 SMS waits; it is taken up again in 3 s.",
    ),
    "sender dead": (
        person(**sms(), outbox_lock=lock(since_ms=16 * S, lease_ms=15 * S)),
        HELD_UP, "never came back, so the provider may have it; 1 SMS waits; a worker is rung for, or the clock",
    ),
    "tried in vain": (
        person(
            **sms(), outbox_lock=rest("again", 2 * MIN, attempts=3),
            tries=[FailedAttempt(NOW - MIN, "500", "Impossible to process")],
        ),
        HELD_UP, "the last try failed 1 min ago (500: Impossible to process); try 4 of 20 is in 2 min.",
    ),
    "uncertain": (
        person(**sms(), outbox_lock=rest("again?", 9 * S, attempts=1)), HELD_UP, "the provider may have it",
    ),
    "booked": (
        person(**sms(), outbox_lock=rest("booked12", 3 * MIN)),
        HELD_UP, "1 SMS waits for a turn at the channel's 10 SMS a second: the next leaves in 3 min.",
    ),
    "pause between two": (person(**sms(), outbox_lock=rest("done", 2 * S)), NORMAL, "the next leaves in 2 s."),
    "held back": (person(**sms(), outbox_lock=rest("untried", 50 * S)), HELD_UP, "the channel held it back"),
    "reserved": (person(**sms(), outbox_lock=rest("reserved ab", S)), NORMAL, "for the answer to a webhook"),
    "entrusted": (person(**sms(), outbox_lock=rest("entrusted ab?", 9 * S)), HELD_UP, "has not confirmed it"),
    "at rest, unknown why": (
        person(**sms(), outbox_lock=rest("mystery", 9 * S)),
        HELD_UP, "why cannot be explained (it was left as 'mystery').",
    ),
    "at rest without alarm": (
        person(**sms(alarm=None), outbox_lock=rest("again", 9 * S)), WRONG, "ZADD '{3}:outbox-alarms' 0 +33600000001",
    ),
    "no delivery": (
        person(**sms(), queues=rung("outbound", since=8 * S), alive=without("delivery")),
        WRONG, "1 SMS waits to leave; a worker has been rung for 8 s: is `delivery` running?",
    ),
    "channel gone": (person(**sms(channel="gone")), WRONG, "the channel gone, which is not configured"),
    # what waits for the person or for a moment
    "asked": (
        person(**session()), NORMAL, "Waits for an answer to `temperature` of clinic; ends by silence in 7 min.",
    ),
    "to be reminded": (person(**session(ahead=((2 * H, "remind"),))), NORMAL, "they are reminded in 2 h."),
    "asked, no clock": (
        person(**session(), alive=without("clock")), HELD_UP, "ends by silence in 7 min, if `clock` runs by then.",
    ),
    "asked on a paused channel": (
        person(**session(), channels=paused("operator")), NORMAL, "Waits for an answer to `temperature`",
    ),
    "version lost": (person(**session(problem="version ab is lost")), WRONG, "is open, but version ab is lost"),
    "parts": (
        person(remembers=True, gathered=[IncompleteSms("clinic", 1, 3, NOW + MIN)]),
        NORMAL, "1 of 3 parts of a long SMS have come; without the others it is taken as it is in 1 min.",
    ),
    "invited": (
        person(invitations=[WaitingInvitation("1", "clinic", "clinic", NOW - H, NOW - H)]),
        NORMAL, "An invitation to clinic on clinic has waited for 1 h; its turn comes at the channel's pace.",
    ),
    "invited for later": (
        person(invitations=[WaitingInvitation("1", "clinic", "clinic", NOW, NOW + H)]), NORMAL, "not sent before 1 h from now",
    ),
    "invited on a paused channel": (
        person(invitations=[WaitingInvitation("1", "clinic", "clinic", NOW, NOW)], channels=paused("operator")),
        HELD_UP, "paused by an operator",
    ),
    "invited in quiet hours": (
        person(
            invitations=[WaitingInvitation("1", "clinic", "clinic", NOW, NOW)],
            channels={"clinic": msgspec.structs.replace(CLINIC, quiet_until=NOW + H)},
        ),
        NORMAL, "it is quiet where they are, for 1 h",
    ),
    "invited when the day is spent": (
        person(
            invitations=[WaitingInvitation("1", "clinic", "clinic", NOW, NOW)],
            channels={"clinic": msgspec.structs.replace(CLINIC, sms_per_day=5, sms_today=5)},
        ),
        HELD_UP, "the channel has spent the day's SMS (5 of 5)",
    ),
    "invited, others first": (
        person(
            invitations=[WaitingInvitation("1", "clinic", "clinic", NOW, NOW)], queues=QUEUES | {"replies": QueuePosition(900, S)}
        ),
        HELD_UP, "900 lanes wait for workers",
    ),
    "invited, no clock": (
        person(invitations=[WaitingInvitation("1", "clinic", "clinic", NOW, NOW)], alive=without("clock")),
        WRONG, "is `clock` running, which releases it?",
    ),
    "invited on no channel": (
        person(invitations=[WaitingInvitation("1", "gone", "clinic", NOW, NOW)]), WRONG, "no channel is called so",
    ),
    "opted out": (
        person(opt_outs=[OptOutStatus("clinic", NOW - H, "import march.csv")]),
        NORMAL, "They opted out of clinic 1 h ago, by the word of import march.csv: nothing is sent on it until",
    ),
    "opted out, as only the list knows": (
        person(remembers=True, opt_outs=[OptOutStatus("clinic", NOW - H, "import march.csv")]),
        HELD_UP,
        "The list of opt-outs has them for clinic, but their lane does not know it: what is open goes on.",
    ),
    "throttled": (
        person(
            remembers=True, records=[OpeningRefused(NOW - 20 * S, "clinic", "1", "throttled")],
            threads=[thread(starts_left=0, next_start_at=NOW + 40 * S)],
        ),
        NORMAL, "opened nothing: too many STARTs came in a short while; the next START is let through in 40 s.",
    ),
    "capped": (
        person(
            remembers=True, records=[OpeningRefused(NOW - MIN, "clinic", "1", "daily_cap")],
            threads=[thread(opened_today=5, most_today=5)],
        ),
        NORMAL, "as many sessions today as the channel allows (5 of 5)",
    ),
    "refused as the day's SMS are spent": (
        person(
            remembers=True, records=[OpeningRefused(NOW - MIN, "clinic", "1", "sms_budget")], threads=[thread()],
            channels={"clinic": msgspec.structs.replace(CLINIC, sms_per_day=12, sms_today=12)},
        ),
        NORMAL, "the channel has spent the day's SMS (12 of 12); the day ends at midnight of the channel's time zone.",
    ),
    "refused to cool down": (
        person(
            remembers=True, records=[OpeningRefused(NOW - MIN, "clinic", "1", "cooldown")],
            threads=[thread(ended_at=NOW - H, ended_how="completed", cools={"clinic": NOW + H})],
        ),
        NORMAL, "clinic may begin again in 1 h.",
    ),
    "refused long before a session": (
        person(**session() | {"records": [OpeningRefused(NOW - H, "clinic", "1", "throttled")]}),
        NORMAL, "Waits for an answer",
    ),
    # what went wrong
    "their answer is a dead letter": (
        person(**session(), dead=letter(MIN)),
        HELD_UP,
        ("A dead letter is theirs, the last 1 min ago: what they sent could not be handled (engine_error); "
        "`parley dead show e1`."),
    ),
    "an old dead letter": (person(**session(), dead=letter(H)), NORMAL, "Waits for an answer to `temperature`"),
    "an SMS is a dead letter": (
        person(remembers=True, dead=letter(MIN, "sms")), HELD_UP, "an SMS to them could not be handled",
    ),
    "state unreadable": (
        person(remembers=True, state_unreadable="format 9"), WRONG, "cannot be read by this release (format 9)",
    ),
    "something unreadable": (person(unreadable=["the lane's lock"]), HELD_UP, "Something is damaged: the lane's lock."),
    "broker away": (
        person(**mail(age=5 * S), broker="TimeoutError", queues={}),
        WRONG, "The Redis of the wake-ups does not answer (TimeoutError)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_situation_has_its_sentence(name):
    situation, weight, sentence = CASES[name]
    diagnosis = diagnose(situation)
    assert sentence in diagnosis.sentence
    assert diagnosis.severity == weight
    assert diagnosis.sentence[0].isupper() or diagnosis.sentence[0].isdigit()
    assert diagnosis.sentence.endswith(".")
    assert ".." not in diagnosis.sentence


def test_the_gravest_comes_first_and_the_others_are_told_too():
    diagnosis = diagnose(
        person(
            **session(), dead=letter(MIN), outbox=[QueuedSms("clinic", "1x0")], outbox_count=1, outbox_alarm=NOW + S,
            alive=without("delivery"),
        )
    )  # fmt: skip
    assert "is `delivery` running" in diagnosis.sentence
    assert [each.split()[0] for each in diagnosis.also] == ["Waits", "A"]


def test_what_waits_for_mail_that_may_be_a_stop_says_so():
    diagnosis = diagnose(person(**sms(), **mail(may_be_stop=True)))
    assert diagnosis.severity == NORMAL
    assert diagnosis.also == [
        "1 SMS waits until their mail is read, which may be a STOP; a worker is rung for, or the clock rings in 2 s."
    ]


def some(*choices):
    return st.sampled_from([{}, *choices])


@given(
    st.tuples(
        some(mail(), mail(kind="start", age=H, alarm=-H), mail(count=9, alarm=None)),
        some(
            sms(),
            sms(channel="gone", alarm=-H),
            sms(alarm=None, outbox_lock=rest("done", S)),
            sms(outbox_lock=lock(since_ms=H, lease_ms=15 * S)),
        ),
        some(session(), session(problem="lost"), session(ahead=((-H, "idle"),))),
        some({"lock": lock(since_ms=S)}, {"lock": lock(since_ms=H, attempts=4)}),
        some({"alive": {}}, {"alive": without("clock")}),
        some({"queues": {}, "broker": "TimeoutError"}, {"queues": rung("replies", since=H)}),
        some({"channels": paused("operator")}, {"channels": paused("circuit", until=S)}, {"channels": {}}),
        some(
            {"dead": letter(S)},
            {"state_unreadable": "format 9"},
            {"opt_outs": [OptOutStatus("clinic", NOW, in_lane=True)]},
        ),
    )
)
def test_whatever_the_situation_what_waits_is_told(parts):
    """No mixture of them is passed over in silence, nor taken for rest."""
    known = {name: value for part in parts for name, value in part.items()}
    situation = person(**known)
    diagnosis = diagnose(situation)
    told = " ".join([diagnosis.sentence, *diagnosis.also])
    waits = situation.mail_count or situation.outbox_count or situation.open_sessions or situation.dead
    assert diagnosis.severity > QUIET or not waits
    if situation.outbox_count:
        assert re.search(r"\bSMS waits?\b", told)
    if situation.mail_count and situation.lock is None:
        assert "in the mailbox" in told
    if situation.dead:
        assert "parley dead show" in told
    if situation.broker:
        assert diagnosis.severity == WRONG
