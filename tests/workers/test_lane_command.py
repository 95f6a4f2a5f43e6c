"""`parley lane` tells what is, of real situations, and changes nothing by looking."""

import json
import re

import pytest
from click.testing import CliRunner

from config.settings.log_key import former_log_key
from config.store import keyspace, lua_library, redis_client
from config.telemetry import process_registry
from config.telemetry.logs import hash_sender
from config.telemetry.process_registry import ProcessHeartbeat
from engine.model.events import Invitation, SmsPart, encode_event
from engine.model.lane import Lane, encode_lane
from tests.support.archiving import run_rounds
from tests.support.inviting import hold_command
from workers.commands.lane import as_builtins, lane
from workers.commands.transcript import transcript
from workers.diagnosis.diagnose import diagnose
from workers.diagnosis.sender_snapshot import SenderSnapshot
from workers.roles.archive import prepare_archiver
from workers.store import survey_versions
from workers.store.dead_letter_store import FailedAttempt
from workers.store.optouts import OptOutEntry

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"

TOLD = b"""
survey: clinic
start: [START]
idle: 10m
steps:
  - {id: name, ask: "What is your name?", answer: {type: text}}
  - {id: age, ask: "How old are you, {name}?", answer: {type: number}, remind: {after: 150s, text: "Still there?"}}
"""


class Town:
    """A pipeline, and what the command says of its people."""

    def __init__(self, town):
        self.town = town
        self.client = town.client
        self.shards = town.world.settings.shards

    def key(self, name, sender="+33600000001"):
        return name(keyspace.shard_of(sender, self.shards), sender)

    def index(self, name, sender="+33600000001"):
        return name(keyspace.shard_of(sender, self.shards))

    def talk(self, *texts, sender="+33600000001"):
        self.town.accept(sender, *texts)
        self.town.drain()

    def deliver(self, sender="+33600000001"):
        """Whatever waits to leave has left."""
        self.client.delete(self.key(keyspace.outbox_key, sender))
        self.client.zrem(self.index(keyspace.outbox_alarms_key, sender), sender)
        self.town.world.broker.delete(keyspace.wakeup_queue_key("outbound"))

    def ask(self, *arguments, sender="+33600000001", status=0):
        result = CliRunner().invoke(lane, [sender, *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == status, result.output
        return result.output

    def sentence(self, **options):
        return self.told(**options)["diagnosis"]["sentence"]

    def told(self, **options):
        return json.loads(self.ask("--json", **options))


@pytest.fixture
def town(pipeline, monkeypatch, tmp_path, valkey):
    """A factory of a town with one process of each role alive."""
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path / "surveys"))

    def build(*survey, **limits):
        built = Town(pipeline(*survey, **limits))
        now = redis_client.server_time_ms(built.client)
        for role in process_registry.WORK_COUNTERS:
            process_registry.store_heartbeat(
                built.client,
                f"{role}@here:1.a",
                ProcessHeartbeat(now, role=role, library=lua_library.LIBRARY_NAME),
            )
        return built

    return build


def test_nothing_is_known_of_a_stranger(town):
    assert town().ask(status=1).startswith("Nothing is known of this number")


@pytest.mark.parametrize("written", ["+33 6 00-00.00 01", "0033600000001"])
def test_a_number_may_be_written_as_people_write_it(town, written):
    assert town().told(sender=written, status=1)["sender"] == ANNA


@pytest.mark.parametrize("arguments", [["0600000001"], [ANNA, "--channel", "clinik"]])
def test_a_mistake_is_told(town, arguments):
    town()
    assert CliRunner().invoke(lane, arguments).exit_code == 2


def test_a_session_is_shown_with_its_step_version_and_deadlines(town):
    anna = town(TOLD)
    anna.talk("START", "Anna")
    anna.deliver()
    assert anna.sentence() == "Waits for an answer to `age` of clinic; they are reminded in 2 min."
    (thread,) = anna.told()["threads"]
    session = thread["session"]
    assert (session["survey"], session["step"], session["current"], session["language"]) == (
        "clinic", "age", True, "en",
    )  # fmt: skip
    assert [each["what"] for each in session["ahead"]] == ["remind", "idle", "expired"]
    assert session["ahead"][0]["at"] == anna.told()["alarm"] == anna.told()["deadline"]
    assert [record["event"] for record in anna.told()["records"]][-2:] == ["heard", "said"]
    screen = anna.ask()
    assert "clinic at `age`, in en, opened " in screen
    assert "How old are you, Anna?" in screen


def test_a_session_on_a_version_that_nobody_runs_any_more_is_older(town):
    anna = town(TOLD)
    anna.talk("START")
    survey_versions.publish_current(anna.client, anna.town.world.surveys)
    newer = ProcessHeartbeat(
        redis_client.server_time_ms(anna.client), {"clinic": "0" * 16}, library=lua_library.LIBRARY_NAME
    )
    process_registry.store_heartbeat(anna.client, "conversation@here:1.a", newer)
    assert "(OLDER than what runs)" in anna.ask()
    session = anna.told()["threads"][0]["session"]
    assert (session["current"], session["step"], session["problem"]) == (False, "name", "")


def test_a_version_that_this_release_cannot_read_is_lost_in_words_only(town):
    """Nothing is logged into what a program reads."""
    anna = town(TOLD)
    anna.talk("START")
    version = anna.told()["threads"][0]["session"]["version"]
    anna.client.hset(
        keyspace.SURVEYS_KEY, version, survey_versions.encode_survey_file(("clinic.yaml", b"steps: 7"))
    )
    newer = ProcessHeartbeat(
        redis_client.server_time_ms(anna.client), {"clinic": "0" * 16}, library=lua_library.LIBRARY_NAME
    )
    process_registry.store_heartbeat(anna.client, "conversation@here:1.a", newer)
    assert "cannot be read" in anna.told()["threads"][0]["session"]["problem"]


def test_a_session_whose_version_is_lost_says_so(town):
    anna = town(TOLD)
    anna.talk("START")
    anna.deliver()
    newer = ProcessHeartbeat(
        redis_client.server_time_ms(anna.client), {"clinic": "0" * 16}, library=lua_library.LIBRARY_NAME
    )
    process_registry.store_heartbeat(anna.client, "conversation@here:1.a", newer)
    assert "is not kept anywhere, or cannot be read: whatever they send becomes" in anna.sentence()


def test_what_is_left_of_each_limit_is_told(town):
    anna = town(
        start_burst=2,
        start_per_minute=1,
        sessions_per_sender_per_day=3,
        new_sessions_per_minute=6,
        sms_per_day=50,
    )
    for _ in range(3):
        anna.talk("START")
    anna.deliver()
    (thread,) = anna.told()["threads"]
    assert (thread["opened_today"], thread["most_today"], thread["starts_left"]) == (1, 3, 0)
    assert thread["next_start_at"] > anna.told()["now"]
    screen = anna.ask()
    assert "1 of 3 sessions today, 0 STARTs left, the next in" in screen
    assert "2 of 50 SMS today, 5 of 6 new sessions a minute left" in screen


def test_a_throttled_start_says_when_the_next_is_let_through(town):
    anna = town(start_burst=1, start_per_minute=1)
    anna.talk("START", "Anna", "30")
    anna.talk("START")
    anna.deliver()
    sentence = anna.sentence()
    assert (
        "opened nothing: too many STARTs came in a short while; the next START is let through in" in sentence
    )


def test_an_opt_out_is_told_by_whose_word(town):
    anna = town()
    anna.talk("START", "STOP")
    anna.deliver()
    assert re.fullmatch(
        r"They opted out of clinic 0[.0-9]* s ago: nothing is sent on it until they say START\.",
        anna.sentence(),
    )
    assert [each["source"] for each in anna.told()["opt_outs"]] == ["person"]


def test_an_opt_out_of_somebody_without_a_lane_is_told(town):
    anna = town()
    anna.talk("STOP")
    anna.client.delete(anna.key(keyspace.lane_key), anna.index(keyspace.events_key))
    anna.deliver()
    assert anna.sentence().startswith("They opted out of clinic")


def test_an_opt_out_that_the_lane_has_not_heard_of_is_told(town):
    anna = town()
    anna.talk("START")
    anna.deliver()
    optouts = anna.town.turns._lanes._optouts
    k = anna.index(lambda k: k)
    optouts.restore([OptOutEntry(k, optouts.hash_number(ANNA), "clinic", 1, "import march.csv")])
    assert anna.sentence().startswith(
        "The list of opt-outs has them for clinic, but their lane does not know it"
    )
    optouts.remove_opt_outs(ANNA, ["clinic"])
    optouts.add_opt_outs([(ANNA, "clinic")], "operator")
    assert "it may be in the mail that waits" in json.dumps(anna.told()["diagnosis"])


def test_another_opt_out_key_is_said_and_hides_nothing_else(town, monkeypatch):
    anna = town()
    anna.talk("START")
    monkeypatch.setenv("PARLEY_OPTOUT_KEY", "another")
    told = anna.told()
    assert any("PARLEY_OPTOUT_KEY" in each for each in told["unreadable"])
    assert told["threads"][0]["session"]["step"] == "name"


def test_looking_makes_no_opt_out_key(town, monkeypatch):
    """The first worker makes it, and it must be the same for all."""
    anna = town()
    keys = (keyspace.OPTOUT_SECRET_KEY, keyspace.OPTOUT_SECRET_CHECK_KEY)
    for key in keys:
        anna.client.delete(key)
    anna.ask(status=1)
    monkeypatch.setenv("PARLEY_OPTOUT_KEY", "the first worker's")
    assert anna.told(status=1)["unreadable"] == []
    assert not any(map(anna.client.exists, keys))


def test_mail_that_nobody_has_looked_at_is_counted_with_its_kind_and_age(town):
    anna = town()
    anna.town.accept(ANNA, "START", "Anna", "30")
    told = anna.told()
    assert [(each["kind"], each["text"]) for each in told["mail"]] == [
        ("start", "START"), ("sms", "Anna"), ("sms", "30"),
    ]  # fmt: skip
    assert anna.sentence().startswith("3 events wait in the mailbox, the oldest for")
    assert told["queues"]["starts"]["place"] == 0


def test_parts_that_wait_for_the_others_are_told(town):
    anna = town()
    part = SmsPart("00000000000000b1", "clinic", "hello ", "7", 1, 3)
    anna.town.deposit(ANNA, encode_event(part))
    anna.town.drain()
    assert anna.sentence() == (
        "1 of 3 parts of a long SMS have come; without the others it is taken as it is in 10 min."
    )


def test_an_invitation_that_is_held_is_told(town):
    anna = town()
    k = keyspace.shard_of(ANNA, anna.shards)
    event = Invitation("00000000000000a1", "clinic", "clinic")
    now = redis_client.server_time_ms(anna.client)
    redis_client.run_command(
        anna.client, hold_command(k, ANNA, event, now + 3_600_000, not_before_ms=now + 1_800_000)
    )
    assert re.match(
        r"An invitation to clinic on clinic has waited for .*; it is not sent before (30|29) min",
        anna.sentence(),
    )
    assert anna.told(sender=BORIS, status=1)["invitations"] == []


def test_a_dead_letter_is_told_with_how_to_see_it(town):
    anna = town()
    anna.talk("START")
    anna.deliver()
    anna.town.deposit(ANNA, b"\xc1 no event")
    anna.town.drain()
    (letter,) = anna.told()["dead"]
    assert anna.sentence().endswith(
        f" ago: what they sent could not be handled (undecodable); `parley dead show {letter['id']}`."
    )
    assert "Waits for an answer" in anna.told()["diagnosis"]["also"][0]


def test_a_lost_alarm_is_found(town):
    anna = town()
    anna.town.accept(ANNA, "START")
    anna.client.zrem(anna.index(keyspace.lane_alarms_key), ANNA)
    anna.town.world.broker.delete(keyspace.wakeup_queue_key("starts"))
    assert "no alarm is set, so nobody will come, which cannot be explained" in anna.sentence()


def test_looking_changes_nothing_but_the_audit(town):
    anna = town(start_burst=3)
    anna.talk("START", "Anna")
    anna.town.accept(ANNA, "30")
    anna.town.deposit(ANNA, b"\xc1 no event")
    anna.ask()  # the first of all stores the number of shards

    def everything():
        return [
            (name, client.dump(name), client.pexpiretime(name))
            for client in (anna.client, anna.town.world.broker)
            for name in sorted(client.keys())
            if name != keyspace.AUDIT_KEY.encode()
        ]

    before = everything()
    anna.ask()
    anna.ask("--json", "--channel", "clinic")
    assert everything() == before


def damaged_lane(town):
    town.client.set(town.key(keyspace.lane_key), b"7 0 " + encode_lane(Lane(format=99)))


DAMAGE = {
    "mail": lambda town: town.client.lpush(town.key(keyspace.mailbox_key), b"R\xff"),
    "mail without a time": lambda town: town.client.lpush(town.key(keyspace.mailbox_key), b""),
    "lane": lambda town: town.client.set(town.key(keyspace.lane_key), b"\xff\x00"),
    "lane of a later release": damaged_lane,
    "lock": lambda town: town.client.set(town.key(keyspace.lane_lock_key), b"\xff"),
    "outbox": lambda town: town.client.lpush(town.key(keyspace.outbox_key), b"\xff"),
    "outbox, SMS": lambda town: town.client.lpush(town.key(keyspace.outbox_key), b"clinic\0\xa1\xff"),
    "outbox lock": lambda town: town.client.set(town.key(keyspace.outbox_lock_key), b"0 1"),
    "tries": lambda town: town.client.lpush(town.key(keyspace.failed_attempts_key), b"\xff"),
    "archive": lambda town: town.client.xadd(town.index(keyspace.events_key), {"to": ANNA, "e": b"\xff"}),
    "archive, no records": lambda town: town.client.xadd(town.index(keyspace.events_key), {"to": ANNA}),
    "held": lambda town: town.client.hset(
        town.index(keyspace.held_invitations_key), "1", ANNA.encode() + b"\0\xff"
    ),
    "held, another's": lambda town: town.client.hset(town.index(keyspace.held_invitations_key), "1", b"\xff"),
    "letter": lambda town: (
        town.client.hset(town.index(keyspace.dead_letters_key), "e1", b"\xff"),
        town.client.zadd(town.index(keyspace.dead_letter_index_key), {"e1": 1}),
    ),
    "pause": lambda town: town.client.set(keyspace.pause_key("clinic"), b"\xff", px=9_000),
    "process": lambda town: town.client.hset(keyspace.PROCESSES_KEY, "web@x:1.a", b"\xff"),
    "survey": lambda town: town.client.hset(keyspace.SURVEYS_KEY, "x", b"\xff"),
    "opt-outs": lambda town: town.client.hset(
        town.index(keyspace.optouts_key), town.town.turns._lanes._optouts.hash_number(ANNA), b"\xff"
    ),
}

ELSEWHERE = {"held, another's", "letter", "pause", "process", "survey"}
"""What does not keep the command from telling all of this person."""


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_what_cannot_be_read_is_said_and_hides_nothing_else(town, what):
    anna = town()
    anna.talk("START")
    DAMAGE[what](anna)
    told = anna.told()
    if what not in ELSEWHERE:
        assert told["unreadable"] or told["state_unreadable"]
        said = told["diagnosis"]
        assert any(
            "damaged" in each or "cannot be read" in each for each in [said["sentence"], *said["also"]]
        )
    assert "What is your name?" in json.dumps(told["records"])
    assert told["outbox_count"]
    anna.ask()


def test_a_redis_of_the_wake_ups_that_is_away_is_the_answer(town, monkeypatch):
    anna = town()
    anna.talk("START")
    monkeypatch.setenv("PARLEY_BROKER_URL", "redis://127.0.0.1:1/0")
    assert anna.sentence().startswith("The Redis of the wake-ups does not answer")


def test_attempts_that_failed_are_objects_in_json():
    found = SenderSnapshot(
        sender="+33600000001", shard=0, now=9, tries=[FailedAttempt(5, "500", "Try again")]
    )
    assert as_builtins(found, diagnose(found))["tries"] == [{"at": 5, "code": "500", "why": "Try again"}]


def test_a_person_is_found_by_the_name_that_logs_have_for_them(town):
    """Also by that of releases before, which was made of secrets; and without a lane, if there is a dead letter of theirs."""
    anna = town()
    anna.talk("START", sender=BORIS)
    anna.talk("START")
    name = anna.told()["log_name"]
    assert re.search(rf"^in logs +sender={name}$", anna.ask(), re.MULTILINE)
    former = hash_sender(former_log_key(anna.town.world.settings), ANNA)
    for written in (name, f"sender={name}", former):
        told = anna.told(sender=written)
        assert (told["sender"], told["log_name"]) == (ANNA, name)
        assert told["threads"][0]["session"], "all of it is there"
    anna.town.deposit(CLARA, b"\xc1 no event")
    anna.town.drain()
    anna.client.delete(*(key for key in anna.client.keys(f"*:{CLARA}")))
    assert anna.told(sender=hash_sender(anna.town.world.open_log_key(), CLARA))["sender"] == CLARA


def test_whom_nobody_can_find_is_said(town):
    anna = town()
    anna.talk("START")
    said = anna.ask(sender="00c0ffee00", status=1)
    assert "nobody whom logs name 00c0ffee00 has anything here" in said
    assert "expected a phone number" in anna.ask(sender="c0ffee", status=2)


def test_a_person_of_whom_only_the_archive_knows_is_found(town, sqlite_archive):
    anna = town()
    anna.talk("START")
    run_rounds(prepare_archiver(anna.town.world, sqlite_archive))
    anna.client.delete(*(key for key in anna.client.keys(f"*:{ANNA}")))
    name = hash_sender(anna.town.world.open_log_key(), ANNA)
    said = CliRunner().invoke(transcript, [name])
    assert said.exit_code == 0, said.output
    assert "What is your name?" in said.stdout
