"""Alerts and dashboard on a real pipeline: Prometheus scrapes it while people text, and judges it by Parley's rules,
whose durations are divided by PACE.

One story, told once: a loaded and healthy deployment, in which nothing may fire; then fault after fault, each with the
alerts that it must make fire. The test says what the story must have shown. What it cannot show has its reason in
ELSEWHERE, and is proved by promtool (tests/config/alerts_test.yml) like all others.
"""

import re
import shutil
import sys
from contextlib import ExitStack, suppress
from itertools import count
from threading import Event, Thread
from time import monotonic

import pytest
import requests

from config.settings.settings import load_settings
from config.store import function_calls, keyspace, redis_client
from config.store.entry_id import BEGINNING
from config.telemetry import process_registry
from config.telemetry.process_registry import ROLES, ProcessHeartbeat
from engine.model.events import InboundSms, encode_event
from tests.support import clinic
from tests.support.hook_endpoint import SECRET, Answer, hook_endpoint
from tests.support.inviting import Api, key_table
from tests.support.octopush import FakeOctopush, Faults, Scripted
from tests.support.person import inbound
from tests.support.processes import SURVEYS, TOKEN, Deployment, Process, odd_process
from tests.support.prometheus import RULES, Prometheus, alerts, hurried, panels
from tests.support.twilio import FakeTwilio
from tests.support.valkey import Valkey
from tests.support.waiting import free_port, until
from workers.hooks.hook_store import HookStore
from workers.store.channel_state import ChannelStore
from workers.store.lanes import LaneStore
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OUTBOX_LEASE_MS, OutboxStore

PANELS = panels()

ELSEWHERE = {
    "ParleyInvitationsStuck": "looks back for 13 hours, which no pace makes short",
    "ParleyTurnsFail": "takes many workers that freeze for 5 s again and again; that a turn after its lease is counted "
    "as stale is in tests/workers/test_turn_metrics.py",
    "ParleyReleaseDies": "takes a release that dies at every turn; that what it takes up then waits is in "
    "tests/faults/test_poison.py",
    "ParleyArchiveFails": "takes an outage of minutes at the pace of life, as what fails is tried again every 5 s; that it is "
    "counted is in tests/faults/test_archive.py",
    "ParleyArchiveHeld": "takes a Redis that was put back to an earlier state; that its shards are held is in "
    "tests/workers/test_archiving.py",
    "ParleyReplicasMissing": "takes a Redis with replicas; that they are counted is in tests/faults/test_replicas.py",
    "ParleySlotsUncovered": "takes a cluster; that its slots are counted is in tests/workers/test_cluster_commands.py",
    "ParleyHookPaused": "looks at a day, which no pace makes short; that a pause is told is in tests/workers/test_soundings.py",
    "ParleySpoolDamaged": "takes a disk that lies; that such a record is counted is in tests/ingest/test_spool.py",
}
"""Alerts that are proved by promtool only, and why."""

LONG = (
    "ParleyForgedWebhooks", "ParleyStartFlood", "ParleyWorkersDie", "ParleyChannelPausedByOperator", "ParleySurveysRefused",
    "ParleyDramatiqDeadLetters", "ParleyCreditLow", "ParleyCreditRunsOut", "ParleySmsBudgetExhausted",
    "ParleyDeadLettersForgotten",
)  # fmt: skip
"""Alerts whose faults do not mind others."""

OF_A_SLOW_MACHINE = {"ParleyEndpointDown", "ParleyUnseen", "ParleyAcceptsSlowly"}
"""What may be true of the machine that runs this test, and fire before its turn."""

PACE = 200
HEALTHY_S = 6.0
EVERY_S = 0.03
LARGE = 30_000_000
STALL_MS = 700
FIRES_S = 25.0
LOOK_S = 0.2

MUCH_CREDIT, LITTLE_CREDIT = 1000, 40
MUCH_CREDIT_SEEN = f"count_over_time((min by (job, channel) (parley_credit) == {MUCH_CREDIT})[6h:5m]) >= 2"
"""By the steps in which ParleyCreditRunsOut looks at it: a line has a slope from two of them on."""

QUICK = "from config.telemetry import exposition; exposition.FRESH_S = 0.05; "
"""An endpoint reads anew for each scrape, as these are many times as frequent as in life."""

LIMITS = (
    "sessions_per_sender_per_day = 0\nstart_burst = 3\nstart_per_minute = 6\nnew_sessions_per_minute = 0\n"
    "invitations_per_second = 20\npause_s = 0\n"
)

PUBLIC = "https://sms.example.org"


def channel(
    name,
    place,
    limits="sms_per_second = 0\nsms_per_day = 0",
    provider='provider = "octopush"\ntoken_env = "PARLEY_CLINIC_TOKEN"',
):
    return (
        f'[channels.{name}]\n{provider}\nnumber = "+3370000000{place}"\nsurveys = ["clinic"]\n'
        f"[channels.{name}.limits]\n{LIMITS}{limits}\n"
    )


CONFIGURATION = (
    channel("clinic", 1)
    + channel("poll", 2, "sms_per_second = 0\nsms_per_day = 1")
    + channel("rests", 3, "sms_per_second = 8\nsms_per_day = 0")
    + channel("visit", 4, provider='provider = "twilio"\nanswer = "twiml"')
    + key_table()
)

HOOK = '[hooks.crm]\nurl = "{}"\nsecret_env = "CRM_SECRET"\nevents = ["session.ended"]\nbatch = 100\n'


class Town:
    """Everything that people, providers and strangers do meanwhile, a little every EVERY_S. What is not acknowledged is
    not said again: this looks at alerts, not at promises."""

    def __init__(self, deployment, twilio):
        self._base = deployment.base
        self._twilio = twilio
        self._http = requests.Session()
        self._places = count(1)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="town")
        self.also = []

    def post(self, name, body, token=TOKEN):
        """An Octopush webhook; its status, 0 if it got no answer."""
        try:
            return self._http.post(
                f"{self._base}/webhooks/{name}?token={token}", data=body, timeout=2
            ).status_code
        except requests.RequestException:
            return 0

    def start(self, name="clinic", number=""):
        """Somebody begins a conversation."""
        self.post(name, inbound(number or self.number(), "START"))

    def number(self):
        return clinic.number(next(self._places))

    def visit(self):
        """Somebody begins one on the channel with Twilio, which is answered in the webhook's answer."""
        path = "/webhooks/visit"
        self._twilio.text(self._base + path, self.number(), "+33700000004", "START", public=PUBLIC + path)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._http.close()

    def _run(self):
        talks = [self._talk() for _ in range(4)]
        while not self._stop.wait(EVERY_S):
            next(talks[0])
            talks.append(talks.pop(0))
            for act in list(self.also):
                act()

    def _talk(self):
        """One conversation after the other: a healthy one, whose first temperature cannot be read."""
        while True:
            number = self.number()
            for text in ("START", "Ada", "rather warm", "85"):
                self.post("clinic", inbound(number, text))
                yield


class World:
    """The deployment, whose `web` counts on one machine and whose workers on another, and what may be broken of it."""

    def __init__(self, held, folder):
        self.lanes_server, self.broker_server = held.enter_context(Valkey()), held.enter_context(Valkey())
        self.octopush, self.twilio = held.enter_context(FakeOctopush()), held.enter_context(FakeTwilio())
        self.crm = held.enter_context(hook_endpoint())
        self.surveys = folder / "surveys"
        shutil.copytree(SURVEYS, self.surveys)
        self.deployment = held.enter_context(
            Deployment(
                self.lanes_server.url, self.broker_server.url, self.octopush, surveys=self.surveys,
                environment={
                    "PROMETHEUS_MULTIPROC_DIR": str(folder / "workers"), "PARLEY_PUBLIC_URL": PUBLIC,
                    "PARLEY_TWILIO_URL": self.twilio.url, "PARLEY_TWILIO_SID": self.twilio.sid,
                    "PARLEY_TWILIO_TOKEN": self.twilio.token, "PARLEY_HOOKS_ALLOW_PRIVATE": "1", "CRM_SECRET": SECRET,
                },
            )
        )  # fmt: skip
        (self.deployment.folder / "parley.toml").write_text(CONFIGURATION + HOOK.format(self.crm.url))
        self.lanes, self.broker = self.lanes_server.client(), self.broker_server.client()
        self.settings = load_settings(self.deployment.environment)
        self.channels = ChannelStore(self.lanes, self.settings.channels)
        self.hooks = HookStore(self.lanes, "")
        self._endpoint_port = free_port()
        self._serve(folder)

    @property
    def targets(self):
        return [f"127.0.0.1:{self.deployment.port}", f"127.0.0.1:{self._endpoint_port}"]

    @property
    def web(self):
        return self.deployment.of("web")[0]

    @property
    def endpoint(self):
        """Of the workers' machine."""
        return self.deployment.of("metrics")[0]

    def end(self, *roles):
        """As a supervisor does, so that it is known at once."""
        for role in roles:
            self.deployment.of(role)[0].terminate()

    def begin(self, *roles):
        for role in roles:
            self.deployment.of(role)[0].restart()

    def let_seem_alive(self, role):
        """As a process that has just spoken, and does nothing."""
        heartbeat = ProcessHeartbeat(redis_client.server_time_ms(self.lanes), role=role)
        process_registry.store_heartbeat(self.lanes, f"{role}@there", heartbeat)

    def resume(self, name):
        """As `parley channel resume` does."""
        self.channels.resume(name)
        outboxes = OutboxStore(self.lanes, self.settings.shards, OUTBOX_LEASE_MS)
        outboxes.bring_forward(name, self.settings.channels[name].limits.sms_per_second)

    def accept(self, sender, event):
        """As `web` does, but nobody is rung for."""
        commands, _ = function_calls.accept_commands(self.settings.shards, [(sender, False, event)])
        redis_client.run_commands(self.lanes, commands)

    def age(self, server, name, member, by_s):
        """Let something have been there for so long."""
        server.zadd(name, {member: redis_client.server_time_ms(server) - by_s * 1_000})

    def memory(self, share):
        """Let the lanes' server be as full as that; without a limit if 0."""
        used = self.lanes.info("memory")["used_memory"]
        self.lanes.config_set("maxmemory", int(used / share) if share else 0)

    def _serve(self, folder):
        python = f"{sys.executable} -c '{QUICK}"
        web = f"{python}from ingest.__main__ import main; main()'"
        endpoint = (
            f"{python}from workers.commands.metrics import metrics; metrics()' --port {self._endpoint_port}"
        )
        environment = self.deployment.environment
        logs = self.deployment.folder
        on_disk = {
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "web"),
            "PARLEY_SPOOL": str(folder / "spool"),
            "PARLEY_SPOOL_MB": "1",
        }
        self.deployment.processes += [
            Process("web", web, {**environment, **on_disk}, logs / "web.log"),
            Process("metrics", endpoint, environment, logs / "metrics.log"),
        ]
        for name in ("ratelimit", "conversation", "delivery", "clock", "archive", "hooks", "console"):
            self.deployment.spawn(name)
        self.deployment.wait_ready()
        until(lambda: all(self._answers(target) for target in self.targets), 30, "the endpoints answer")

    def _answers(self, target):
        """With all processes known to live, and the endpoint taken."""
        try:
            text = requests.get(f"http://{target}/metrics", timeout=60).text
        except requests.ConnectionError:
            return False
        known = re.findall(r"^parley_(?:processes|hook_held)\{.* 1\.0$", text, re.MULTILINE)
        return len(known) == len(ROLES) + 1


class Story:
    """What was seen: `early` are alerts that fired while all was well, `fired` the annotations of each that fired,
    `out_of_turn` those that fired before their fault, `empty` the expressions that showed nothing, by panel."""

    def __init__(self, prometheus):
        self._prometheus = prometheus
        self._began_s = monotonic()
        self._looked_s = 0.0
        self.early = set()
        self.fired = {}
        self.out_of_turn = set()
        self.empty = {}
        self.told = []

    def broken(self, *alerts):
        """From now on these must fire. None of them may have before."""
        self.out_of_turn |= set(alerts) & self.look() - OF_A_SLOW_MACHINE

    def wait(self, *alerts):
        """Until these have fired. What has not by then is left to the tests to tell."""
        with suppress(TimeoutError):
            until(lambda: self.look() >= set(alerts), FIRES_S, f"{alerts} fire")
        self.told.append(f"{monotonic() - self._began_s:.1f} s: {', '.join(alerts)}")

    def look(self):
        """The names of all that have fired. Prometheus judges twice a second, so it is not asked much more often."""
        if monotonic() - self._looked_s > LOOK_S:
            self.fired |= self._prometheus.firing()
            self._looked_s = monotonic()
        return set(self.fired)

    def see(self, expr):
        """Wait until Prometheus has something to show for it. What comes after depends on it, so that without it the story
        ends here."""
        until(lambda: self._prometheus.numbers(hurried(expr, PACE)), FIRES_S, f"Prometheus shows {expr}")

    def ask(self):
        """Every panel for all that it would show of this story."""
        for title, panel in PANELS.items():
            for target in panel["targets"]:
                if not self._prometheus.numbers(substituted(target["expr"])):
                    self.empty.setdefault(title, []).append(target["expr"])
        self.told.append(f"{monotonic() - self._began_s:.1f} s: every panel")


def substituted(expr):
    """As Grafana does, with every variable at "All"."""
    return (
        expr.replace("$__rate_interval", "2s")
        .replace("$job", "parley")
        .replace("$instance", ".*")
        .replace("$channel", ".*")
    )


@pytest.fixture
def story(tmp_path):
    with ExitStack() as held:
        world = World(held, tmp_path)
        town = held.enter_context(Town(world.deployment, world.twilio))
        prometheus = held.enter_context(Prometheus(world.targets, hurried(RULES.read_text(), PACE)))
        until(lambda: prometheus.sees(2), 30, "Prometheus sees both endpoints")
        until(lambda: "ParleyUnseen" not in prometheus.firing(), 30, "that is known to its rules")
        story = Story(prometheus)
        tell(story, world, town)
        print(*story.told, sep="\n")
        yield story


def tell(story, world, town):
    all_is_well(story, world, town)
    what_takes_long(story, world, town)
    the_provider(story, world)
    what_took_long(story, world, town)
    roles(story, world)
    an_endpoint(story, world)
    the_archive(story, world)
    memory(story, world)
    endpoints(story, world)
    a_slow_disk(story, world)
    the_broker(story, world)
    the_lanes(story, world, town)
    story.ask()


def all_is_well(story, world, town):
    """People text, are invited, get receipts; some SMS come twice, some from nowhere."""
    world.octopush.control(Faults(script=[accepted_with(MUCH_CREDIT)]))  # no other answer tells of credit
    town.visit()
    people = [{"identifier": town.number(), "channel": "clinic"} for _ in range(20)]
    Api(world.deployment.base).invite_all(people)
    end_s = monotonic() + HEALTHY_S
    while monotonic() < end_s:
        copy = inbound(town.number(), "START")
        for body in (copy, copy, inbound("clinic", "hello"), inbound(clinic.NUMBER, "hello")):
            town.post("clinic", body)
        for sms in world.octopush.accepted()[-3:]:
            town.post("clinic", receipt(sms))
        story.early |= story.look()
    story.see(MUCH_CREDIT_SEEN)


def receipt(sms):
    return f'{{"number": "{sms.to}", "message_id": "{sms.ticket}", "status": "DELIVERED", "delivery_date": "x"}}'.encode()


def what_takes_long(story, world, town):
    """Faults that harm nobody else, and are seen at leisure."""
    story.broken("ParleyNewDeadLetters", "ParleyManyDeadLetters", "ParleyRepliesSlow", *LONG)
    flood = town.number()
    shards = world.settings.shards
    lost = LaneStore(world.lanes, shards, open_opt_out_list(world.lanes, shards, ""))
    town.also += [
        lambda: town.post("poll", b"{}", token="forged"),
        lambda: town.start(number=flood),
        lambda: never_come_back(world, lost, town.number()),
    ]
    world.channels.pause("rests", "a test")
    for _ in range(30):
        town.start("rests")
    town.start("poll")
    (world.surveys / "broken.yaml").write_text("survey: broken")
    world.broker.zadd("dramatiq:default.XQ", {"a-message": 1})
    world.octopush.control(Faults(script=[accepted_with(LITTLE_CREDIT)] * 12))  # some are other channels'
    for _ in range(60):
        sender = town.number()
        world.accept(sender, b"garbage")
    story.wait("ParleyNewDeadLetters", "ParleyManyDeadLetters")
    k = next(k for k in range(world.settings.shards) if world.lanes.zcard(keyspace.dead_letter_index_key(k)))
    (letter,) = world.lanes.zrange(keyspace.dead_letter_index_key(k), 0, 0)
    world.age(world.lanes, keyspace.dead_letter_index_key(k), letter, 4 * 86_400)


def accepted_with(credit):
    return Scripted(
        201,
        {
            "sms_ticket": f"sms_credit{credit}",
            "number_of_sms_needed": 1,
            "residual_credit": credit,
            "total_cost": 0.05,
        },
    )


def never_come_back(world, lanes, sender):
    """A worker takes up an SMS, and is gone."""
    world.accept(sender, encode_event(InboundSms(f"lost{sender}", "clinic", "hello")))
    lanes.claim(keyspace.REPLIES_QUEUE, [sender])


def the_provider(story, world):
    story.broken(
        "ParleyProviderSlow", "ParleySendsFail", "ParleyChannelPausedByCircuit", "ParleyNothingLeaves"
    )
    world.octopush.control(Faults(delay_ms=(3_000, 3_500)))
    story.wait("ParleyProviderSlow")
    world.octopush.control(Faults(fail_500=1))
    story.wait("ParleyChannelPausedByCircuit", "ParleySendsFail")
    world.octopush.control(Faults())
    world.resume("clinic")
    story.broken("ParleyChannelPausedByAccount")
    world.octopush.control(Faults(script=[Scripted(400, {"code": 104, "message": "Not enough credit"})] * 3))
    story.wait("ParleyChannelPausedByAccount")
    world.octopush.control(Faults())
    world.resume("clinic")


def what_took_long(story, world, town):
    story.wait(*LONG)
    town.also.clear()
    (world.surveys / "broken.yaml").unlink()
    world.resume("rests")
    story.wait("ParleyRepliesSlow")


def roles(story, world):
    story.broken("ParleyRoleMissing", "ParleyProcessSilent")
    world.end("delivery")
    story.wait("ParleyNothingLeaves", "ParleyRoleMissing")
    story.broken("ParleyNothingTurns", "ParleyBacklog", "ParleyAlarmsLate", "ParleyHookUnheld")
    world.end("ratelimit", "conversation", "clock", "archive", "hooks")
    world.let_seem_alive("hooks")
    world.age(world.broker, keyspace.wakeup_queue_key(keyspace.REPLIES_QUEUE), "+33699999999", 90)
    world.age(world.lanes, keyspace.lane_alarms_key(0), "+33699999999", 90)
    story.wait("ParleyNothingTurns", "ParleyBacklog", "ParleyAlarmsLate", "ParleyHookUnheld")
    story.broken("ParleyClockDiffers")
    world.end("console")  # it has the right clock, and tells of the same machine
    wrong = odd_process(world.deployment, "ratelimit", "clock-5min-behind")
    story.wait("ParleyClockDiffers")
    wrong.kill9()
    world.begin("delivery", "ratelimit", "conversation", "clock", "archive", "hooks", "console")
    story.wait("ParleyProcessSilent")


def an_endpoint(story, world):
    """It refuses all that it is told, and so is left alone; then it takes everything again."""
    story.broken("ParleyHookRefusing", "ParleyHookFailing")
    world.crm.answer = lambda _: Answer(400, b"no")
    story.wait("ParleyHookRefusing", "ParleyHookFailing")
    world.crm.answer = lambda _: Answer()
    world.hooks.resume("crm")


def the_archive(story, world):
    """An entry that nobody can read; then no archive, and a shard in which something has waited for long, of which nobody
    tells the endpoint."""
    story.broken("ParleyArchiveUnreadable", "ParleyHookUnreadable")
    world.lanes.xadd(keyspace.events_key(0), {"to": "+33699999999", "e": b"\xc1"})
    story.wait("ParleyArchiveUnreadable", "ParleyHookUnreadable")
    story.broken("ParleyArchiveBehind", "ParleyNoArchive", "ParleyHookBehind")
    world.end("archive", "hooks")
    shards = world.settings.shards
    old_ms = redis_client.server_time_ms(world.lanes) - 1_000_000
    world.lanes.delete(keyspace.events_key(shards - 1), keyspace.archived_key(shards - 1))
    world.lanes.xadd(keyspace.events_key(shards - 1), {"to": "+33699999999", "e": b"\x90"}, id=f"{old_ms}-0")
    world.hooks.rewind("crm", {shards - 1: BEGINNING})
    story.wait("ParleyArchiveBehind", "ParleyHookBehind")
    world.lanes.delete(*map(keyspace.archived_key, range(shards)))
    story.wait("ParleyNoArchive")
    world.begin("archive", "hooks")


def memory(story, world):
    """Something large is there, so that what comes and goes beside it makes no difference."""
    world.lanes.setrange("large", LARGE, "x")
    story.broken("ParleyRedisFilling", "ParleyRedisFull")
    world.memory(0.98)
    story.wait("ParleyRedisFilling", "ParleyRedisFull")
    world.memory(0)
    world.lanes.delete("large")


def endpoints(story, world):
    story.broken("ParleyEndpointDown", "ParleyUnseen")
    world.endpoint.sigstop()
    story.wait("ParleyEndpointDown")
    world.web.sigstop()
    story.wait("ParleyUnseen")
    world.endpoint.sigcont()
    world.web.sigcont()


def a_slow_disk(story, world):
    """Writes stand still again and again, but never for as long as one may take."""
    story.broken("ParleyAcceptsSlowly")
    over = Event()

    def stall():
        with world.lanes_server.client() as client:
            while not over.wait((STALL_MS + 250) / 1_000):
                client.client_pause(STALL_MS, all=False)

    staller = Thread(target=stall)
    staller.start()
    try:
        story.wait("ParleyAcceptsSlowly")
    finally:
        over.set()
        staller.join()


def the_broker(story, world):
    story.broken("ParleyWakeupsFail", "ParleyRedisDown")
    world.broker_server.kill9()
    story.wait("ParleyWakeupsFail", "ParleyRedisDown")
    world.broker_server.start()


def the_lanes(story, world, town):
    """Events go to the spool, until that is full too."""
    story.broken("ParleySpooling", "ParleySpoolFilling", "ParleySpoolFull", "ParleyRefusesWebhooks")
    world.lanes_server.kill9()
    story.wait("ParleySpooling")
    town.also.append(lambda: town.post("clinic", inbound(town.number(), "x" * 50_000)))
    story.wait("ParleySpoolFilling", "ParleySpoolFull", "ParleyRefusesWebhooks")


@pytest.mark.stories
def test_alerts_fire_when_their_faults_are_there_and_every_panel_shows_something(story, subtests):
    """One test, so that the story is told once, whoever runs the tests; it tells of each alert and panel by itself."""
    with subtests.test("nothing fires while all is well"):
        assert story.early == set()
    for name in sorted(set(alerts()) - set(ELSEWHERE)):
        with subtests.test("an alert fires when its fault is there, and not before", alert=name):
            fires(story, name)
    for title in sorted(PANELS):
        with subtests.test("every expression of a panel shows something", panel=title):
            assert story.empty.get(title) is None


def fires(story, name):
    """With annotations that Prometheus could fill in, and in which there is nobody's number."""
    assert name in story.fired
    assert name not in story.out_of_turn
    text = " ".join(story.fired[name].values())
    assert "<error" not in text
    assert "no value" not in text
    assert "+33" not in text


def test_what_is_proved_elsewhere_is_an_alert():
    assert set(ELSEWHERE) <= set(alerts())
