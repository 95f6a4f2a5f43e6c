"""Of a cluster, what is spooled for a server that is away keeps nobody waiting whose shard is on another, and no order is lost."""

import asyncio
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.store import keyspace
from config.telemetry import metrics
from engine.model.events import InboundSms, decode_inbound, encode_event
from ingest.intake import shard_drain
from ingest.intake.mailboxes import (
    AsyncRedisClient,
    InboundItem,
    MailboxWriter,
    RedisAndSpoolUnavailableError,
    RedisUnavailableError,
    WrongRedisTypeError,
)
from ingest.intake.shard_marks import ShardMarks
from ingest.intake.spool import DONE_MARK, Spool, SpooledEvent, open_spool
from ingest.intake.spool_drain import SpoolDrain

SHARDS, SERVERS = 6, 3
MOST = 1 << 20
NOW = 1_795_000_000_000


def sender_of(shard, nth=0):
    found = (f"+336{number:08}" for number in range(10_000))
    return [number for number in found if keyspace.shard_of(number, SHARDS) == shard][nth]


SENDERS = [sender_of(shard, nth) for shard in range(SHARDS) for nth in range(2)]


def server_of(sender):
    return keyspace.shard_of(sender, SHARDS) % SERVERS


LOOP = asyncio.new_event_loop()
"""Of all processes that the tests make, one at a time."""


class Death(BaseException):
    """Of a process."""


class Cluster:
    """Lanes of which some servers are away, and what is in their mailboxes."""

    is_cluster = True

    def __init__(self):
        self.away = set()
        self.mail = defaultdict(list)
        self.wrong = set()
        self.asked = 0

    def server_of(self, key):
        return int(key[1 : key.index("}")]) % SERVERS

    async def find_silent(self, keys):
        self.asked += 1
        return {key: RedisUnavailableError("away") for key in keys if self.server_of(key) in self.away}

    def take(self, sender, event):
        """Why it does not."""
        if server_of(sender) in self.away:
            return RedisUnavailableError("away")
        if sender in self.wrong:
            return WrongRedisTypeError("WRONGTYPE")
        self.mail[sender].append(event)
        return None

    async def close(self):
        pass


class FakedMailboxes(MailboxWriter):
    """A writer whose mailboxes are the cluster's. `admitted` is False for a process that does not know the lanes yet."""

    def __init__(self, cluster, spool, *, admitted=True):
        super().__init__(SHARDS, cluster, AsyncRedisClient(None), spool)
        self._cluster = cluster
        self._admitted = admitted
        self.writes = []

    async def _put_in_mailboxes(self, entries, ages_ms=(), within_s=1.0):
        if not self._admitted:
            raise RedisUnavailableError("not admitted")
        self.writes.append([sender for sender, _, _ in entries])
        wrong = {
            keyspace.shard_of(sender, SHARDS) for sender, _, _ in entries if sender in self._cluster.wrong
        }
        failed = {}
        for sender, _, event in entries:
            if len(entries) > 1 and keyspace.shard_of(sender, SHARDS) in wrong:
                failed[sender] = WrongRedisTypeError("WRONGTYPE")  # a call for all of a shard
            elif error := self._cluster.take(sender, event):
                failed[sender] = error
        return set(), failed


class Web:
    """A process with a spool in a folder."""

    def __init__(self, folder, cluster, *, shards=SHARDS, admitted=True):
        self.spool = open_spool(folder, MOST, marked_shards=shards)
        self.mailboxes = FakedMailboxes(cluster, self.spool, admitted=admitted)
        self.drain = SpoolDrain(self.spool, self.mailboxes, cluster)

    def hear(self, *texts_by_sender):
        """Accept one SMS of each, at once."""

        async def run():
            return await asyncio.gather(
                *(
                    self.mailboxes.accept([InboundItem(sender, InboundSms(text, "clinic", text), 0.0)])
                    for sender, text in texts_by_sender
                ),
                return_exceptions=True,
            )

        return LOOP.run_until_complete(run())

    def hand_over(self):
        LOOP.run_until_complete(self.drain.drain_if_ours())


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def web(folder, cluster):
    return Web(folder, cluster)


def texts(cluster, sender):
    return [decode_inbound(event).text for event in cluster.mail[sender]]


HERE, THERE = sender_of(0), sender_of(1)
BESIDE_THERE = sender_of(1 + SERVERS)


def test_only_those_are_spooled_whose_server_is_away_and_only_while_it_is(web, cluster):
    cluster.away = {1}
    assert web.hear((HERE, "0"), (THERE, "0")) == ["accepted", "spooled"]
    assert web.hear((HERE, "1"), (THERE, "1")) == ["accepted", "spooled"]
    assert web.hear((BESIDE_THERE, "0")) == ["spooled"]
    assert [web.mailboxes.is_held(sender) for sender in (HERE, THERE)] == [False, True]
    web.hand_over()
    assert (texts(cluster, HERE), texts(cluster, THERE)) == (["0", "1"], [])
    assert web.spool.read_status().events == 3
    cluster.away = set()
    assert web.hear((THERE, "2")) == ["spooled"], "behind what is before it"
    web.hand_over()
    assert texts(cluster, THERE) == ["0", "1", "2"]
    assert not web.spool.in_use
    assert web.hear((THERE, "3")) == ["accepted"]


def test_a_shard_that_is_handed_over_is_free_though_others_wait(web, cluster):
    cluster.away = {0, 1}
    assert web.hear((HERE, "0"), (THERE, "0")) == ["spooled", "spooled"]
    cluster.away = {1}
    assert web.hear((HERE, "1")) == ["spooled"]
    web.hand_over()
    assert texts(cluster, HERE) == ["0", "1"]
    assert web.hear((HERE, "2"), (THERE, "1")) == ["accepted", "spooled"]
    assert web.spool.read_status().events == 2


def test_what_fails_while_it_is_handed_over_keeps_its_order_and_others_go_on(web, cluster, monkeypatch):
    """The server that has just answered is gone at the second event, and back before the next part."""
    monkeypatch.setattr(shard_drain, "FIRST_PART_EVENTS", 2)
    monkeypatch.setattr(shard_drain, "LARGEST_PART_EVENTS", 2)
    cluster.away = {0, 1}
    for number in range(6):
        web.hear((HERE, str(number)), (THERE, str(number)))
    cluster.away = set()
    take, calls = cluster.take, []

    def lose_once(sender, event):
        calls.append(sender)
        cluster.away = {1} if len(calls) in (3, 4) else set()
        return take(sender, event)

    monkeypatch.setattr(cluster, "take", lose_once)
    web.hand_over()
    assert texts(cluster, HERE) == list("012345")
    assert texts(cluster, THERE) == ["0"], "not those behind the one that was not taken"
    web.hand_over()
    assert texts(cluster, THERE) == list("012345")


def test_what_was_looked_through_is_not_read_again_while_its_server_is_away(web, cluster, monkeypatch):
    cluster.away = {0, 1}
    web.hear(*((THERE, str(number)) for number in range(2_000)))
    web.hear((HERE, "0"))
    read = []
    lines = Spool.read_lines
    monkeypatch.setattr(
        Spool, "read_lines", lambda *args: read.append(len((found := lines(*args))[0])) or found
    )
    cluster.away = {1}
    web.hand_over()
    assert sum(read) >= 2_001
    read.clear()
    web.hand_over()
    assert read == [], "nobody is there of whom anything waits"
    cluster.away = {0, 1}
    web.hear((HERE, "1"))
    cluster.away = {1}
    web.hand_over()
    assert sum(read) < 100
    assert texts(cluster, HERE) == ["0", "1"]
    assert web.spool.read_status().events == 2_000
    cluster.away = set()
    web.hand_over()
    assert texts(cluster, THERE) == [str(number) for number in range(2_000)]


def test_what_another_process_has_handed_over_meanwhile_is_known(folder, cluster):
    """It has emptied the file, and other events are where those were that were left."""
    web, other = Web(folder, cluster), Web(folder, cluster)
    cluster.away = {0, 1}
    web.hear(*((THERE, str(number)) for number in range(5)), (HERE, "0"))
    cluster.away = {1}
    web.hand_over()
    cluster.away = set()
    other.hand_over()
    cluster.away = {0, 1}
    web.hear((HERE, "1"), (THERE, "5"))
    cluster.away = {1}
    web.hand_over()
    assert texts(cluster, HERE) == ["0", "1"]


def test_what_comes_in_before_nobody_can_write_is_handed_over_in_parts_too(web, cluster, monkeypatch):
    monkeypatch.setattr(shard_drain, "LARGEST_PART_EVENTS", 3)
    cluster.away = {0, 1}
    web.hear((HERE, "0"), (THERE, "0"))
    cluster.away = {1}
    end = shard_drain.ShardDrain._end_pass

    def end_late(drain, run):
        monkeypatch.setattr(shard_drain.ShardDrain, "_end_pass", end)
        events = [
            SpooledEvent(
                HERE, encode_event(InboundSms(str(n), "clinic", str(n))), False, NOW, "clinic", "sms"
            )
            for n in range(1, 11)
        ]
        web.spool.append(events, begin=True)
        return end(drain, run)

    monkeypatch.setattr(shard_drain.ShardDrain, "_end_pass", end_late)
    web.hand_over()
    assert texts(cluster, HERE) == [str(number) for number in range(11)]
    assert web.spool.read_status().events == 1


def test_a_server_that_answers_and_takes_nothing_is_tried_once_a_pass(web, cluster, monkeypatch):
    """As if its memory were full."""
    cluster.away = {1}
    web.hear(*((sender, str(n)) for sender in (THERE, BESIDE_THERE) for n in range(1_000)))

    async def find_none(keys):
        return {}

    monkeypatch.setattr(cluster, "find_silent", find_none)
    read = []
    lines = Spool.read_lines
    monkeypatch.setattr(
        Spool, "read_lines", lambda *args: read.append(len((found := lines(*args))[0])) or found
    )
    web.mailboxes.writes.clear()
    web.hand_over()
    assert len(web.mailboxes.writes) == 1
    assert len(read) == 1
    cluster.away = set()
    web.hand_over()
    assert [texts(cluster, sender) for sender in (THERE, BESIDE_THERE)] == [
        [str(n) for n in range(1_000)]
    ] * 2


def test_whoever_dies_after_a_part_leaves_no_more_than_that_part_to_be_handed_over_twice(
    folder, cluster, monkeypatch
):
    dying = Web(folder, cluster)
    cluster.away = {0, 1}
    dying.hear(*((HERE, str(number)) for number in range(100)), (THERE, "0"))
    cluster.away = {1}
    note, notes = Spool.mark_done, []

    def die(*args):
        notes.append(args)
        if len(notes) == 3:
            raise Death
        note(*args)

    monkeypatch.setattr(Spool, "mark_done", die)
    with pytest.raises(Death):
        dying.hand_over()
    monkeypatch.undo()
    once = len(cluster.mail[HERE])
    assert once == 16 + 32 + 52
    Web(folder, cluster).hand_over()
    assert list(dict.fromkeys(texts(cluster, HERE))) == [str(number) for number in range(100)]
    assert len(cluster.mail[HERE]) == once + 52
    assert dying.spool.read_status().events == 1


def test_a_mailbox_that_is_none_stops_neither_its_shard_nor_others(web, cluster):
    other = sender_of(1, 1)
    cluster.away = {1}
    web.hear((THERE, "0"), (other, "0"), (other, "1"))
    cluster.away, cluster.wrong = set(), {THERE}
    web.hand_over()
    assert texts(cluster, other) == ["0", "1"]
    assert not web.spool.in_use
    assert web.spool.damaged_file.read_bytes().count(b"\n") == 1


def test_what_was_damaged_is_put_aside_once_though_the_file_stays(web, cluster):
    cluster.away = {0, 1}
    web.hear((THERE, "0"))
    with (web.spool.damaged_file.parent / "events").open("ab") as file:
        file.write(b"nonsense\n\ntorn~\nunfinished")
    cluster.away = {1}
    web.spool.marks.add([HERE], anew=False)
    web.hand_over()
    web.spool.marks.add([HERE], anew=False)
    Web(web.spool.damaged_file.parent, cluster).hand_over()
    assert web.spool.damaged_file.read_bytes() == b"nonsense\n"
    assert web.spool.read_status().events == 1
    web.hear((THERE, "1"))
    cluster.away = set()
    web.hand_over()
    assert texts(cluster, THERE) == ["0", "1"]
    assert not web.spool.in_use


def test_a_full_spool_refuses_those_alone_whose_server_is_away(web, cluster):
    web.spool.max_bytes = 400
    cluster.away = {1}
    web.hear((THERE, "0"))
    accepted, refused = web.hear((HERE, "0"), (THERE, "x" * 900))
    assert accepted == "accepted"
    assert isinstance(refused, RedisAndSpoolUnavailableError)
    cluster.away = set()
    web.hand_over()
    assert web.hear((THERE, "1")) == ["accepted"]


def test_without_a_spool_only_those_fail_whose_server_is_away(cluster):
    mailboxes = FakedMailboxes(cluster, None)
    cluster.away = {1}

    async def hear():
        return await asyncio.gather(
            *(
                mailboxes.accept([InboundItem(sender, InboundSms("1", "clinic", "1"), 0.0)])
                for sender in (HERE, THERE)
            ),
            return_exceptions=True,
        )

    accepted, refused = LOOP.run_until_complete(hear())
    assert accepted == "accepted"
    assert isinstance(refused, RedisUnavailableError)
    assert mailboxes.writes == [[HERE], [THERE]], "a write for each server"


class Lanes(Cluster):
    """Which answer commands. Nobody knows yet who has which shard."""

    def server_of(self, key):
        return None

    async def try_write(self, commands, within_s=1.0):
        self.asked += 1
        shards = [int(keys[0][1 : keys[0].index("}")]) for _, _, _, *keys in commands]
        return [RedisUnavailableError("away") if k % SERVERS in self.away else [0] for k in shards]


def test_of_events_in_one_write_only_those_fail_whose_server_is_away():
    lanes = Lanes()
    lanes.away = {1}
    mailboxes = MailboxWriter(SHARDS, lanes, AsyncRedisClient(None))

    async def hear():
        return await asyncio.gather(
            *(
                mailboxes.accept([InboundItem(sender, InboundSms("1", "clinic", "1"), 0.0)])
                for sender in (HERE, THERE)
            ),
            return_exceptions=True,
        )

    accepted, refused = LOOP.run_until_complete(hear())
    assert accepted == "accepted"
    assert isinstance(refused, RedisUnavailableError)
    assert lanes.asked == 1


def test_a_queue_whose_server_is_away_is_not_rung_and_others_are(monkeypatch):
    rung = []

    class Broker(Lanes):
        def server_of(self, key):
            return key

        async def try_commands(self, commands, within_s=1.0):
            rung.append([key for _, _, _, key, *_ in commands])
            return [
                RedisUnavailableError("away") if key == "bell:starts" else 1 for _, _, _, key, *_ in commands
            ]

    lanes, broker = Lanes(), Broker()
    mailboxes = MailboxWriter(SHARDS, lanes, broker)

    def unrung(queue):
        return metrics.RINGS_FAILED.labels(queue)._value.get()

    before = [unrung(queue) for queue in ("starts", "replies")]

    async def wake():
        for queue in ("starts", "replies"):
            mailboxes.wake(queue, HERE)
            mailboxes.wake(queue, THERE)
        await mailboxes._wakeup_writes.wait_drained()

    LOOP.run_until_complete(wake())
    assert rung == [["bell:starts"], ["bell:replies"]]
    assert [unrung(queue) for queue in ("starts", "replies")] == [before[0] + 2, before[1]]


def test_whoever_finds_a_mark_that_is_gone_when_he_has_the_lock_writes_to_the_mailbox(
    web, cluster, monkeypatch
):
    """Else it never ended, where events of a shard come in all the time."""
    cluster.away = {0, 1}
    web.hear((HERE, "0"), (THERE, "0"))
    held = Spool.held_senders

    def hand_over_after_the_question(spool, senders):
        monkeypatch.undo()
        answer = held(spool, senders)
        marks = ShardMarks(web.spool.damaged_file.parent, SHARDS)
        with web.spool.locked_file():
            marks.keep({1}, SHARDS)
        cluster.away = {1}
        return answer

    monkeypatch.setattr(Spool, "held_senders", hand_over_after_the_question)
    assert web.hear((HERE, "1")) == ["accepted"]
    assert web.spool.held_senders([HERE, THERE]) == [THERE]


# The marks


def test_marks_are_on_the_disk_before_what_they_are_for(web, cluster, monkeypatch):
    cluster.away = {1}
    steps = []
    add, write = ShardMarks._write, Spool._write_lines
    monkeypatch.setattr(
        ShardMarks,
        "_write",
        lambda *args, synced: (steps.append(("marks", synced)), add(*args, synced=synced)),
    )
    monkeypatch.setattr(Spool, "_write_lines", lambda *args: (steps.append("events"), write(*args)))
    web.hear((THERE, "0"))
    web.hear((THERE, "1"))
    assert steps == [("marks", True), "events", "events"]


@pytest.mark.parametrize("shards", [SHARDS, 4, 100])
def test_marks_that_outlived_what_they_were_for_are_gone_with_the_next_event(
    folder, cluster, monkeypatch, shards
):
    """Whoever emptied the file died before it had taken them away; and it may have counted shards otherwise."""
    monkeypatch.setattr(ShardMarks, "clear", lambda marks: None)
    former = Web(folder, cluster, shards=shards)
    cluster.away = {0, 1, 2}
    former.hear(*((sender, "0") for sender in SENDERS))
    cluster.away = set()
    former.hand_over()
    assert not former.spool.in_use
    cluster.away = {1}
    web = Web(folder, cluster)
    web.hear((THERE, "1"))
    assert (folder / "held").read_bytes() == b"-x----"


def test_without_marks_or_with_what_is_none_all_shards_have_one(web, cluster):
    cluster.away = {1}
    web.hear((THERE, "0"))
    file = web.spool.damaged_file.parent / "held"
    whole = file.read_bytes()
    assert whole == b"-x----"
    for marks in (None, b"", b"\0" * SHARDS):
        file.unlink() if marks is None else file.write_bytes(marks)
        assert web.spool.held_senders(SENDERS) == SENDERS
    file.write_bytes(whole)
    assert web.spool.held_senders([HERE, THERE]) == [THERE]


def test_the_number_of_marks_stays_while_anything_waits(web, cluster):
    cluster.away = {1}
    web.hear((THERE, "0"))
    web.spool.marks.keep({1}, SHARDS - 2)
    assert (web.spool.damaged_file.parent / "held").read_bytes() == b"-x----"


def test_what_was_spooled_when_there_was_one_server_is_handed_over_by_shard(folder, cluster):
    sms = encode_event(InboundSms("1", "clinic", "1"))
    events = [SpooledEvent(sender, sms, False, NOW, "clinic", "sms") for sender in (HERE, THERE)]
    open_spool(folder, MOST).append(events, begin=True)
    web = Web(folder, cluster)
    cluster.away = {1}
    assert web.hear((HERE, "2"), (THERE, "2")) == ["spooled", "spooled"]
    web.hand_over()
    assert (texts(cluster, HERE), texts(cluster, THERE)) == (["1", "2"], [])
    assert web.hear((HERE, "3")) == ["accepted"]
    cluster.away = set()
    web.hand_over()
    assert texts(cluster, THERE) == ["1", "2"]


def test_where_there_is_one_server_there_are_no_marks_and_what_is_done_is_passed_by(folder, cluster):
    web = Web(folder, cluster)
    cluster.away = {0, 1}
    web.hear((THERE, "0"), (HERE, "0"))
    cluster.away = {1}
    web.hand_over()
    lines = (folder / "events").read_bytes().splitlines()
    assert [line[:1] == DONE_MARK for line in lines].count(True) == 1
    single = open_spool(folder, MOST)
    assert not (folder / "held").exists()
    part = single.read_part(single.read_position(), 10)
    assert ([each.sender for each in part.events], part.damaged) == ([THERE], [])
    assert single.held_senders([HERE, THERE]) == [HERE, THERE]


def test_a_disk_that_takes_no_marks_takes_no_events(web, cluster, monkeypatch):
    def fail(*_args, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardMarks, "_write", fail)
    cluster.away = {1}
    (refused,) = web.hear((THERE, "0"))
    assert isinstance(refused, RedisAndSpoolUnavailableError)
    assert not web.spool.in_use


# All of it

STEPS = st.one_of(
    st.tuples(st.just("hear"), st.integers(0, 2), st.lists(st.sampled_from(SENDERS), min_size=1, max_size=6)),
    st.tuples(st.just("away"), st.sets(st.integers(0, SERVERS - 1))),
    st.tuples(st.just("hand over"), st.integers(0, 1)),
    st.tuples(st.just("die handing over"), st.integers(0, 1), st.integers(1, 6)),
    st.tuples(st.just("begin anew"), st.integers(0, 2)),
    st.tuples(st.just("lose marks")),
)


class Dying:
    """At the n-th thing that is done to the disk or a mailbox, before or after it, the process ends."""

    def __init__(self, monkeypatch, web, at):
        self._left = at
        for owner, name in (
            (web.spool, "mark_done"),
            (web.spool, "truncate_file"),
            (web.spool.marks, "keep"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, does):
        def done(*args):
            self._step()
            does(*args)
            self._step()

        return done

    def _step(self):
        self._left -= 1
        if self._left == 0:
            raise Death


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=40))
def test_whatever_is_away_and_whoever_dies_what_is_acknowledged_comes_in_order(tmp_path_factory, steps):
    """Two processes, and a third that counts shards otherwise as it does not know the lanes yet."""
    folder = tmp_path_factory.mktemp("shards") / "spool"
    cluster = Cluster()
    kinds = [{}, {}, {"shards": 4, "admitted": False}]
    webs = [Web(folder, cluster, **kind) for kind in kinds]
    said = defaultdict(list)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shard_drain, "FIRST_PART_EVENTS", 1)
        patched.setattr(shard_drain, "LARGEST_PART_EVENTS", 3)
        patched.setattr(shard_drain, "LINES_PER_STEP", 4)
        for number, step in enumerate(steps):
            match step:
                case "hear", which, senders:
                    once = list(dict.fromkeys(senders))
                    outcomes = webs[which].hear(*((sender, str(number)) for sender in once))
                    assert set(outcomes) <= {"accepted", "spooled"}
                    for sender in once:
                        said[sender].append(str(number))
                case "away", servers:
                    cluster.away = servers
                case "hand over", which:
                    webs[which].hand_over()
                case "die handing over", which, at:
                    with pytest.MonkeyPatch.context() as dying:
                        Dying(dying, webs[which], at)
                        try:
                            webs[which].hand_over()
                        except Death:
                            webs[which] = Web(folder, cluster, **kinds[which])
                case "begin anew", which:
                    webs[which] = Web(folder, cluster, **kinds[which])
                case ("lose marks",):
                    (folder / "held").unlink(missing_ok=True)
            waiting = 0
            for sender, own in said.items():
                there = list(dict.fromkeys(texts(cluster, sender)))
                assert there == own[: len(there)], "in order"
                if len(there) < len(own):
                    waiting += len(own) - len(there)
                    assert webs[0].spool.held_senders([sender]), "nothing may overtake it"
            if step[0] == "hand over":
                assert webs[0].spool.read_status().events >= waiting
        cluster.away = set()
        for _ in range(3):
            webs[0].hand_over()
    assert not webs[0].spool.in_use
    assert {sender: list(dict.fromkeys(texts(cluster, sender))) for sender in said} == said
