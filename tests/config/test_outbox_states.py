"""The table of an outbox's states is true: Lua and Python spell them alike, and no call makes a change that it does not have.

The outbox of one sender is explored on a real server, breadth first: each call is made in every situation that can be
reached, and what it made of the state is compared with the table.
"""

import re
from collections import deque

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.store import keyspace, lua_library, redis_client
from config.store.function_calls import accept_commands, function_call
from config.store.lua_library import library_text
from config.store.outbox_states import (
    OUTBOX_STATES,
    OUTBOX_TRANSITIONS,
    OutboxOwner,
    decode_owner,
    encode_owner,
)
from config.store.server_functions import (
    FUNCTIONS,
    AttachedReply,
    AttachReplies,
    BringForward,
    Claim,
    ClaimedLane,
    Commit,
    CommitLane,
    ConfirmReply,
    EraseLane,
    LeasedOutbox,
    LeaseSms,
    RareEffects,
    ReleaseOutbox,
    ReserveOutbox,
    RestingOutbox,
    UpdateOutbox,
    Withdrawal,
)
from config.store.stored_values import outbox_entry, parse_lock
from engine.model.events import OutboundSms, decode_outbound, encode_event

ANNA, K = "+33600000001", 0
REST_MS = 600_000
TOKEN = "00000000000000aa"
TWO_SMS = 2

BY_NAME = {state.name: state for state in OUTBOX_STATES}


# Spelling

tokens = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
TAGS = {
    "": st.just(""),
    "token": tokens,
    " token": tokens,
    "epoch": st.integers(1, 2**43).map(str) | st.just(""),
}


@st.composite
def owners(draw):
    """(fence, owner) of a state that is stored."""
    state = draw(st.sampled_from([each for each in OUTBOX_STATES if each.fence != "none"]))
    uncertain = draw(st.booleans()) if state.uncertain else False
    return 7 if state.fence == "> 0" else 0, OutboxOwner(state.name, draw(TAGS[state.tag]), uncertain)


@given(owners())
def test_an_owner_is_decoded_as_it_was_encoded_and_spelled_as_the_table_says(case):
    fence, owner = case
    written = encode_owner(owner)
    assert decode_owner(fence, written) == owner
    spelling = re.escape(BY_NAME[owner.state].spelling.removesuffix("?")).replace("<token>", "[0-9a-f]{16}")
    assert re.fullmatch(spelling.replace("<epoch>", r"\d*") + (r"\?" if owner.uncertain else ""), written)


@given(st.integers(0, 1), st.text("abdgnoe12? ", max_size=8))
def test_any_owner_can_be_decoded(fence, owner):
    decode_owner(fence, owner)


def lock_functions():
    """The Lua functions that read and write a lock, and those that they need."""
    files = [lua_library.LUA_FOLDER / f"{name}.lua" for name in ("values", "calls", "outbox_locks")]
    return "\n".join(path.read_text() for path in files).replace("'@library@_' .. name", "name")


@pytest.fixture
def client(valkey):
    client = valkey.client()
    redis_client.load_functions(client)
    return client


@pytest.fixture
def relay(client):
    """A server that writes a lock which it has read, by the functions of the library."""
    text = library_text(
        lock_functions()
        + """
local function wake(keys, args)
  local lock = read_outbox_lock(args.senders[1])
  write_outbox_lock(args.senders[2], 0, lock)
  return {lock.state, lock.tag, lock.uncertain and 1 or 0}
end
register('relay_lock', wake, {})
"""
    )
    client.function_load(f"#!lua name=relay\n{text}", replace=True)
    yield client
    client.function_flush()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(owners())
def test_lua_reads_and_writes_an_owner_as_python_does(relay, case):
    fence, owner = case
    stored = f"{fence} 1700000000000 1 1700000000000 {encode_owner(owner)}"
    relay.set("a lock", stored)
    state, tag, uncertain = relay.fcall("relay_lock", 1, "bell", "a lock", "another")
    assert OutboxOwner(state.decode(), tag.decode(), bool(uncertain)) == owner
    assert relay.get("another") == stored.encode()


# Transitions

OUTBOX = {
    "outbox": keyspace.outbox_key(K, ANNA), "outbox_lock": keyspace.outbox_lock_key(K, ANNA),
    "outbox_alarms": keyspace.outbox_alarms_key(K),
}  # fmt: skip
APPLIED = keyspace.applied_events_key(K, "h")
LANE = {
    "mailbox": keyspace.mailbox_key(K, ANNA), "lane": keyspace.lane_key(K, ANNA),
    "lane_lock": keyspace.lane_lock_key(K, ANNA),
}  # fmt: skip
LETTERS = {
    "events": keyspace.events_key(K), "dead_letters": keyspace.dead_letters_key(K),
    "dead_letter_index": keyspace.dead_letter_index_key(K), "dead_letter_reasons": keyspace.dead_letter_reasons_key(K),
}  # fmt: skip


class Outbox:
    """The outbox of one sender, and what a holder, a webhook or an operator does with it."""

    def __init__(self, client):
        self.client = client
        self.fence = 2  # an old one; 0 is nobody's
        self.entry = b""

    def run(self, call):
        return redis_client.run_command(self.client, function_call(call))

    def lock(self):
        value = self.client.get(OUTBOX["outbox_lock"])
        return None if value is None else parse_lock(value)

    def entries(self):
        return self.client.lrange(OUTBOX["outbox"], 0, -1)

    def situation(self):
        """What differs for the calls below."""
        lock, entries = self.lock(), self.entries()
        owner = decode_owner(lock.fence, lock.owner) if lock else OutboxOwner("free")
        left = lock and (lock.until > redis_client.server_time_ms(self.client), min(lock.attempts, 1))
        marked = tuple(decode_outbound(entry.partition(b"\0")[2]).uncertain for entry in entries)
        return owner.state, owner.uncertain, left, marked, lock is not None and lock.fence == self.fence

    def saved(self):
        names = [name for name in self.client.keys("*") if b"fence" not in name]
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            pipeline.dump(name)
            pipeline.pttl(name)
        values = pipeline.execute()
        kept = [each for each in zip(names, values[::2], values[1::2], strict=True) if each[1] is not None]
        return self.fence, self.entry, {name for name, *_ in kept}, kept

    def restore(self, saved):
        self.fence, self.entry, names, values = saved
        pipeline = self.client.pipeline(transaction=False)
        for name in self.client.keys("*"):
            if name not in names and b"fence" not in name:
                pipeline.delete(name)
        for name, value, pttl in values:
            pipeline.restore(name, max(0, pttl), value, replace=True)
        pipeline.execute()

    # What may happen

    def commit(self, rare=None, entries=()):
        for command in accept_commands(1, [(ANNA, False, b"event")])[0]:
            redis_client.run_command(self.client, command)
        lane = ClaimedLane(**LANE, applied_events=APPLIED, sender=ANNA, number_hash="h")
        claim = Claim(
            fence=keyspace.fence_key(K), lane_alarms=keyspace.lane_alarms_key(K), optouts=keyspace.optouts_key(K),
            server=keyspace.server_key(K), owner="o", mail_kind=b"R", max_mail=9, lease_ms=5_000, take_suspects=0, lanes=[lane],
        )  # fmt: skip
        ((fence, *_),) = self.run(claim)
        lane = CommitLane(
            **LANE, outbox=OUTBOX["outbox"], outbox_lock=OUTBOX["outbox_lock"], sender=ANNA, fence=fence, applied=1,
            deadline=0, keep_until=0, state=b"state", records=[], outbox_entries=entries, rare=rare,
        )  # fmt: skip
        self.run(
            Commit(
                **LETTERS, lane_alarms=keyspace.lane_alarms_key(K), outbox_alarms=OUTBOX["outbox_alarms"],
                optouts=keyspace.optouts_key(K), dead_letter_audit=keyspace.dead_letter_audit_key(K),
                server=keyspace.server_key(K), campaigns=keyspace.campaigns_key(K),
                campaign_sessions=keyspace.campaign_sessions_key(K), keep_applied_ms=1, lanes=[lane],
            )
        )  # fmt: skip

    def speak(self):
        if len(self.entries()) < TWO_SMS:
            session = "ab"[len(self.entries())]
            self.commit(
                entries=[
                    outbox_entry("c", encode_event(OutboundSms(f"{session}x0", "c", ANNA, "text", session)))
                ]
            )
        return "commit"

    def withdraw(self, **what):
        none = {
            "applied_events": APPLIED,
            "number_hash": "",
            "displaced_events": b"",
            "sessions": [],
            "silenced_channels": [],
            "withdrawn_sessions": [],
            "dead_letters": [],
        }
        self.commit(RareEffects(**none | what, opt_outs=[], resolutions=[], session_states=[]))
        return "commit"

    def withdraw_all(self):
        return self.withdraw(silenced_channels=[Withdrawal(name="c", code="stopped", why="")])

    def withdraw_first(self):
        return self.withdraw(withdrawn_sessions=[Withdrawal(name="a", code="cancelled", why="")])

    def lease(self, asked_channels=()):
        box = LeasedOutbox(
            mailbox=LANE["mailbox"],
            outbox=OUTBOX["outbox"],
            outbox_lock=OUTBOX["outbox_lock"],
            sender=ANNA,
        )
        (answer,) = self.run(
            LeaseSms(
                fence=keyspace.fence_key(K), outbox_alarms=OUTBOX["outbox_alarms"], server=keyspace.server_key(K),
                owner=f"{self.fence}f", lease_ms=REST_MS, longest_pause_ms=REST_MS, uncertain_rest_ms=REST_MS,
                outboxes=[box], asked_channels=asked_channels,
            )
        )  # fmt: skip
        if answer:
            self.fence, self.entry = answer[0], answer[7]
        return "lease_sms"

    def lease_asked(self):
        """Where the provider is asked for an SMS that it may have."""
        return self.lease(["c"])

    def update(self, disposition, rest_ms, *, uncertain):
        self.run(
            UpdateOutbox(
                **OUTBOX, **LETTERS, tickets=keyspace.tickets_key(K, ANNA), lane_alarms=keyspace.lane_alarms_key(K),
                mailbox=LANE["mailbox"], failed_attempts=keyspace.failed_attempts_key(K, ANNA),
                server=keyspace.server_key(K), sender=ANNA, fence=self.fence, entry=self.entry, disposition=disposition,
                permit_epoch=7 if disposition == "booked" else 0, uncertain=uncertain, rest_ms=rest_ms,
                records=b"", dead_letter_id="", dead_letter=b"", ticket="", lane_mail=b"", first_attempt_ms=0,
                failed_attempt=b"",
            )
        )  # fmt: skip
        return "update_outbox"

    def update_late(self):
        """By a holder whose lease another has taken over."""
        self.fence -= 1
        self.update("done", REST_MS, uncertain=0)
        self.fence += 1
        return "update_outbox"

    def lapse(self):
        """The time of the state ends."""
        if (lock := self.lock()) is not None:
            name = OUTBOX["outbox_lock"]
            if lock.owner.startswith("reserved"):
                self.client.delete(name)
            else:
                now = redis_client.server_time_ms(self.client)
                self.client.set(
                    name, f"{lock.fence} {now} {lock.attempts} {lock.since} {lock.owner}", keepttl=True
                )
        return "time"

    def reserve(self):
        self.run(
            ReserveOutbox(
                outbox=OUTBOX["outbox"],
                outbox_lock=OUTBOX["outbox_lock"],
                token=TOKEN,
                lease_ms=REST_MS,
            )
        )
        return "reserve_outbox"

    def attach(self):
        replies = []
        for entry in self.entries():
            sms = msgspec.structs.replace(decode_outbound(entry.partition(b"\0")[2]), uncertain=True)
            replies.append(AttachedReply(entry=entry, marked=outbox_entry("c", encode_event(sms))))
        if replies:
            call = AttachReplies(
                **OUTBOX,
                mailbox=LANE["mailbox"],
                sender=ANNA,
                token=TOKEN,
                rest_ms=REST_MS,
                replies=replies,
            )
            self.run(call)
        return "attach_replies"

    def confirm(self, pause_ms=0):
        entries = self.entries()
        if entries:
            unheard = sum(decode_outbound(entry.partition(b"\0")[2]).uncertain for entry in entries[1:])
            self.run(
                ConfirmReply(
                    **OUTBOX, events=LETTERS["events"], tickets=keyspace.tickets_key(K, ANNA),
                    server=keyspace.server_key(K), sender=ANNA, entry=entries[0], others_unheard=int(unheard > 0), pause_ms=pause_ms, records=b"r",
                    ticket="t",
                )
            )  # fmt: skip
        return "confirm_reply"

    def release(self):
        self.run(ReleaseOutbox(**OUTBOX, sender=ANNA, token=TOKEN))
        return "release_outbox"

    def forward(self):
        box = RestingOutbox(outbox=OUTBOX["outbox"], outbox_lock=OUTBOX["outbox_lock"], sender=ANNA)
        self.run(
            BringForward(
                outbox_alarms=OUTBOX["outbox_alarms"], channel="c", unasked=0, first_ms=0, step_ms=1,
                uncertain_rest_ms=10, outboxes=[box],
            )
        )  # fmt: skip
        return "bring_forward"

    def erase(self):
        mail = b"".join(self.client.lrange(LANE["mailbox"], 0, -1))
        self.run(
            EraseLane(
                optouts=keyspace.optouts_key(K), lane_alarms=keyspace.lane_alarms_key(K),
                outbox_alarms=OUTBOX["outbox_alarms"], mailbox=LANE["mailbox"], lane=LANE["lane"],
                outbox=OUTBOX["outbox"], other_keys=[OUTBOX["outbox_lock"], LANE["lane_lock"]], sender=ANNA,
                number_hash="h", mail_before=mail, lane_before=self.client.get(LANE["lane"]) or b"", opt_outs=[],
                applied_events=APPLIED, known_events=b"", keep_applied_ms=1,
            )
        )  # fmt: skip
        return "erase_lane"


SIMPLE = [
    "speak",
    "withdraw_all",
    "withdraw_first",
    "lease",
    "lease_asked",
    "update_late",
    "lapse",
    "reserve",
    "attach",
    "confirm",
    "release",
    "forward",
    "erase",
]


UPDATES = [
    ("done", 0, 0), ("done", REST_MS, 0), ("again", REST_MS, 0), ("again", REST_MS, 1), ("untried", 0, 0),
    ("untried", REST_MS, 0), ("untried", REST_MS, 1), ("booked", REST_MS, 0), ("booked", REST_MS, 1),
]  # fmt: skip


def happenings():
    for name in SIMPLE:
        yield lambda outbox, name=name: getattr(outbox, name)()
    yield lambda outbox: outbox.confirm(REST_MS)
    for update in UPDATES:
        yield lambda outbox, update=update: outbox.update(*update[:2], uncertain=update[2])


def explored(outbox):
    """(state before, function, state after) of every call in every situation."""
    begun = outbox.situation()
    found, seen = set(), {begun}
    waiting = deque([(begun, outbox.saved())])
    while waiting:
        (before, *_), saved = waiting.popleft()
        for happens in happenings():
            outbox.restore(saved)
            function = happens(outbox)
            situation = outbox.situation()
            found.add((before, function, situation[0]))
            if situation not in seen:
                seen.add(situation)
                waiting.append((situation, outbox.saved()))
    return found


def test_the_table_has_every_transition_and_no_other(own_valkey):
    client = own_valkey.client()
    client.config_set("appendonly", "no")  # thousands of calls, and nothing to lose
    redis_client.load_functions(client)
    found = {each for each in explored(Outbox(client)) if each[1] != "time"}
    declared = {
        (source, each.function, target)
        for each in OUTBOX_TRANSITIONS
        for source in each.sources
        for target in each.targets
    }
    assert {each for each in found - declared if each[0] != each[2]} == set()
    assert declared - found == set()


def test_transitions_are_by_functions_that_there_are():
    names = {re.sub(r"(?<!^)(?=[A-Z])", "_", each.__name__).lower() for each in FUNCTIONS}
    assert {each.function for each in OUTBOX_TRANSITIONS} <= names
