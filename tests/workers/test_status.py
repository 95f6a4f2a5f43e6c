"""`parley status`: what was found is judged, worst first, and its exit status says the same."""

import json
import re
from contextlib import nullcontext
from io import StringIO
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from config.service.deployment_health import DeploymentState, assess_health
from config.settings.channels import Channel, ChannelLimits
from config.settings.config_errors import Secret
from config.settings.durability import DURABILITY_SETTINGS
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace, lua_library, redis_client
from config.store.counts.webhook_record import WebhookReading
from config.store.endpoint_health import EndpointHealth, encode_circuit
from config.store.entry_id import EntryId
from config.store.pauses import StoredPause
from config.telemetry import process_registry
from config.telemetry.hook_stats import HookStats
from config.telemetry.process_registry import ProcessHeartbeat
from config.telemetry.redis_stats import (
    AlarmStats,
    ChannelStats,
    QueueStats,
    RedisStats,
    ServerStats,
    ShardStats,
    StreamStats,
)
from engine.model.events import Invitation
from engine.model.timestamps import format_clock_time
from tests.support.hook_endpoint import SECRET
from tests.support.inviting import hold_command
from workers.commands.screens.status_screen import StatusScreen
from workers.commands.status import status
from workers.hooks.hook_store import HookStore
from workers.store.channel_state import ChannelStore

NOW = 1_795_283_600_000
MIN = 60_000
UP = ServerStats(up=True, now=NOW, memory=2**20)
DOWN = ServerStats(up=False, why="Connection refused")


def process(role, **fields):
    return ProcessHeartbeat(
        **{"at": NOW, "role": role, "library": lua_library.LIBRARY_NAME, "release": "1.0"} | fields
    )


def well(**found):
    """A deployment in which all is well, but for this."""
    return {
        "lanes": UP,
        "broker": UP,
        "processes": {role: process(role) for role in process_registry.WORK_COUNTERS},
        "queues": {"starts": QueueStats(), "replies": QueueStats(), "outbound": QueueStats()},
        "shards": [ShardStats(k=0, lanes=AlarmStats(), outboxes=AlarmStats())],
        "channels": {"clinic": ChannelStats()},
    } | found


def shard(**fields):
    return [ShardStats(**{"k": 0, "lanes": AlarmStats(), "outboxes": AlarmStats()} | fields)]


def paused(by, left_ms=0, **fields):
    pause = StoredPause(by=by, why="carrier incident", since=NOW - MIN, **fields)
    return {"clinic": ChannelStats(pause=pause, pause_left_ms=left_ms)}


def hook(**fields):
    return {"hooks": {"crm": HookStats(**{"owner": "here:1.a", "is_begun": True} | fields)}}


WRONG = {
    "lanes away": (
        {"lanes": DOWN, "processes": {}},
        "the Redis of the lanes does not answer (Connection refused): nothing is accepted, and nothing moves",
    ),
    "a replica away": (
        {"lanes": ServerStats(up=True, now=NOW, replicas=1), "replicas_wanted": 2},
        "1 replica follows the Redis of the lanes, and PARLEY_REPLICAS is 2: nothing is accepted but what the spool takes",
    ),
    "wake-ups away": ({"broker": DOWN}, "the Redis of the wake-ups does not answer (Connection refused)"),
    "nobody": ({"processes": {}}, "no process of Parley lives"),
    "no conversation and no clock": (
        {"processes": {role: process(role) for role in ("web", "ratelimit", "delivery", "archive", "hooks")}},
        "no `conversation` and no `clock` process lives",
    ),
    "nearly full": (
        {"lanes": ServerStats(up=True, now=NOW, memory=95, most_memory=100)},
        "the Redis of the lanes uses 95% of the memory that it may",
    ),
    "full": (
        {"lanes": ServerStats(up=True, now=NOW, memory=101, most_memory=100)},
        "the Redis of the lanes uses 101% of the memory that it may; what comes in is refused: raise its `maxmemory`",
    ),
    "slow": (
        {"queues": {"replies": QueueStats(900, 40_000)}},
        "900 wait in the queue replies (replies), the first for 40 s: more `conversation` processes are needed",
    ),
    "late": (
        {"shards": shard(lanes=AlarmStats(9, 3, 8_000))},
        "3 lanes are due and not rung for, the first for 8 s: `clock` does not keep up",
    ),
    "late outboxes": (
        {"shards": shard(outboxes=AlarmStats(9, 3, 8_000))},
        "3 outboxes are due and not rung for",
    ),
    "a late outbox": (
        {"shards": shard(outboxes=AlarmStats(9, 1, 8_000))},
        "1 outbox is due and not rung for",
    ),
    "abandoned": ({"shards": shard(abandoned=2)}, "2 lanes are held by workers that never came back"),
    "one that hangs": (
        {"silent": {"a": process("delivery", at=NOW - 3 * MIN, host="north", pid=71)}},
        (
            "delivery@north:71 has not been heard of for 3 min: if it is still there it hangs, and has to be killed (`kill -9`); "
            "if it was killed, this is forgotten in 12 min"
        ),
    ),
    "two that hang": (
        {
            "silent": {
                name: process("web", at=NOW - 3 * MIN, host=name, pid=71) for name in ("north", "south")
            }
        },
        "web@north:71 has not been heard of for 3 min, and neither have 1 more: if",
    ),
    "circuit": (
        {"channels": paused("circuit", 40_000)},
        "the clinic channel is paused as its provider fails, for another 40 s (carrier incident); it is tried again",
    ),
    "account": (
        {"channels": paused("account")},
        (
            "the clinic channel is paused as its provider refuses the account (carrier incident); mend the account, then "
            "`parley channel resume clinic`"
        ),
    ),
    "day spent": (
        {"channels": {"clinic": ChannelStats(sms_today=500, sms_cap=500)}},
        "the clinic channel has spent the day's 500 SMS",
    ),
    "an archive that is behind": (
        {"shards": shard(events=StreamStats(True, 1_234, 12 * MIN))},
        "the archive is 12 min behind, for which 1234 entries wait in Redis: see the log of `archive`",
    ),
    "no archive": (
        {"shards": shard(events=StreamStats(False, 5, 12 * MIN))},
        "no archive was ever seen: what was said is gone after 30 days: see the log of `archive`",
    ),
    "an archive that is ahead": (
        {
            "processes": {role: process(role) for role in process_registry.ROLES}
            | {"another": process("archive", held_shards=2)},
            "shards": shard(events=StreamStats(True, 5, 12 * MIN)),
        },
        "the archive is ahead of Redis, which has lost what it had last or is another one: 2 shards are not archived",
    ),
    "no hooks": (
        {"processes": {role: process(role) for role in process_registry.ROLES if role != "hooks"}}
        | hook(owner=""),
        "no `hooks` process lives",
    ),
    "an endpoint that fails": (
        hook(circuit=EndpointHealth(7, NOW - 12 * MIN, 3, NOW + MIN, "503 Service Unavailable: moving")),
        (
            "the endpoint of the hook crm has failed 7 times in a row in 12 min (503 Service Unavailable: moving); it is "
            "tried again and again, and goes on by itself"
        ),
    ),
    "an endpoint that fails, and is behind": (
        hook(lag_ms=20 * MIN, circuit=EndpointHealth(7, NOW - 12 * MIN, 3, NOW + MIN, "x" * 500)),
        (
            "the endpoint of the hook crm has failed 7 times in a row in 12 min, and is 20 min behind "
            f"({'x' * 120}…); it is tried"
        ),
    ),
    "an endpoint that is behind": (
        hook(lag_ms=6 * MIN),
        "the hook crm is 6 min behind: see the log of `hooks`",
    ),
    "endpoints that nobody has": (
        {"hooks": {f"hook{n}": HookStats() for n in range(5)}},
        "no process tells hook0, hook1, hook2 and 2 more (hooks) what happens: see the log of `hooks`",
    ),
    "dead letters": (
        {"shards": shard(dead={"engine_error": 2, "rejected": 1}, dead_oldest_ms=180 * MIN)},
        "3 dead letters (2 engine_error, 1 rejected), the oldest of 3 h ago: `parley dead list`",
    ),
    "Dramatiq's": (
        {"dramatiq_dead": {"dramatiq:default.XQ": 1}},
        "1 message in dead-letter queues of Dramatiq's own",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_is_wrong_is_said_in_one_sentence(name):
    found, sentence = WRONG[name]
    (wrong,) = assess_health(DeploymentState(RedisStats(**well(**found)))).wrong
    assert wrong.startswith(sentence)


@pytest.mark.parametrize(
    "events", [StreamStats(True, 7, 4 * MIN), StreamStats(False, 0, 0), StreamStats(True, 0, 0)]
)
def test_an_archive_that_keeps_up_and_one_that_has_nothing_to_do_are_well(events):
    assert assess_health(DeploymentState(RedisStats(**well(shards=shard(events=events))))).ok


@pytest.mark.parametrize(
    "fields", [{}, {"lag_ms": 4 * MIN}, {"circuit": EndpointHealth(2, NOW - MIN, 0, 0, "timed out")}]
)
def test_an_endpoint_that_keeps_up_and_one_that_stumbles_are_well(fields):
    assert assess_health(DeploymentState(RedisStats(**well(**hook(**fields))))).ok


def test_an_endpoint_that_an_operator_paused_is_known_and_not_wrong():
    """Though nothing of it is told, and however it did before."""
    pause = StoredPause(by="operator", why="it moves house", since=NOW - MIN, who="anna@ops")
    failing = EndpointHealth(7, NOW - MIN, 3, NOW, "503")
    found = well(**hook(pause=pause, pause_left_ms=MIN, lag_ms=20 * MIN, circuit=failing))
    verdict = assess_health(DeploymentState(RedisStats(**found)))
    assert verdict.ok
    assert verdict.notes == [
        (
            "the hook crm is paused by an operator, anna@ops, for another 1 min (it moves house), and is 20 min behind; "
            "`parley hooks resume crm` ends it"
        )
    ]


def test_who_is_to_tell_endpoints_is_said_where_nobody_does_and_nothing_where_none_is_configured():
    processes = {role: process(role) for role in process_registry.ROLES if role != "hooks"}
    without = DeploymentState(RedisStats(**well(processes=processes)))
    assert assess_health(without).ok
    nobody = DeploymentState(RedisStats(**well(processes={}, **hook(owner=""))))
    assert assess_health(nobody).wrong == ["no process of Parley lives"]
    behind = DeploymentState(RedisStats(**well(processes=processes, **hook(owner="", lag_ms=12 * MIN))))
    assert assess_health(behind).wrong == [
        "no `hooks` process lives",
        "the hook crm is 12 min behind: that is for `hooks` to do",
    ]


def test_who_is_to_archive_is_said_where_nobody_does():
    processes = {role: process(role) for role in process_registry.ROLES if role != "archive"}
    found = well(processes=processes, shards=shard(events=StreamStats(True, 1, 12 * MIN)))
    assert assess_health(DeploymentState(RedisStats(**found))).wrong == [
        "no `archive` process lives",
        "the archive is 12 min behind, for which 1 entry waits in Redis: that is for `archive` to do",
    ]


def test_all_is_well():
    assert assess_health(DeploymentState(RedisStats(**well()))) == assess_health(
        DeploymentState(RedisStats(**well(dramatiq_dead={})))
    )
    assert assess_health(DeploymentState(RedisStats(**well()))).ok


def test_settings_that_break_a_promise_are_wrong():
    (wrong,) = assess_health(DeploymentState(RedisStats(**well()), {"appendfsync": "everysec"})).wrong
    assert wrong == "Redis may lose what was acknowledged: appendfsync is 'everysec', not 'always'"


def test_a_server_that_may_lose_something_is_as_the_operator_says():
    def judged(forgetful, durability):
        return assess_health(DeploymentState(RedisStats(**well()), forgetful, durability=durability))

    assert judged({"appendfsync": "everysec"}, "relaxed").wrong == []
    assert "relaxed" in judged({"appendfsync": "everysec"}, "relaxed").notes[0]
    assert judged({"appendfsync": "everysec"}, "managed").notes == []
    assert "does not show" in judged(None, "strict").wrong[0]
    assert judged(None, "managed").wrong == []


def test_a_clock_that_is_wrong_is_told_of_its_machine():
    there = well()
    names = list(there["processes"])
    for name, ahead_ms in zip(names, (-60_000, 1_500, 900), strict=False):
        process = there["processes"][name]
        there["processes"][name] = msgspec.structs.replace(process, clock_ahead_ms=ahead_ms)
    (wrong,) = assess_health(DeploymentState(RedisStats(**there))).wrong
    worst = there["processes"][names[0]]
    assert wrong == (
        f"the clock of {worst.role}@{worst.host} differs, as does that of 1 more: it is 1 min behind that of Redis, "
        "and one of them is wrong"
    )


def test_the_worst_comes_first():
    found = {name: fields for name in ("dead letters", "slow") for fields in [WRONG[name][0]]}
    verdict = assess_health(
        DeploymentState(RedisStats(**well(**found["dead letters"], **found["slow"], broker=DOWN)))
    )
    assert [each.split()[0] for each in verdict.wrong] == ["the", "900", "3"]


def test_what_an_operator_paused_is_known_and_not_wrong():
    verdict = assess_health(DeploymentState(RedisStats(**well(channels=paused("operator", who="anna@ops")))))
    assert verdict.ok
    assert verdict.notes == [
        "the clinic channel is paused by an operator, anna@ops (carrier incident); `parley channel resume clinic` ends it"
    ]


def test_where_nobody_works_nobody_is_said_to_be_too_slow():
    rest = {
        role: process(role)
        for role in process_registry.WORK_COUNTERS
        if role not in ("clock", "conversation")
    }
    found = {
        "processes": rest,
        "queues": {"replies": QueueStats(1, 40_000)},
        "shards": shard(lanes=AlarmStats(9, 1, 8_000)),
    }
    assert assess_health(DeploymentState(RedisStats(**well(**found)))).wrong == [
        "no `conversation` and no `clock` process lives",
        "1 lane is due and not rung for, the first for 8 s: that is for `clock` to do",
        "1 waits in the queue replies (replies), the first for 40 s",
    ]


def test_what_would_keep_a_process_from_starting_is_known():
    state = DeploymentState(
        RedisStats(**well()), mistakes=["clinic.yaml: no step is called 'x'", "quiz.yaml: no steps"]
    )
    assert assess_health(state).ok
    assert assess_health(state).notes == [
        (
            "with the settings and surveys as they are here no process would start: clinic.yaml: no step is called 'x', "
            "and 1 more (`parley check`)"
        )
    ]


def test_two_releases_side_by_side_are_told_and_not_wrong():
    both = {role: process(role) for role in process_registry.WORK_COUNTERS} | {
        "old": process("web", library="parley_00000000")
    }
    verdict = assess_health(DeploymentState(RedisStats(**well(processes=both))))
    assert verdict.ok
    assert verdict.notes[0].startswith("processes of 2 releases run side by side: 1.0 (00000000), 1.0 (")


@pytest.fixture
def call(pipeline, monkeypatch, tmp_path, valkey):
    """A function: arguments -> result, where one process of each role lives."""
    town = pipeline()
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    now = redis_client.server_time_ms(town.client)
    for role in process_registry.WORK_COUNTERS:
        process_registry.store_heartbeat(
            town.client, f"{role}@here:1.a", msgspec.structs.replace(process(role), at=now, per_s=7.5)
        )

    def run(*arguments):
        result = CliRunner().invoke(status, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    run.town = town
    return run


def test_the_exit_status_says_what_the_first_line_says(call):
    fine = call()
    assert (fine.exit_code, fine.stdout.splitlines()[0].strip()) == (0, "All is well.")
    call.town.deposit("+33600000001", b"\xc1 no event")
    call.town.drain()
    bad = call()
    assert bad.exit_code == 1
    assert "- 1 dead letter (1 undecodable), the oldest of 0" in bad.stdout
    assert bad.stdout.startswith("No archive was ever seen"), "the letter is told of in the event stream"


def test_who_works_is_shown_with_how_much_and_who_waits(call):
    call.town.accept("+33600000001", "START")
    lines = call().stdout.splitlines()
    (waits,) = (line.split() for line in lines if line.startswith("ratelimit "))
    assert waits[:5] == ["ratelimit", "1", "7.5", "starts", "1"]


def test_only_shards_in_which_something_is_wrong_are_shown_unless_all_are_wanted(call):
    call.town.accept("+33600000001", "START")
    call.town.deposit("+33600000002", b"\xc1 no event")
    assert call.town.woken("replies") == ["+33600000002"]

    def shards(*arguments):
        (*_, table) = call(*arguments).stdout.partition("shard ")
        return [line.split()[0] for line in table.splitlines() if line.strip().partition(" ")[0].isdigit()]

    assert shards() == [str(keyspace.shard_of("+33600000002", DEFAULT_SHARDS))]
    assert shards("--shards") == [str(k) for k in range(DEFAULT_SHARDS)]


def test_a_program_reads_all_of_it(call):
    ChannelStore(call.town.client, call.town.world.settings.channels).pause(
        "clinic", "carrier incident", None
    )
    told = json.loads(call("--json").stdout)
    assert (told["ok"], told["wrong"], len(told["notes"])) == (True, [], 1)
    assert told["channels"]["clinic"]["pause"]["by"] == "operator"
    assert told["channels"]["clinic"]["pause_left_ms"] == 0
    assert told["processes"]["web@here:1.a"]["per_s"] == 7.5
    assert told["queues"]["replies"] == {"depth": 0, "oldest_ms": 0}


@pytest.fixture
def crm(call, monkeypatch, tmp_path):
    """The store of an endpoint that is configured."""
    monkeypatch.setenv("CRM_SECRET", SECRET)
    with (tmp_path / "parley.toml").open("a") as file:
        file.write('[hooks.crm]\nurl = "https://crm.example.org/parley"\nsecret_env = "CRM_SECRET"\n')
    return HookStore(call.town.client, "here.example.org:7.a1")


def test_endpoints_are_shown_with_who_tells_them_and_how_they_do(call, crm):
    def shown():
        return next(line.split() for line in call().stdout.splitlines() if line.strip().startswith("crm "))

    assert shown() == ["crm", "not", "begun", "nobody", "no"]
    (token,) = crm.take(["crm"])
    crm.begin("crm", [EntryId(0, 0)] * 16)
    assert shown() == ["crm", "-", "here.example.org:7", "no"]
    assert call().exit_code == 0
    at = redis_client.server_time_ms(call.town.client) - 200_000
    call.town.client.xadd(keyspace.events_key(0), {"to": "+33600000001", "e": b"x"}, id=f"{at}-0")
    assert shown()[:3] == ["crm", "3", "min"]
    crm.move("crm", token, {}, encode_circuit(EndpointHealth(3, at, 1, at, "500 [red]Oh[/red]")))
    assert "500 [red]Oh[/red]" in call().stdout, "what strangers say is no markup"
    crm.pause("crm", "it moves house", "anna")
    assert " ".join(shown()).endswith("by an operator, anna (it moves house)")
    told = json.loads(call("--json").stdout)["hooks"]["crm"]
    assert 200_000 <= told["lag_ms"] < 300_000
    assert (told["owner"], told["pause"]["who"], told["circuit"]["level"]) == (
        "here.example.org:7.a1",
        "anna",
        1,
    )


def test_what_breaks_a_promise_is_found_on_the_server(call, valkey):
    call.town.client.config_set("appendfsync", "everysec")
    try:
        said = call().stdout
        assert re.search(r"Redis may lose what was acknowledged: appendfsync (at \S+ )?is 'everysec'", said)
    finally:
        call.town.client.config_set("appendfsync", DURABILITY_SETTINGS["appendfsync"])


def test_servers_that_are_away_are_said_to_be(call, monkeypatch):
    for variable in ("PARLEY_REDIS_URL", "PARLEY_BROKER_URL"):
        monkeypatch.setenv(variable, "redis://127.0.0.1:1/0")
    away = call()
    assert away.exit_code == 1
    assert away.stdout.startswith("The Redis of the lanes does not answer")
    assert "the Redis of the wake-ups does not answer" in away.stdout
    assert ".)" not in away.stdout
    assert "queue " not in away.stdout  # no table of nothing


def test_a_survey_file_that_no_process_would_start_with_is_told(call, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "clinic.yaml").write_text("survey: clinic\nsteps: []\n")
    monkeypatch.setenv("PARLEY_SURVEYS", str(broken))
    told = call()
    assert told.exit_code == 0
    first, second = told.stdout.splitlines()[:2]
    assert first.strip() == "Nothing is wrong, but mind:"
    assert "no process would start: clinic.yaml" in second


def test_a_narrow_terminal_shows_every_heading_of_the_shards(call, monkeypatch):
    monkeypatch.setattr("engine.commands.terminal.PIPED_WIDTH", 80)
    call.town.accept("+33600000001", "START")
    shown = call("--shards").stdout.splitlines()
    (heading,) = (line for line in shown if line.strip().startswith("shard "))
    assert heading.split() == [
        "shard", "alarms", "due", "late", "held", "abandoned", "outboxes", "due", "late", "letters",
    ]  # fmt: skip


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_who_watches_sees_it_again_and_again_until_they_stop(call, monkeypatch, form):
    """Its exit status is that of the last look."""
    waits = iter(["accept", "stop"])

    def wait_to_look(_):
        if next(waits) == "stop":
            return False
        call.town.deposit("+33600000001", b"\xc1 no event")
        call.town.drain()
        return True

    monkeypatch.setattr("workers.commands.status.until_interrupted", lambda: nullcontext(wait_to_look))
    watched = call("--watch", *form)
    assert watched.exit_code == 1
    assert "dead letter" in watched.stdout
    if form:  # our log may be between the lines
        told = [json.loads(line) for line in watched.stdout.splitlines() if line.startswith("{")]
        assert [each["ok"] for each in told] == [True, False]


def test_wrong_tokens_are_wrong_until_a_good_one_has_come():
    def judged(good_ms):
        stands = ChannelStats(webhooks=WebhookReading(good_ms, NOW, 60))
        return assess_health(DeploymentState(RedisStats(**well(channels={"clinic": stands}))))

    came = "clinic: 60 webhooks with a wrong token or signature in 5 min"
    never, after = judged(0), judged(NOW - 30 * MIN)
    assert never.wrong == [f"{came}; never a good one: `parley check` has the URL to give to the provider"]
    assert never.notes == []
    assert (after.wrong, after.notes) == ([], [f"{came}; the last good one 17:23 UTC"])


def service(call):
    return json.loads(call("--json").stdout)["service"]


def hold(call, hours, *places):
    """Invitations of these, each of which was asked to be sent in so many hours."""
    now = redis_client.server_time_ms(call.town.client)
    for place in places:
        sender = f"+3360000{place:04}"
        invitation = Invitation(f"{place:016x}", "clinic", "clinic")
        k = keyspace.shard_of(sender, call.town.world.settings.shards)
        command = hold_command(k, sender, invitation, now + 10**10, now + hours * 3_600_000)
        redis_client.run_command(call.town.client, command)
    return now


def test_how_the_service_does_is_told_of_what_there_is(call, crm):
    """What deliveries note is looked at with real ones, in tests/faults/test_status_screen.py."""
    call.town.accept("+33600000001", "START")
    call.town.accept("+33600000002", "START", "Ada", "33")
    call.town.deposit("+33600000003", b"\xc1 no event")
    call.town.drain()
    now = hold(call, 0, *range(100, 340))
    hold(call, 20, 400, 401)
    told = service(call)
    clinic = told["channels"]["clinic"]
    assert told["open_conversations"] == 1, "one is over, and one never began"
    assert told["dead_letters"] == {"undecodable": 1}
    assert (clinic["invitations"], clinic["invitations_later"]) == (240, 2)
    assert clinic["invitations_until"] - now == pytest.approx(2_400, abs=60_000), "100 a second"
    assert (told["is_archived"], told["archive_waiting"]) == (False, sum(events(call)))
    assert told["hooks"] == {"crm": {"lag_ms": 0, "is_told": False}}, "nobody has it"
    assert told["roles"]["web"] == {"living": 1, "silent": 0, "per_s": 7.5}
    shown = call().stdout
    later = service(call)  # a minute may end in between
    untils = {
        format_clock_time(each["channels"]["clinic"]["invitations_until"], each["now"])
        for each in (told, later)
    }
    assert any(f"240 until {until}, 2 later" in shown for until in untils)
    ChannelStore(call.town.client, call.town.world.settings.channels).pause("clinic", "an incident", None)
    assert service(call)["channels"]["clinic"]["invitations_until"] is None
    assert "240, paused, 2 later" in call().stdout


def events(call):
    for k in range(call.town.world.settings.shards):
        yield call.town.client.xlen(keyspace.events_key(k))


def test_nothing_is_told_of_a_service_that_nobody_can_see(call, monkeypatch):
    monkeypatch.setenv("PARLEY_REDIS_URL", "redis://127.0.0.1:1/0")
    assert service(call) is None


def drawn(found, columns, rows):
    """The lines of a screen that does not scroll."""
    console = Console(width=columns, height=rows, color_system=None, legacy_windows=False, file=StringIO())
    state = DeploymentState(RedisStats(**found))
    settings = SimpleNamespace(channels={name: channel_named(name) for name in found["channels"]})
    screen = StatusScreen(settings, every_shard=False)
    console.print(screen.draw_fitting(console, state, assess_health(state)), end="")
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def channel_named(name):
    zone = ZoneInfo("UTC")
    return Channel(name, "simulator", "+33700000001", ("clinic",), Secret(), zone, ChannelLimits())


def test_however_much_is_wrong_a_screen_shows_how_the_service_does():
    """Whole lines, with what is not there counted."""
    pause = StoredPause(by="circuit", why="500: Internal Server Error", since=NOW - 60_000)
    names = [f"channel-{place}" for place in range(9)]
    found = well(channels={name: ChannelStats(held=7, held_near=5, pause=pause) for name in names})
    lines = drawn(found, 80, 24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("The channel-0 channel is paused as its provider fails (500")
    (more,) = (line for line in lines if "more: `parley status`" in line)
    assert 0 < int(more.split()[1]) < 9
    assert "conversations  0 open" in lines
    assert any(line.split()[:2] == ["channel-0", "0.0"] and "5 paused" in line for line in lines)
    assert lines[-1] == "more: in a larger window, or `parley status`"
    assert len(drawn(found, 200, 90)) < 90
    assert "  and" not in "\n".join(drawn(found, 200, 90)), "there is room for all"
