"""Nothing of an erased person is left, but that they said stop; whatever was under way adds nothing afterwards."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from config.store import function_calls, keyspace, redis_client
from config.store.server_functions import TakenReference, TakeReferences
from engine.model import lane as lane_format
from engine.model.events import (
    InboundSms,
    Invitation,
    OpeningRefused,
    OutboundSms,
    ProviderStop,
    encode_event,
)
from engine.model.lane import ChannelLine, Lane
from tests.support.inviting import hold_command
from tests.workers.dead_letters import outcomes
from workers.commands.erase import erase
from workers.erasure import sender_eraser as erasing
from workers.erasure.sender_eraser import ErasureCounts, SenderEraser
from workers.store import uploaded_rows
from workers.store.dead_letter_store import DeadLetter, EncodedDeadLetter, encode_dead_letter
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore, OutboxUpdate
from workers.store.uploaded_rows import UploadedRow, decode_rows, encode_rows

ANNA, BORIS = "+33600000001", "+33600000002"


@pytest.fixture
def town(pipeline, monkeypatch, tmp_path, valkey):
    town = pipeline()
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    town.optouts = open_opt_out_list(town.client, town.world.settings.shards, "")
    return town


def eraser(town):
    return SenderEraser(town.world, town.optouts)


def shard(town, sender):
    return keyspace.shard_of(sender, town.world.settings.shards)


def traces(town, sender):
    """Where the digits of this number are, in keys or values, on either server."""
    digits = sender[1:].encode()
    found = []
    for client in (town.client, town.world.broker):
        for key in client.keys("*"):
            kind = client.type(key)
            match kind:
                case b"string":
                    content = client.get(key)
                case b"list":
                    content = b"".join(client.lrange(key, 0, -1))
                case b"hash":
                    content = b"".join(b"".join(pair) for pair in client.hgetall(key).items())
                case b"zset":
                    content = b"".join(client.zrange(key, 0, -1))
                case b"stream":
                    content = b"".join(v for _, fields in client.xrange(key) for v in fields.values())
            if digits in key or digits in content:
                found.append(key)
    return found


def live(town, sender):
    """Leave every kind of trace: a session, an end, a stop, mail, SMS, a try, a dead letter, tickets."""
    town.accept(sender, "START", "Ada", "36", "START")
    town.drain()
    town.deposit(sender, b"poison")
    town.drain()
    town.accept(sender, "STOP", "START")
    town.drain()
    outboxes = outboxes_of(town)
    (take,) = outboxes.lease_oldest([sender])
    outboxes.apply_updates(
        [
            OutboxUpdate(
                take, "done", ticket="SM1", dead_letter=EncodedDeadLetter("x" + sender[-1], letter(sender))
            )
        ]
    )
    town.accept(sender, "Bo", "not yet applied")


def letter(sender):
    return encode_dead_letter(
        DeadLetter(
            id="x" + sender[-1], kind="sms", reason="rejected", sender=sender, at=1, attempts=1, what=b""
        )
    ).content


def outboxes_of(town):
    return OutboxStore(town.client, town.world.settings.shards, 60_000)


def test_no_trace_is_left_of_one_and_all_of_the_other(town):
    live(town, BORIS)
    live(town, ANNA)
    before = traces(town, BORIS)
    assert len(traces(town, ANNA)) >= 9
    looked, erased = eraser(town).count_traces(ANNA), eraser(town).erase(ANNA)
    assert looked == erased
    assert erased == ErasureCounts(
        lanes=1, mail=2, sms=erased.sms, other_keys=1, alarms=erased.alarms, stream_entries=erased.stream_entries,
        dead_letters=2, sessions=3,
    )  # fmt: skip
    assert min(erased.sms, erased.alarms, erased.stream_entries) > 0
    assert traces(town, ANNA) == []
    assert sorted(traces(town, BORIS)) == sorted(before)
    assert eraser(town).erase(ANNA) == ErasureCounts()


def test_an_invitation_that_waits_is_never_released(town):
    k, identity = shard(town, ANNA), "00000000000000a1"
    held = Invitation(identity, "clinic", "clinic")
    redis_client.run_command(town.client, hold_command(k, ANNA, held, 4_000_000_000_000))
    assert eraser(town).count_traces(ANNA).invitations == 1
    assert eraser(town).erase(ANNA).invitations == 1
    assert traces(town, ANNA) == []
    assert town.client.get(keyspace.session_key(k, identity)) == b"", (
        "the same invitation is still recognised"
    )


def test_that_they_said_stop_is_kept(town):
    town.accept(ANNA, "START", "STOP")
    town.drain()
    assert eraser(town).erase(ANNA).opt_outs == 1
    assert traces(town, ANNA) == []
    town.deposit(ANNA, encode_event(Invitation("00000000000000a1", "clinic", "clinic")), start=True)
    town.drain()
    assert [record.reason for record in town.records(ANNA) if isinstance(record, OpeningRefused)] == [
        "opted_out"
    ]
    town.accept(ANNA, "START")
    town.drain()
    assert town.said(ANNA) == ["What is your name?"]


@pytest.mark.parametrize(
    "event", [InboundSms("b1", "clinic", "Stop."), InboundSms("b1", "clinic", "x", handled="stop"), ProviderStop("b1", "clinic")],
    ids=["word", "handled", "callback"],
)  # fmt: skip
def test_a_stop_that_nobody_has_applied_yet_is_kept(town, event):
    town.accept(ANNA, "START")
    town.drain()
    town.deposit(ANNA, encode_event(event))
    eraser(town).erase(ANNA)
    assert list(town.optouts.opt_outs_of(ANNA)) == ["clinic"]


def test_a_start_that_nobody_has_applied_yet_counts_after_a_stop(town):
    town.accept(ANNA, "STOP")
    town.drain()
    town.accept(ANNA, "START")
    assert eraser(town).erase(ANNA).opt_outs == 0


def test_a_stop_that_the_lane_alone_knows_goes_into_the_list(town):
    """As after the loss of the list's key, which makes another list."""
    k = shard(town, ANNA)
    state = lane_format.encode_lane(Lane(lines={"clinic": ChannelLine(opted_out_at=7)}))
    town.client.set(keyspace.lane_key(k, ANNA), b"1 0 " + state)
    eraser(town).erase(ANNA)
    assert town.optouts.opt_outs_of(ANNA) == {"clinic": (7, "unknown")}


def test_an_invitation_that_waits_is_counted_by_a_dry_run_as_it_is_removed(town):
    k, event = shard(town, ANNA), Invitation("00000000000000a1", "clinic", "clinic")
    redis_client.run_command(town.client, hold_command(k, ANNA, event, 2**43))
    looked, erased = eraser(town).count_traces(ANNA), eraser(town).erase(ANNA)
    assert looked == erased == ErasureCounts(invitations=1)


def test_no_number_can_be_tried_against_what_an_invitation_left(town):
    """Its fingerprint is of the number and of what the inviter knows; the reference stays taken."""
    shards, (held, opened) = town.world.settings.shards, ("00000000000000a1", "00000000000000a2")
    k, event = shard(town, ANNA), Invitation(held, "clinic", "clinic", reference="r")
    redis_client.run_command(town.client, hold_command(k, ANNA, event, 2**43))
    town.client.set(keyspace.session_key(k, opened), f"1 {ANNA}")
    for identity in (held, opened):
        town.client.set(keyspace.reference_key(shards, identity), "a fingerprint", px=1_000_000)
    eraser(town).erase(ANNA)
    for identity in (held, opened):
        name = keyspace.reference_key(shards, identity)
        assert (town.client.get(name), town.client.pttl(name) > 0) == (b"", True)
        taken = TakenReference(reference=name, fingerprint="a fingerprint", until_ms=2**43)
        again = function_calls.function_call(TakeReferences(references=[taken]))
        assert redis_client.run_command(town.client, again) == [-1]


def test_what_the_simulated_phone_got_goes_too(town):
    for sender in (ANNA, BORIS):
        town.client.set(keyspace.simulator_key(sender, "request:1x0"), "sms_1")
        town.client.xadd(keyspace.simulator_key(sender, "sms"), {"text": "What is your name?"})
    assert (eraser(town).count_traces(ANNA).simulated, eraser(town).erase(ANNA).simulated) == (2, 2)
    assert traces(town, ANNA) == []
    assert len(traces(town, BORIS)) == 2


def upload(town, *chunks, table="t1"):
    """Put a table before its sending into the console: lists of numbers as they are written."""
    key = keyspace.console_upload_rows_key(table)
    for chunk in chunks:
        rows = [
            UploadedRow(at, msgspec.json.encode({"identifier": written, "content": "Hi"}))
            for at, written in enumerate(chunk)
        ]
        town.client.rpush(key, encode_rows(rows))
    town.client.pexpire(key, 1_000_000)


def uploaded(town, table="t1"):
    """Of each row the number; empty, if it is erased."""
    key = keyspace.console_upload_rows_key(table)
    rows = [row for chunk in town.client.lrange(key, 0, -1) for row in decode_rows(chunk)]
    return [msgspec.json.decode(row.invitation)["identifier"] if row.invitation else "" for row in rows]


def test_who_waits_in_uploaded_tables_goes_and_the_others_keep_their_places(town):
    written = [
        ANNA,
        "+33 6.00.00.00.01",
        "0033600000001",
        "+33 (0)6 00000001",
        "+330600000001",
        "06 00 00 00 01",
    ]
    others = [BORIS, "06 00 00 00 02", "+33660000001", "000001", "nobody", "", "01"]
    upload(town, [*others, *written], others, [ANNA, BORIS])
    upload(town, others, table="t2")
    looked, erased = eraser(town).count_traces(ANNA), eraser(town).erase(ANNA)
    assert looked == erased == ErasureCounts(uploaded_rows=len(written) + 1)
    assert uploaded(town) == [*others, *[""] * len(written), *others, "", BORIS]
    assert uploaded(town, "t2") == others
    assert 0 < town.client.pttl(keyspace.console_upload_rows_key("t1")) <= 1_000_000
    assert eraser(town).erase(ANNA) == ErasureCounts()


def test_of_two_who_are_erased_at_once_neither_brings_the_other_back(town, monkeypatch):
    upload(town, [BORIS, ANNA, "+33600000003"])
    alone, others = uploaded_rows.replace_chunk, []

    def after_another(*arguments):
        if not others:
            others.append(BORIS)
            assert eraser(town).erase(BORIS).uploaded_rows == 1
        return alone(*arguments)

    monkeypatch.setattr(uploaded_rows, "replace_chunk", after_another)
    assert eraser(town).erase(ANNA).uploaded_rows == 1
    assert uploaded(town) == ["", "", "+33600000003"]


@pytest.mark.parametrize("at", ["before", "after"])
def test_who_was_not_erased_from_all_of_a_table_is_by_another_try(town, monkeypatch, at):
    """The process died, or a reply was lost for good."""
    upload(town, [ANNA], [BORIS], [ANNA], [ANNA, BORIS])
    alone, left = uploaded_rows.replace_chunk, [ConnectionError(), ConnectionError(), None]

    def fail(*arguments):
        error = left.pop()
        if error is None or at == "after":
            replaced = alone(*arguments)
        if error is not None:
            raise error
        return replaced

    with monkeypatch.context() as patched:
        patched.setattr(uploaded_rows, "replace_chunk", fail)
        with pytest.raises(ConnectionError):
            eraser(town).erase(ANNA)
        assert ANNA in uploaded(town)
    eraser(town).erase(ANNA)
    assert uploaded(town) == ["", BORIS, "", "", BORIS]


@pytest.mark.one_server("the client of a cluster tells who calls that a reply was lost")
def test_a_chunk_is_replaced_once_though_the_reply_was_lost(town, proxy):
    upload(town, [ANNA, BORIS])
    proxy.lose_replies(b"replace_upload_rows")
    lossy = msgspec.structs.replace(town.world, lanes=redis_client.connect(proxy.url))
    assert SenderEraser(lossy, town.optouts).erase(ANNA).uploaded_rows == 1
    assert proxy.lost == 1
    assert uploaded(town) == ["", BORIS]


def test_a_table_that_cannot_be_read_may_have_them_too_and_goes(town):
    key = keyspace.console_upload_rows_key("t1")
    upload(town, [BORIS])
    town.client.rpush(key, b"of another release")
    assert eraser(town).count_traces(ANNA) == eraser(town).erase(ANNA) == ErasureCounts()
    assert not town.client.exists(key)


def test_a_commit_under_way_leaves_nothing(town):
    town.accept(ANNA, "START")
    (claim,) = town.turns._lanes.claim("starts", [ANNA]).claimed
    eraser(town).erase(ANNA)
    town.turns._turn_claims("starts", [claim], 0.0)
    assert traces(town, ANNA) == []


def test_a_dead_letter_that_is_replayed_meanwhile_leaves_nothing(town, monkeypatch, tmp_path):
    monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path / "surveys"))
    town.accept(ANNA, "START")
    town.drain()
    sms = OutboundSms(f"{1:016x}x1", "clinic", ANNA, "What is your name?", f"{1:016x}", decided=1)
    fell = DeadLetter(
        id="x",
        kind="sms",
        reason="rejected",
        sender=ANNA,
        at=1,
        attempts=1,
        what=encode_event(sms),
        channel="clinic",
    )
    outboxes = outboxes_of(town)
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, "done", dead_letter=encode_dead_letter(fell))])
    erase_past = SenderEraser._erase_history

    def later(self, *arguments):
        outcomes("--all", "--stale")
        erase_past(self, *arguments)

    monkeypatch.setattr(SenderEraser, "_erase_history", later)
    assert eraser(town).erase(ANNA).dead_letters == 1
    assert traces(town, ANNA) == []


def test_a_commit_repeated_after_its_reply_was_lost_leaves_nothing(town, monkeypatch):
    """The first call stood, the person was erased, and the client calls again."""
    town.accept(ANNA, "START")
    drafts = []
    commit = town.turns._lanes.commit
    monkeypatch.setattr(town.turns._lanes, "commit", lambda all_: drafts.extend(all_) or commit(all_))
    town.turns.handle_wakeup("starts", [ANNA])
    eraser(town).erase(ANNA)
    (committed,) = commit(drafts)
    assert not committed.succeeded
    assert traces(town, ANNA) == []


def test_a_delivery_under_way_leaves_nothing(town):
    town.accept(ANNA, "START")
    town.drain()
    outboxes = outboxes_of(town)
    (take,) = outboxes.lease_oldest([ANNA])
    eraser(town).erase(ANNA)
    outboxes.apply_updates(
        [
            OutboxUpdate(
                take,
                "done",
                records=b"r",
                ticket="SM1",
                dead_letter=EncodedDeadLetter("x", b"x"),
                lane_mail=ProviderStop("s", "clinic"),
            )
        ]
    )
    assert traces(town, ANNA) == []
    assert not town.client.keys("*:dead")


def test_mail_that_comes_while_it_is_looked_at_is_looked_at_too(town, monkeypatch):
    town.accept(ANNA, "START")
    alive = SenderEraser._read_mail_and_state

    def one_more(self, k, sender):
        found = alive(self, k, sender)
        if not stopped:
            stopped.append(True)
            town.accept(ANNA, "STOP")
        return found

    stopped = []
    monkeypatch.setattr(SenderEraser, "_read_mail_and_state", one_more)
    erased = eraser(town).erase(ANNA)
    assert (erased.mail, erased.opt_outs) == (2, 1)


def test_a_lane_that_changes_while_it_is_looked_at_is_looked_at_again(town, monkeypatch):
    """They opt in again between: the list must not have it otherwise."""
    town.accept(ANNA, "STOP")
    town.drain()
    alive = SenderEraser._read_mail_and_state

    def one_more(self, k, sender):
        found = alive(self, k, sender)
        if not started:
            started.append(True)
            town.accept(ANNA, "START")
            town.drain()
        return found

    started = []
    monkeypatch.setattr(SenderEraser, "_read_mail_and_state", one_more)
    assert eraser(town).erase(ANNA).opt_outs == 0


def test_a_lane_that_never_rests_is_told(town, monkeypatch):
    monkeypatch.setattr(erasing, "_MAX_ERASE_ATTEMPTS", 3)
    alive = SenderEraser._read_mail_and_state

    def one_more(self, k, sender):
        found = alive(self, k, sender)
        town.accept(ANNA, "hello")
        return found

    monkeypatch.setattr(SenderEraser, "_read_mail_and_state", one_more)
    with pytest.raises(erasing.LaneBusyError):
        eraser(town).erase(ANNA)


def call(*arguments, text=""):
    return CliRunner().invoke(erase, [*arguments], input=text)


def test_the_command_asks_first_and_says_what_it_removed(town):
    live(town, ANNA)
    assert call(ANNA, text="n\n").exit_code == 1
    dry = json.loads(call(ANNA, "--dry-run", "--json").stdout)
    assert dry["dry_run"]
    assert dry["dead_letters"] == 2
    assert traces(town, ANNA)
    assert "dead letters" in call(ANNA, text="y\n").stdout
    assert traces(town, ANNA) == []
    again = call("0033 6 00 00 00 01", "--yes", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["lanes"] == 0
    assert call("anna", "--yes").exit_code == 2
