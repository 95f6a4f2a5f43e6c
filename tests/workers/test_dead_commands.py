"""What `parley dead` finds, shows and lets go; Dramatiq's own dead letters too."""

import json
import os
import re

import dramatiq
import msgspec
import pytest
from dramatiq.brokers.redis import RedisBroker

from config.store import keyspace, redis_client
from engine.model.events import InboundSms, encode_event
from tests.support.waiting import until
from tests.workers.dead_letters import call, counted, fell, letters_of, outcomes, shard, told, true_to_itself
from workers.erasure.sender_eraser import SenderEraser
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter, find_by_sender
from workers.store.optouts import open_opt_out_list
from workers.turns import drafts

ANNA, BORIS = "+33600000001", "+33600000002"
HOUR = 3_600_000


@pytest.fixture
def town(deploy):
    return deploy()


def put(town, identity, age_ms=0, sender=ANNA, **what):
    """A letter that fell so long ago."""
    at = redis_client.server_time_ms(town.client) - age_ms
    fields = {
        "kind": "event",
        "reason": "engine_error",
        "attempts": 1,
        "what": b"R",
        "channel": "clinic",
    } | what
    letter = DeadLetter(id=identity, sender=sender, at=at, **fields)
    k = shard(town, sender)
    town.client.hset(keyspace.dead_letters_key(k), identity, encode_dead_letter(letter).content)
    town.client.zadd(keyspace.dead_letter_index_key(k), {identity: at})
    town.client.hincrby(keyspace.dead_letter_reasons_key(k), letter.reason, 1)


@pytest.mark.parametrize(
    "filters, found",
    [
        ([], ["old", "sms", "start", "new"]),
        (["--queue", "starts"], ["start"]),
        (["--queue", "outbound"], ["sms"]),
        (["--reason", "rejected"], ["sms"]),
        (["--channel", "other"], ["start"]),
        (["--survey", "clinic"], ["old"]),
        (["--sender", "0033600000002"], ["sms"]),
        (["--older", "2h"], ["old", "sms"]),
        (["--newer", "2h"], ["start", "new"]),
        (["--older", "30m", "--newer", "4h"], ["sms", "start"]),
        (["--error", "ZERO"], ["new"]),
        (["--error", "zero", "--reason", "rejected"], []),
    ],
    ids=str,
)
def test_each_filter_lets_through_what_it_says_in_the_order_of_their_fall(town, filters, found):
    put(town, "old", 5 * HOUR, survey="clinic")
    put(town, "sms", 3 * HOUR, BORIS, kind="sms", reason="rejected")
    put(town, "start", 1 * HOUR, what=b"S", channel="other")
    put(town, "new", why="division by zero")
    assert [each["id"] for each in told("list", *filters)] == found


def test_a_letter_that_fell_by_a_clock_which_was_set_back_since_is_there(town):
    put(town, "ahead", -HOUR)
    assert [each["id"] for each in told("list")] == ["ahead"]


@pytest.mark.parametrize(
    "arguments",
    [["replay"], ["drop"], ["replay", "x", "--reason", "y"], ["replay", "x", "--all"], ["list", "--older", "soon"], ["drop", "--rate", "1"]],
    ids=" ".join,
)  # fmt: skip
def test_nothing_is_done_unless_it_is_said_which(town, arguments):
    put(town, "x")
    call(*arguments, status=2)
    assert len(letters_of(town)) == 1


def test_several_are_asked_for_and_one_is_not(town):
    put(town, "a")
    put(town, "b")
    asked = call("drop", "--all", text="n\n", status=1)
    assert "2 engine_error" in asked.stderr
    assert len(letters_of(town)) == 2
    call("drop", "a", status=0)
    call("drop", "--all", status=0)
    assert letters_of(town) == []
    true_to_itself(town)


def test_an_id_that_nobody_knows_is_told_and_one_that_is_gone_is_done(town):
    put(town, "a")
    assert [each["outcome"] for each in told("drop", "a", status=0)] == ["dropped"]
    assert [each["outcome"] for each in told("drop", "a", status=0)] == ["gone"]
    assert [each["outcome"] for each in told("drop", "nonsense", status=1)] == ["missing"]
    assert "dropped by" in call("show", "a", status=1).stderr
    assert "parley dead list" in call("show", "nonsense", status=1).stderr


def test_the_tables_are_for_people(town, failing):
    assert "No dead letters." in call("list", status=0).stdout
    assert "No dead letters like that." in call("replay", "--all", status=0).stdout
    assert "Nothing was done" in call("audit", status=0).stdout
    fell(town, failing, ANNA)
    assert "cannot apply 3 characters" in call("list", status=0).stdout
    dry = call("replay", "--all", "--dry-run", status=0).stdout
    assert "How old are you, Ada?" in dry
    assert "advanced  1" in " ".join(dry.split()).replace("advanced 1", "advanced  1")
    call("replay", "--all", "--as", "eve", status=0)
    assert "eve" in call("audit", status=0).stdout


def test_show_tells_each_attempt_the_lane_then_and_now_and_what_a_replay_would_do(town, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    shown = json.loads(call("show", letter.id, "--json", status=0).stdout)
    assert shown["tries"][0]["code"] == "engine_error"
    assert "RuntimeError" in shown["traceback"]
    (then,), (now,) = shown["then"], shown["now"]
    assert then == now
    assert (now["session"]["survey"], now["session"]["step"]) == ("clinic", "name")
    assert shown["replay"] == {"finding": "advance", "why": "", "sms": ["How old are you, Ada?"]}
    town.accept(ANNA, "Bo")
    town.drain()
    printed = call("show", letter.id, status=0).stdout
    assert "at step age" in printed
    assert "answers: name='Bo'" in printed
    assert "text='Ada'" in printed
    assert letter.id in call("list").stdout


def test_what_this_release_cannot_read_is_shown_and_dropped(town):
    k = 3
    town.client.hset(keyspace.dead_letters_key(k), "odd", b"\xc1 not a letter")
    town.client.zadd(keyspace.dead_letter_index_key(k), {"odd": 5})
    assert "cannot be read by this release" in call("show", "odd", status=0).stdout
    assert outcomes("--all", status=1) == ["failing"]
    call("drop", "odd", status=0)
    assert letters_of(town) == []


def die_claiming(town, times):
    """So many workers claim Anna's lane and never come back; the ms of their claims."""
    k = shard(town, ANNA)
    claimed = []
    for _ in range(times):
        (claim,) = town.turns._lanes.claim_suspect("replies", ANNA).claimed
        claimed.append(claim.now)
        fence, _, rest = town.client.get(keyspace.lane_lock_key(k, ANNA)).split(b" ", 2)
        town.client.set(keyspace.lane_lock_key(k, ANNA), b" ".join([fence, b"1", rest]))
    return claimed


def test_an_event_whose_workers_died_tells_of_each_claim(town):
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "Ada")
    claimed = die_claiming(town, drafts.MAX_CLAIM_ATTEMPTS)
    town.turns.handle_wakeup("replies", [ANNA])
    (letter,) = find_by_sender(town.client, shard(town, ANNA), ANNA)
    assert (letter.reason, letter.attempts, letter.channel) == (
        "worker_died",
        drafts.MAX_CLAIM_ATTEMPTS + 1,
        "clinic",
    )
    assert [tried.at for tried in letter.tries] == claimed
    assert (letter.session, letter.survey) == (f"{1:016x}", "clinic")


@pytest.mark.parametrize("still", [True, False], ids=["still kills", "mended"])
def test_an_event_that_kills_its_process_does_not_kill_the_operators(town, monkeypatch, still):
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "Ada")
    die_claiming(town, drafts.MAX_CLAIM_ATTEMPTS)
    town.turns.handle_wakeup("replies", [ANNA])
    if still:
        advance = drafts.advance
        mine = os.getpid()

        def deadly(*arguments, **named):
            if os.getpid() != mine:
                os._exit(13)
            return advance(*arguments, **named)

        monkeypatch.setattr(drafts, "advance", deadly)
        (looked,) = told("replay", "--all", "--dry-run", status=1)
        assert (looked["outcome"], "status 13" in looked["why"]) == ("failing", True)
        assert outcomes("--all", status=1) == ["failing"]
        (letter,) = letters_of(town)
        assert (letter.reason, letter.attempts) == ("worker_died", drafts.MAX_CLAIM_ATTEMPTS + 2)
    else:
        assert outcomes("--all", status=0) == ["advanced"]
        assert town.said(ANNA)[-1] == "How old are you, Ada?"
    true_to_itself(town)


def test_counts_by_reason_stay_true_whatever_is_buried_again_replayed_dropped_or_erased(town, failing):
    fell(town, failing, ANNA, BORIS)
    town.deposit(ANNA, b"poison")
    town.deposit(BORIS, encode_event(InboundSms("00000000000000bb", "no such channel", "hello")))
    town.drain()
    assert counted(town) == {"engine_error": 3, "undecodable": 1}
    outcomes("--reason", "undecodable", status=1)
    assert counted(town) == {"engine_error": 3, "undecodable": 1}
    optouts = open_opt_out_list(town.client, town.world.settings.shards, "")
    SenderEraser(town.world, optouts).erase(ANNA)
    assert counted(town) == {"engine_error": 2}
    true_to_itself(town)
    erased = [entry for entry in told("audit") if entry["outcome"] == "erased"]
    assert (len(erased), ANNA[1:] in json.dumps(told("audit"))) == (2, False)
    outcomes("--all", status=1)
    call("drop", "--all", status=0)
    assert counted(town) == {}


def test_a_letter_expires_never_and_its_lane_may(town):
    """Its shard's keys have no end, though a commit of a lane that was not there leaves one that has."""
    town.deposit(ANNA, b"poison")
    town.drain()
    k = shard(town, ANNA)
    assert [
        town.client.pttl(key) for key in (keyspace.dead_letters_key(k), keyspace.dead_letter_index_key(k))
    ] == [-1, -1]
    assert town.client.pttl(keyspace.lane_key(k, ANNA)) > 0
    outcomes("--all", status=1)
    assert town.client.pttl(keyspace.lane_key(k, ANNA)) > 0


# Dramatiq's own


@pytest.fixture
def stock(town, valkey):
    """Stock Dramatiq on the server of the wake-ups: an actor that fails until it is mended, and a worker."""
    broker = RedisBroker(url=valkey.broker_url, namespace="shop")
    mended, done = [], []

    def charge(order):
        if not mended:
            raise RuntimeError("the bank is closed")
        done.append(order)

    actor = dramatiq.actor(charge, broker=broker, max_retries=1, min_backoff=1, queue_name="orders")
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    for order in (1, 2):
        actor.send(order)
    until(lambda: broker.client.zcard("shop:orders.XQ") == 2, 30, "both are given up")
    yield mended, done, broker
    worker.stop()
    broker.close()
    broker.client.close()


@pytest.mark.one_server("Dramatiq's own broker reaches one")
def test_what_dramatiq_gave_up_is_listed_shown_replayed_and_dropped(town, stock):
    mended, done, broker = stock
    put(town, "ours")
    ours, first, second = told("list")
    assert ours["id"] == "ours"
    assert first["id"].startswith("d:shop:orders:")
    assert (first["actor"], first["retries"], first["why"]) == (
        "charge",
        1,
        "RuntimeError: the bank is closed",
    )
    assert [each["id"] for each in told("list", "--reason", "dramatiq", "--error", "BANK")] == [
        first["id"],
        second["id"],
    ]
    assert told("list", "--queue", "orders", "--channel", "clinic") == []
    assert '"args":[' in call("show", first["id"], status=0).stdout.replace(": ", ":")
    assert [each["outcome"] for each in told("replay", first["id"], "--dry-run", status=0)] == ["requeued"]
    mended.append(True)
    assert outcomes(first["id"], status=0) == ["requeued"]
    until(lambda: done, 20, "the actor has run")
    assert outcomes(first["id"], status=0) == ["gone"]
    assert [each["outcome"] for each in told("drop", "--queue", "orders", status=0)] == ["dropped"]
    assert len(done) == 1
    assert broker.client.keys("shop:orders.XQ*") == []
    assert [(entry["id"], entry["kind"], entry["outcome"]) for entry in told("audit")] == [
        (first["id"], "dramatiq", "requeued"), (second["id"], "dramatiq", "dropped"),
    ]  # fmt: skip


@pytest.mark.one_server("Dramatiq's own broker reaches one")
def test_a_message_of_dramatiq_that_is_replayed_has_its_retries_before_it(town, stock):
    _, _, broker = stock
    (first, *_) = told("list", "--reason", "dramatiq")
    assert outcomes(first["id"], status=0) == ["requeued"]
    until(lambda: broker.client.zcard("shop:orders.XQ") == 2, 30, "it has failed again")
    again = [each for each in told("list", "--reason", "dramatiq") if "replay-" not in each["id"]]
    assert [each["retries"] for each in again] == [1, 1]


@pytest.mark.one_server("Dramatiq's own broker reaches one")
def test_a_message_that_is_not_json_stays_until_it_is_dropped(town, stock):
    broker = stock[2]
    broker.client.zadd("old:mails.XQ", {"m1": 1})
    broker.client.hset("old:mails.XQ.msgs", "m1", b"\x80 pickled")
    assert outcomes("d:old:mails:m1", status=1) == ["failing"]
    call("drop", "d:old:mails:m1", status=0)
    assert broker.client.keys("old:*") == []


@pytest.mark.one_server("Dramatiq's own broker reaches one")
def test_a_message_of_dramatiq_is_dropped_though_the_memory_is_full(town, stock):
    broker = stock[2]
    broker.client.config_set("maxmemory", 1)
    try:
        assert [each["outcome"] for each in told("drop", "--queue", "orders", "--yes", status=0)] == [
            "dropped"
        ] * 2
    finally:
        broker.client.config_set("maxmemory", 0)


def test_an_event_of_a_letter_is_small(town, failing):
    """What tells copies from news stays out of it."""
    town.accept(ANNA, "START")
    town.drain()
    failing.clear()
    town.accept(ANNA, *(f"x{i}" for i in range(200)))
    town.drain()
    failing.add("y")
    town.accept(ANNA, "y")
    town.drain()
    (letter,) = letters_of(town)
    blob = msgspec.msgpack.encode(msgspec.structs.replace(letter, traceback=""))
    assert len(blob) < 1_500


def test_a_narrow_terminal_shows_whole_ids_and_what_went_wrong(town, monkeypatch):
    monkeypatch.setattr("engine.commands.terminal.PIPED_WIDTH", 80)
    identity = "s69e680c80d383aaax0"
    put(town, identity, kind="sms", reason="rejected", code="151", why="Country not served")
    listed = call("list", status=0).stdout
    assert identity in listed
    assert {"rejected:", "Country", "served"} <= set(listed.split())
    put(town, "d" * 60, reason="rejected", why="long ago")
    assert "d" * 60 in "".join(re.findall(r"d{8,}", call("list", status=0).stdout))
    assert "long ago" in " ".join(call("list", "--error", "long", status=0).stdout.split())
    call("drop", identity, "--as", "somebody.with.a.long.name@a.long.host.example.org", status=0)
    audited = call("audit", status=0).stdout
    assert {identity, "dropped"} <= set(audited.split())


def test_brackets_are_told_as_they_are(town):
    put(town, "a", why="expected [/b], found [yes] or [red]")
    assert "expected [/b], found [yes] or [red]" in call("list", status=0).stdout
    call("drop", "a", "--as", "[/anna]", status=0)
    assert "[/anna]" in call("audit", status=0).stdout


def test_a_filter_that_lets_nothing_through_says_what_there_is(town):
    assert call("list", "--reason", "rejecte", status=0).stdout == "No dead letters.\n"
    put(town, "a")
    assert call("list", "--reason", "rejecte", status=0).stdout == (
        "No dead letters like that; there are 1 engine_error.\n"
    )


def test_a_dry_run_says_that_nothing_has_been_changed(town, failing):
    fell(town, failing, ANNA)
    dry = call("replay", "--all", "--dry-run", status=0).stdout
    assert "would be" in dry
    assert dry.endswith("Nothing has been changed.\n")
    assert "Nothing has been changed" not in call("replay", "--all", status=0).stdout


def test_who_dealt_with_a_letter_before_is_told_to_people_too(town):
    put(town, "a")
    call("drop", "a", "--as", "eve", status=0)
    assert "dropped, by eve" in call("replay", "a", status=0).stdout


def test_letters_are_shown_while_the_redis_of_the_wake_ups_is_away(town, monkeypatch):
    put(town, "a")
    monkeypatch.setenv("PARLEY_BROKER_URL", "redis://127.0.0.1:1/0")
    for arguments in (["list"], ["show", "a"], ["audit"]):
        looked = call(*arguments, status=0)
        assert "The Redis of the wake-ups does not answer" in looked.stderr
    assert "a replay" in call("show", "a", status=0).stdout


def test_where_no_worker_would_start_nothing_is_tried_and_that_is_said(town, failing, monkeypatch, tmp_path):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "clinic.yaml").write_text("survey: clinic\nsteps: []\n")
    monkeypatch.setenv("PARLEY_SURVEYS", str(broken))
    tried = call("replay", letter.id, status=2)
    assert "nothing was tried" in tried.stderr
    assert "clinic.yaml" in tried.stderr
    assert "no worker would start" in call("show", letter.id, status=0).stdout


def test_the_lane_then_of_an_sms_is_said_not_to_be_kept(town):
    put(town, "s1", kind="sms", reason="rejected")
    shown = call("show", "s1", status=0).stdout
    assert "not kept of an SMS" in shown
    assert "not known" not in shown


def refuse(town, *senders, why="Text is invalid"):
    for place, sender in enumerate(senders):
        put(
            town,
            f"{why[:4]}{place}",
            place * HOUR,
            sender,
            kind="sms",
            reason="rejected",
            code="198",
            survey="clinic",
            why=why,
        )


def test_a_letter_is_listed_with_whose_it_is_and_of_which_survey(town):
    refuse(town, BORIS)
    (line,) = (line for line in call("list", status=0).stdout.splitlines() if "Text0" in line)
    assert line.split()[-6:] == [BORIS, "rejected", "198", "Text", "is", "invalid"]
    assert line.split().count("clinic") == 2, "channel and survey"


def test_what_is_alike_is_told_together(town):
    """Numbers in what went wrong make no difference; what is alone is not told twice."""
    refuse(town, ANNA, BORIS, BORIS)
    refuse(town, ANNA, why="Gone for 20 s")
    refuse(town, BORIS, why="Else")
    put(town, "Gone9", HOUR, kind="sms", reason="rejected", code="198", why="Gone for 9 s")
    *_, first, second = call("list", status=0).stdout.splitlines()
    assert first == "3 × 198 Text is invalid (rejected, 2 people)"
    assert second == "2 × 198 Gone for 9 s (rejected, 1 person)"
    (same, gone, alone) = told("list", "--group")
    assert (same["count"], same["people"], same["surveys"], same["example"]) == (3, 2, {"clinic": 3}, "Text2")
    assert same["newest_at"] - same["oldest_at"] == pytest.approx(2 * HOUR, abs=60_000)
    assert (gone["count"], gone["channels"], gone["surveys"]) == (2, {"clinic": 2}, {"clinic": 1})
    assert (alone["count"], alone["why"]) == (1, "Else")
    assert told("list", "--group", "--sender", BORIS)[0]["count"] == 2, (
        "of those that the filters let through"
    )
    shown = call("list", "--group", status=0).stdout
    assert [line.split()[:3] for line in shown.splitlines() if "198" in line] == [
        ["3", "2", "rejected"], ["2", "1", "rejected"], ["1", "1", "rejected"],
    ]  # fmt: skip
    call("drop", "--all", "--yes", status=0)
    assert call("list", "--group", status=0).stdout == "No dead letters.\n"


def test_letters_that_are_not_alike_are_only_listed(town):
    refuse(town, ANNA)
    assert "×" not in call("list", status=0).stdout
