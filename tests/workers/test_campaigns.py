"""Invitations wait for their turn: at a pace, within every limit, never before a person who is in conversation."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from config.store import function_calls, keyspace, pauses, redis_client
from config.store.counts import campaigns
from config.store.server_functions import TakeTokens
from engine.model.events import Invitation, OpeningRefused, SessionInvited, SessionOpened, encode_event
from engine.model.quiet_hours import QuietHours
from engine.turns.opening_sms import max_opening_sms
from tests.support.inviting import hold_command
from tests.support.proxies import Proxies
from workers.clock import invitation_pacer
from workers.clock.invitation_pacer import forget_invitations
from workers.composition import build_invitation_pacer

TWO_SMS = b"""
survey: clinic
start: [START]
cooldown: 0s
steps:
  - {id: hello, say: "Hello."}
  - {id: name, ask: "What is your name?", answer: {type: text}, next: end}
"""


class Held:
    """A backlog of the channel `clinic`, and the pacer that empties it."""

    def __init__(self, pipeline, client=None, others=(), **channel):
        self.pipeline = pipeline
        self.settings = pipeline.world.settings
        self.client = pipeline.client
        channels = {
            name: msgspec.structs.replace(each, **channel) for name, each in self.settings.channels.items()
        }
        channels |= dict.fromkeys(others, channels["clinic"])
        settings = msgspec.structs.replace(self.settings, channels=channels)
        self.campaigns = build_invitation_pacer(
            msgspec.structs.replace(pipeline.world, settings=settings, lanes=client or pipeline.client)
        )

    def hold(self, *senders, not_before=0, channel="clinic", **fields):
        for sender in senders:
            identity = f"{int(sender[1:]):016x}" if channel == "clinic" else f"{channel}{sender}"
            event = Invitation(identity, channel, "clinic", **fields)
            k = keyspace.shard_of(sender, self.settings.shards)
            until = round((datetime.now(UTC) + timedelta(days=60)).timestamp() * 1000)
            redis_client.run_command(self.client, hold_command(k, sender, event, until, not_before))

    def waiting(self, channel="clinic"):
        return sum(self.client.zcard(keyspace.held_ids_key(k, channel)) for k in range(self.settings.shards))

    def mailed(self):
        """Invitations in mailboxes."""
        return sum(self.client.llen(name) for name in self.client.scan_iter("*:mail:*"))

    def server_ms(self):
        seconds, micros = self.client.time()
        return seconds * 1000 + micros // 1000

    def refill(self):
        """As if a while had gone by."""
        self.client.delete(keyspace.invitation_bucket_key("clinic"))


def now_ms():
    return round(datetime.now(UTC).timestamp() * 1000)


def people(count):
    return [f"+336{12_000_000 + n:08d}" for n in range(count)]


@pytest.fixture
def held(pipeline):
    return lambda channel=None, client=None, others=(), **limits: Held(
        pipeline(shards=16, **limits), client, others, **(channel or {})
    )


def test_one_is_released_at_the_next_tick_and_opens_a_session(held):
    backlog = held()
    backlog.hold(*people(1))
    backlog.campaigns.release_round()
    assert backlog.pipeline.woken("starts") == people(1)
    assert backlog.pipeline.said(people(1)[0]) == ["What is your name?"]
    assert backlog.waiting() == 0
    assert not list(backlog.client.scan_iter("*held*"))


def test_a_pace_is_kept(held):
    backlog = held(invitations_per_second=0.1)
    backlog.hold(*people(30))
    for _ in range(5):
        backlog.campaigns.release_round()
    assert (backlog.waiting(), backlog.mailed()) == (29, 1)
    backlog.refill()
    backlog.campaigns.release_round()
    assert backlog.mailed() == 2


@pytest.mark.parametrize("pace, sms, spacing_ms", [(0, 1, 2_000), (0.25, 1, 4_000)])
def test_unless_told_otherwise_it_is_half_of_the_smss(held, pace, sms, spacing_ms):
    """The bucket is a moment: that at which the next may leave."""
    backlog = held(sms_per_second=sms, invitations_per_second=pace)
    backlog.hold(*people(3))
    before = backlog.server_ms()
    backlog.campaigns.release_round()
    assert backlog.mailed() == 1
    full_at = float(backlog.client.get(keyspace.invitation_bucket_key("clinic")))
    assert before + spacing_ms <= full_at <= backlog.server_ms() + spacing_ms


def test_what_is_due_longest_goes_first_within_a_shard(held):
    backlog = held(invitations_per_second=1)
    senders = [sender for sender in people(400) if keyspace.shard_of(sender, 16) == 3][:9]
    for place, sender in enumerate(reversed(senders)):
        backlog.hold(sender, not_before=place + 1)
    released = []
    for _ in senders:
        backlog.campaigns.release_round()
        released += backlog.pipeline.woken("starts")
        backlog.refill()
    assert released == senders[::-1]


def pause(backlog, name, why="", channel="clinic"):
    paused = pauses.StoredPause(by="operator", why=why) if why else None
    redis_client.run_command(backlog.client, campaigns.pause_campaign_command(channel, name, paused))


def test_of_a_campaign_that_is_paused_nobody_is_invited_until_it_goes_on(held):
    backlog = held()
    paused, others = people(20)[:10], people(20)[10:]
    backlog.hold(*paused, campaign="spring")
    backlog.hold(*others, campaign="autumn")
    pause(backlog, "spring", "the phones are down")
    pause(backlog, "autumn", "elsewhere", channel="other")
    for _ in range(3):
        backlog.campaigns.release_round()
        backlog.refill()
    assert {*backlog.pipeline.woken("starts")} == {*others}
    assert backlog.waiting() == 10
    scores = [
        score
        for k in range(16)
        for _, score in backlog.client.zrange(keyspace.held_ids_key(k, "clinic"), 0, -1, withscores=True)
    ]
    soon = backlog.server_ms() + invitation_pacer.PAUSED_MIN_MS
    assert soon - 60_000 < min(scores) <= max(scores) <= soon
    pause(backlog, "spring")
    for k in range(16):
        for identity in backlog.client.zrange(keyspace.held_ids_key(k, "clinic"), 0, -1):
            backlog.client.zadd(keyspace.held_ids_key(k, "clinic"), {identity: 1}, xx=True)  # as it is soon
    backlog.campaigns.release_round()
    assert {*backlog.pipeline.woken("starts")} == {*paused}


def test_many_that_are_paused_are_looked_at_seldom(held, monkeypatch):
    """So that they keep nobody else waiting: each again after so long as all of them take."""
    monkeypatch.setattr(invitation_pacer, "PAUSED_EACH_MS", 1_000_000)
    backlog = held()
    backlog.hold(*people(3), campaign="spring")
    pause(backlog, "spring", "x")
    before = backlog.server_ms()
    backlog.campaigns.release_round()
    for k in range(16):
        for _, score in backlog.client.zrange(keyspace.held_ids_key(k, "clinic"), 0, -1, withscores=True):
            assert before + 3_000_000 <= score <= backlog.server_ms() + 3_000_000


def test_one_that_expires_while_its_campaign_is_paused_is_refused(held):
    backlog = held()
    (sender,) = people(1)
    backlog.hold(sender, campaign="spring", expires_at=1)
    pause(backlog, "spring", "x")
    backlog.campaigns.release_round()
    assert [record.reason for record in backlog.pipeline.records(sender)] == ["expired"]


@pytest.mark.parametrize("queue", ["starts", "replies", "outbound"])
def test_nobody_is_invited_while_many_wait_for_a_worker(held, queue):
    backlog = held()
    backlog.hold(*people(100))
    waiting = [f"+4{n}" for n in range(invitation_pacer.MAX_LANES_WAITING)]
    redis_client.run_command(backlog.pipeline.world.broker, function_calls.wake_command(queue, waiting[3:]))
    backlog.campaigns.release_round()
    assert backlog.mailed() == 3
    redis_client.run_command(backlog.pipeline.world.broker, function_calls.wake_command(queue, waiting))
    backlog.refill()
    backlog.campaigns.release_round()
    assert backlog.mailed() == 3


def test_where_there_is_not_room_for_all_channels_they_take_turns(held, monkeypatch):
    monkeypatch.setattr(invitation_pacer, "MAX_LANES_WAITING", 1)
    backlog = held(others=("ward", "desk"))
    for channel in ("clinic", "ward", "desk"):
        backlog.hold(*people(5), channel=channel)
    released = []
    for _ in range(3):
        backlog.campaigns.release_round()
        backlog.pipeline.world.broker.flushdb()
        released.append([backlog.waiting(channel) for channel in ("clinic", "ward", "desk")])
    assert sorted(released[-1]) == [4, 4, 4]


def test_replies_keep_half_of_the_permits_to_send(held):
    """Whatever is booked, an invitation leaves the other half of a second's SMS to those in conversation."""
    backlog = held(sms_per_second=10, invitations_per_second=1000)
    backlog.hold(*people(30))
    backlog.campaigns.release_round()
    assert backlog.mailed() == 5
    redis_client.run_command(
        backlog.client,
        function_calls.function_call(
            TakeTokens(bucket=keyspace.sms_bucket_key("clinic"), rate_per_s=10, burst=10, wanted=10)
        ),
    )
    backlog.refill()
    backlog.campaigns.release_round()
    assert backlog.mailed() == 5


def test_a_channel_that_pauses_invites_nobody(held):
    backlog = held()
    backlog.hold(*people(3))
    backlog.client.set(keyspace.pause_key("clinic"), "402", px=60_000)
    backlog.campaigns.release_round()
    assert (backlog.waiting(), backlog.mailed()) == (3, 0)


@pytest.mark.parametrize("survey, per_session", [(None, 1), (TWO_SMS, 2)])
def test_the_days_sms_are_never_exceeded(pipeline, survey, per_session):
    backlog = Held(pipeline(shards=16, **({"survey": survey} if survey else {}), sms_per_day=11))
    backlog.hold(*people(40))
    for _ in range(4):
        backlog.campaigns.release_round()
        backlog.refill()
    assert backlog.mailed() == 11 // per_session
    backlog.pipeline.drain()
    backlog.client.delete(*backlog.client.keys("*:released:*"))  # a minute later
    backlog.campaigns.release_round()
    backlog.pipeline.drain()
    said = sum(len(backlog.pipeline.said(sender)) for sender in people(40))
    assert said == 11 // per_session * per_session
    assert backlog.waiting() == 40 - 11 // per_session


def test_new_sessions_a_minute_count_invitations(held):
    backlog = held(new_sessions_per_minute=4)
    backlog.hold(*people(10))
    backlog.campaigns.release_round()
    backlog.refill()
    backlog.campaigns.release_round()
    assert backlog.mailed() == 4
    backlog.pipeline.drain()
    assert sum(bool(backlog.pipeline.said(sender)) for sender in people(10)) == 4


def test_in_quiet_hours_nobody_is_invited_and_it_is_put_off_until_they_end(held):
    """The channel is in UTC, the person in France, where it is an hour or two later."""
    now = datetime.now(UTC)
    minutes = (now.hour * 60 + now.minute) % 1440
    backlog = held(channel={"quiet": QuietHours(minutes, (minutes + 180) % 1440)})
    backlog.hold(*people(1))
    backlog.campaigns.release_round()
    k = keyspace.shard_of(people(1)[0], 16)
    ((_, score),) = backlog.client.zrange(keyspace.held_ids_key(k, "clinic"), 0, -1, withscores=True)
    assert score > now.timestamp() * 1000
    assert backlog.mailed() == 0


def test_what_has_expired_is_refused_and_costs_nobody_a_turn(held):
    backlog = held(invitations_per_second=1)
    backlog.hold(people(2)[0], expires_at=1_000)
    backlog.campaigns.release_round()
    (refused,) = backlog.pipeline.records(people(2)[0])
    assert isinstance(refused, OpeningRefused)
    assert refused.reason == "expired"
    assert (refused.invitation.id, refused.invitation.survey) == (refused.id, "clinic")
    backlog.hold(people(2)[1])
    backlog.campaigns.release_round()
    assert (backlog.waiting(), backlog.mailed()) == (0, 1)


def test_nobody_is_invited_before_the_moment_that_was_asked_for(held):
    backlog = held()
    later = backlog.server_ms() + 86_400_000
    backlog.hold(people(2)[0], not_before=later, asked_at=1, campaign="winter")
    backlog.hold(people(2)[1], not_before=backlog.server_ms() - 1)
    backlog.campaigns.release_round()
    assert (backlog.waiting(), backlog.mailed()) == (1, 1)


@pytest.mark.parametrize("waited_days, released", [(29, 1), (31, 0)])
def test_it_is_held_for_30_days_from_the_moment_that_was_asked_for(held, waited_days, released):
    """It was accepted 30 days before that."""
    backlog = held()
    due = backlog.server_ms() - waited_days * 86_400_000
    sender = people(1)[0]
    backlog.hold(sender, not_before=due)
    k = keyspace.shard_of(sender, 16)
    (id_,) = backlog.client.hkeys(keyspace.held_invitations_key(k))
    event = Invitation(id_.decode(), "clinic", "clinic", asked_at=due - 30 * 86_400_000, not_before=due)
    mail = f"{sender}\0{due - 30 * 86_400_000}".encode() + encode_event(event)
    backlog.client.hset(keyspace.held_invitations_key(k), id_, mail)
    backlog.campaigns.release_round()
    assert (backlog.waiting(), backlog.mailed()) == (0, released)
    assert (
        sum(isinstance(record, OpeningRefused) for record in backlog.pipeline.records(sender)) == 1 - released
    )


def test_what_an_invitation_belongs_to_is_in_its_sessions_record(held):
    backlog = held()
    backlog.hold(people(1)[0], campaign="winter", asked_at=7)
    backlog.campaigns.release_round()
    backlog.pipeline.drain()
    (invited,) = (each for each in backlog.pipeline.records(people(1)[0]) if isinstance(each, SessionInvited))
    assert (invited.invitation.campaign, invited.invitation.asked_at) == ("winter", 7)


def test_several_clocks_release_each_once(held):
    backlog = held()
    backlog.hold(*people(40))
    others = [Held(backlog.pipeline) for _ in range(3)]
    oldest = [
        each.campaigns._oldest_due("clinic", each.campaigns._read_backlogs()["clinic"], 40)[0]
        for each in others
    ]
    for each, found in zip(others, oldest, strict=True):
        each.campaigns._release_to_mailboxes("clinic", found)
    assert (backlog.waiting(), backlog.mailed()) == (0, 40)


def test_a_reply_that_is_lost_releases_nobody_twice(held, valkey):
    with Proxies(valkey, broker=False) as proxy:
        backlog = held(client=redis_client.connect(proxy.url))
        backlog.hold(*people(3))
        proxy.lose_replies(b"_release_invitations\r\n", times=1)
        backlog.campaigns.release_round()
        assert proxy.lost == 1
    assert (backlog.waiting(), backlog.mailed()) == (0, 3)


def test_an_invitation_needs_no_second_permit_beside_a_start_that_gets_none(held):
    """The START is refused as the channel's new sessions are used up; the invitation has had its permit."""
    backlog = held(new_sessions_per_minute=1)
    sender, other = people(2)
    backlog.hold(sender)
    backlog.campaigns.release_round()
    backlog.pipeline.accept(other, "START")
    backlog.pipeline.drain()
    assert backlog.pipeline.said(sender) == ["What is your name?"]
    assert any(isinstance(record, SessionOpened) for record in backlog.pipeline.records(sender))
    assert backlog.pipeline.said(other) == []


def test_one_that_cannot_be_read_holds_up_nobody(held):
    backlog = held()
    sender, other = people(2)
    backlog.hold(sender, other)
    k = keyspace.shard_of(sender, 16)
    (id_,) = backlog.client.hkeys(keyspace.held_invitations_key(k))
    backlog.client.hset(keyspace.held_invitations_key(k), id_, f"{sender}\0{now_ms()}".encode() + b"\xc1")
    backlog.campaigns.release_round()
    backlog.pipeline.drain()
    assert backlog.pipeline.said(other) == ["What is your name?"]
    assert backlog.client.hlen(keyspace.dead_letters_key(k)) == 1


def test_forgetting_a_person_drops_what_is_held_for_them_alone(held):
    backlog = held()
    sender, *others = [each for each in people(300) if keyspace.shard_of(each, 16) == 5]
    backlog.hold(sender, *others)
    assert forget_invitations(backlog.client, 16, sender) == 1
    assert forget_invitations(backlog.client, 16, sender) == 0
    assert backlog.waiting() == len(others)
    assert backlog.client.get(keyspace.session_key(5, f"{int(sender[1:]):016x}")) == b""


def test_how_many_sms_a_session_begins_with(pipeline):
    assert max_opening_sms(pipeline().world.surveys.current("clinic")) == 1
    assert max_opening_sms(pipeline(survey=TWO_SMS).world.surveys.current("clinic")) == 2
