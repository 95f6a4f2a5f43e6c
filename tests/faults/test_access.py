"""Each process is a Redis user with the rights of config/redis/parley.acl, and so is an operator: they are enough for all that
a deployment does, and end where another's begin."""

import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import redis
import requests

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace, redis_client
from tests.faults.play import Play
from tests.support import clinic, documents
from tests.support.clusters import ValkeyCluster
from tests.support.hook_endpoint import SECRET, hook_endpoint
from tests.support.inviting import Api, key_table
from tests.support.person import inbound
from tests.support.processes import Deployment, odd_process, procfile
from tests.support.sentinels import ValkeyService
from tests.support.twilio import FakeTwilio
from tests.support.twilio_deployment import TwilioDeployment
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S, until

FILE = documents.ROOT / "config" / "redis" / "parley.acl"
OPERATOR = "operator"
ANNA, BORIS, CLARA, DORA = map(clinic.number, range(41, 45))
SHARDS = DEFAULT_SHARDS
DEADLINE_S = 30

HOOK = '\n[hooks.crm]\nurl = "{}"\nsecret_env = "PARLEY_CRM_SECRET"\n'
LIMITS = {"sms_per_day": 10_000, "sms_per_second": 1_000, "new_sessions_per_minute": 10_000, "start_burst": 100,
          "start_per_minute": 1_000, "invitations_per_second": 100}  # fmt: skip
"""All that a channel can have, none of which is reached."""


ALL = "web turns delivery clock archive hooks operator"
RIGHTS = [
    *((command, "") for command in (
        "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG SET appendonly no", "ACL LIST", "SHUTDOWN", "MONITOR", "DEBUG SLEEP 0",
        "REPLICAOF NO ONE", "FUNCTION FLUSH", "CLIENT KILL 127.0.0.1:1", "SET stray x",
        "SUBSCRIBE parley:written", "SPUBLISH other x", "EVAL x 1 {7}:dead",
    )),
    ("RENAME {7}:fence {7}:x", "operator"),
    ("HGETALL {7}:dead", "turns delivery clock hooks operator"),
    ("HSCAN {7}:dead 0", "clock operator"),
    ("HGETALL {7}:dead-reasons", "web turns delivery clock hooks operator"),
    ("XRANGE {7}:dead-audit - +", "clock archive operator"),
    ("GET {7}:lane:+33600000001", "web turns clock operator"),
    ("SET {7}:lane:+33600000001 x", "turns operator"),
    ("LRANGE {7}:mail:+33600000001 0 -1", "web turns delivery operator"),
    ("LRANGE {7}:outbox:+33600000001 0 -1", "web turns delivery operator"),
    ("LRANGE {7}:tickets:+33600000001 0 -1", "web delivery operator"),
    ("HGET {7}:optouts x", "web turns operator"),
    ("GET optout-key", "web turns archive operator"),
    ("XRANGE {7}:events - +", "web clock archive hooks operator"),
    ("XDEL {7}:events 1-1", "clock archive operator"),
    ("XADD audit * a b", "web archive operator"),
    ("XRANGE audit - +", "archive operator"),
    ("SET deployment x", "archive operator"),
    ("HGET {7}:held-mail x", "web clock operator"),
    ("SET {channel:clinic}:pause x", "delivery operator"),
    ("HSET {channel:clinic}:webhooks good 1", "web operator"),
    ("HINCRBY {channel:clinic}:answers:1 sms 1", "web delivery operator"),
    ("INCRBY {channel:clinic}:accepted:2026-11-30 1", "web delivery operator"),
    ("GET {channel:clinic}:pause", "web turns delivery clock operator"),
    ("GET {hook:crm}:lease", "web hooks operator"),
    ("SET {hook:crm}:lease x", "hooks operator"),
    ("GET {key:crm}:requests-per-minute", "web operator"),
    ("BZMPOP 1 1 bell:starts MIN", "turns delivery"),
    ("FUNCTION DELETE x", "clock"),
    ("EVAL x 1 simulator:{+33600000001}:sms", "web"),
    ("UNLINK simulator:{+33600000001}:sms", "web operator"),
    ("SPUBLISH parley:written x", "web delivery archive hooks operator"),
    ("ROLE", ALL),
    ("FUNCTION LOAD x", ALL),
    ("GET shards", ALL),
]  # fmt: skip
"""What ends where: a command, and the users that may run it."""


def users_by_role():
    """What config/redis/README.md says: the user of each line of the Procfile, and of operators."""
    return {
        role: documents.cells(row)[1].strip("`")
        for row, role in zip(documents.rows("access"), documents.first_words("access"), strict=True)
    }


def rules_by_user():
    """The file's, with passwords."""
    lines = [line.split() for line in FILE.read_text().splitlines()]
    return {name: [_with_password(rule, name) for rule in rules] for _, name, *rules in lines}


def _with_password(rule, name):
    return f">{password_of(name)}" if rule == "resetpass" else rule


def password_of(name):
    return f"secret-of-{name}"


def as_user(url, name):
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{name}:{password_of(name)}@{rest}"


def let_in(client, *names, less=()):
    """Make these users of the file, without the rights `less`."""
    for name in names:
        client.execute_command("ACL", "SETUSER", name, "reset", *rules_by_user()[name], *less)


def refusals(client):
    """What the server has refused since it was started: to whom, of what kind, and what."""
    fields = ("username", "reason", "object")
    return [" ".join(each[field] for field in fields) for each in client.acl_log()]


def refused_in(guarded):
    """The same, of each server."""
    servers = guarded.nodes if isinstance(guarded, ValkeyCluster) else [guarded]
    found = []
    for server in servers:
        with redis.Redis(server.host, server.port, protocol=2, decode_responses=True) as client:
            found += refusals(client)
    return found


class _AsUsers:
    """Processes and commands are the users of their roles."""

    def spawn(self, name, *more, **environment):
        return super().spawn(name, *more, **self.urls(users_by_role()[name]), **environment)

    def command(self, *arguments, **environment):
        return super().command(*arguments, **self.urls(users_by_role()[OPERATOR]), **environment)

    def urls(self, user):
        names = ("PARLEY_REDIS_URL", "PARLEY_BROKER_URL")
        return {name: as_user(self.environment[name], user) for name in names}

    def seen_as(self, role):
        """This deployment for whoever asks for its environment, which is that of a role."""
        environment = {**self.environment, **self.urls(users_by_role()[role])}
        return SimpleNamespace(processes=self.processes, environment=environment, new_log=self.new_log)

    def judge(self, guarded):
        """Nothing was refused, nor is any process dead."""
        assert refused_in(guarded) == []
        assert not re.search("NoPermission|no permissions", self.logs(), re.IGNORECASE)
        assert all(process.alive for process in self.processes)


class _GuardedDeployment(_AsUsers, Deployment):
    pass


class _GuardedTwilioDeployment(_AsUsers, TwilioDeployment):
    pass


@pytest.fixture
def guarded(tmp_path):
    """A server with the file, but that who has no name, as the test, may do everything."""
    with Valkey(aclfile=str(users_file(tmp_path))) as server:
        yield server


def users_file(folder):
    users = {**rules_by_user(), "default": ["on", "nopass", "~*", "&*", "+@all"]}
    file = folder / "users.acl"
    file.write_text("\n".join(" ".join(["user", name, *rules]) for name, rules in users.items()))
    return file


class GuardedCluster(ValkeyCluster):
    """The same, each of whose servers has the file; the wake-ups are there too."""

    @property
    def broker_url(self):
        return self.url


@pytest.fixture
def guarded_cluster(tmp_path):
    with GuardedCluster(primaries=2, aclfile=str(users_file(tmp_path))) as cluster:
        yield cluster


@pytest.fixture
def endpoint():
    with hook_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def surveys(tmp_path):
    folder = tmp_path / "surveys"
    folder.mkdir()
    (folder / "clinic.yaml").write_text((documents.ROOT / "config" / "surveys" / "clinic.yaml").read_text())
    return folder


@pytest.fixture
def deployment(guarded, octopush, endpoint, surveys, tmp_path):
    with deployed_on(guarded, octopush, endpoint, surveys, tmp_path) as deployment:
        yield deployment


@contextmanager
def deployed_on(guarded, octopush, endpoint, surveys, tmp_path, **more):
    environment = {
        **more,
        "PARLEY_SPOOL": str(tmp_path / "spool"), "PARLEY_HOOKS_ALLOW_PRIVATE": "1", "PARLEY_CRM_SECRET": SECRET,
    }  # fmt: skip
    with _GuardedDeployment(
        guarded.url, guarded.broker_url, octopush, environment=environment, limits=LIMITS, surveys=surveys
    ) as deployment:
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text() + key_table(per_minute=100_000) + HOOK.format(endpoint.url))
        yield deployment


def test_the_file_has_a_user_for_each_line_of_the_procfile_and_for_operators_and_no_password():
    assert list(users_by_role()) == [*procfile(), OPERATOR]
    lines = FILE.read_text().splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["user", name, "on", "resetpass"] for name in dict.fromkeys(users_by_role().values())
    ]


def test_as_it_ships_nobody_gets_in(guarded):
    """Who has no password does not, not even with an empty one; nor does who has no name."""
    client = guarded.client()
    lines = [line.split() for line in FILE.read_text().splitlines()]
    assert lines[0] == ["user", "default", "off"]
    for _, name, *rules in lines[1:]:
        client.execute_command("ACL", "SETUSER", name, "reset", *rules)
        for password in ("", "change-me", "none"):
            with pytest.raises(redis.AuthenticationError):
                client.execute_command("AUTH", name, password)


def test_each_right_is_of_those_alone_who_need_it(guarded):
    client, users = guarded.client(), set(users_by_role().values())

    def may(user, command):
        return client.execute_command("ACL", "DRYRUN", user, *command.split()) == b"OK"

    found = {command: {user for user in users if may(user, command)} for command, _ in RIGHTS}
    assert found == {command: set(users.split()) for command, users in RIGHTS}


@pytest.mark.parametrize("role", [*procfile(), OPERATOR])
def test_who_lacks_a_right_at_the_start_is_told_which_and_what_to_do(guarded, deployment, role):
    let_in(guarded.client(), users_by_role()[role], less=["-get"])
    if role == OPERATOR:
        done = deployment.command("channel", "list")
        status, said = done.returncode, done.stderr
    else:
        process = deployment.spawn(role)
        status, said = process.wait_dead(), process.log.read_text()
        deployment.processes.remove(process)
    assert status == (1 if role == OPERATOR else 2)
    assert said.removeprefix("Error: ") == (
        "the user of our Redis URL may not run GET: give it the rights that config/redis/parley.acl has for it; "
        "ACL LOG there says what was refused\n"
    )


def test_an_operator_who_lacks_a_right_half_way_is_told_which(guarded, deployment):
    let_in(guarded.client(), OPERATOR, less=["-xadd"])
    done = deployment.command("lane", ANNA)
    assert (done.returncode, done.stdout) == (1, "")
    assert "may not run XADD: give it the rights that config/redis/parley.acl has" in done.stderr
    assert ANNA not in done.stderr


@pytest.mark.parametrize("rule, refused", [
    ("web -rpush", "web command rpush"),
    ("turns -xadd", "turns command xadd"),
    ("turns resetkeys ~shards ~surveys ~{surveys}:* ~optout-key ~optout-key-check ~bell:* ~{*}:mail:*", "turns key"),
    ("delivery -lrem", "delivery command lrem"),
    ("clock -zrange", "clock command zrange"),
    ("archive -xrange", "archive command xrange"),
    ("hooks -fcall", "hooks command fcall"),
])  # fmt: skip
def test_a_right_that_is_taken_away_is_missed(guarded, deployment, rule, refused):
    """So the tests above would tell."""
    client = guarded.client()
    deployment.start()
    user, *less = rule.split()
    let_in(client, user, less=less)
    requests.post(deployment.webhook, data=inbound(ANNA, "START"), timeout=HANG_S)
    until(
        lambda: any(each.startswith(refused) for each in refusals(client)),
        DEADLINE_S,
        f"{refused} is refused",
    )


@pytest.mark.parametrize("rule, role, told", [
    ("web -rpush", "web", "may not run RPUSH in accept"),
    ("web resetkeys ~shards ~{*}:server", "web", "may not use one of the keys {*}:alarms, {*}:mail:*, {*}:server in accept"),
    ("turns -xadd", "ratelimit", "may not run XADD: give it"),
    ("turns resetkeys ~shards ~surveys ~{surveys}:* ~optout-key* ~bell:* ~{*}:mail:*", "ratelimit", "may not use one of the keys"),
    ("delivery -lrem", "delivery", "may not run LREM in update_outbox"),
    ("clock -zrange", "clock", "may not run ZRANGE in"),
])  # fmt: skip
def test_who_lacks_a_right_while_it_runs_says_which(guarded, deployment, rule, role, told):
    """Though a function needs it, of which a server says less; and who is asked again and again says so once."""
    del deployment.environment["PARLEY_SPOOL"]
    deployment.start()
    user, *less = rule.split()
    let_in(guarded.client(), user, less=less)
    answers = [
        requests.post(deployment.webhook, data=inbound(ANNA, "START"), timeout=HANG_S) for _ in range(3)
    ]
    assert {each.status_code for each in answers} == {503 if role == "web" else 200}
    (process,) = deployment.of(role)
    until(lambda: told in process.log.read_text(), DEADLINE_S, f"{role} says that it {told}")
    assert process.log.read_text().count(told) == 1 or role != "web"
    assert ANNA not in deployment.logs()


def test_conversations_invitations_and_operators_are_refused_nothing(
    guarded, deployment, octopush, play, endpoint, surveys, tmp_path
):
    live(guarded, deployment, octopush, play, endpoint, surveys, tmp_path)


@pytest.mark.topologies
def test_on_a_cluster_they_are_refused_nothing_either(guarded_cluster, octopush, endpoint, surveys, tmp_path):
    """With the wake-ups there too, more shards than servers, and replicas that are waited for."""
    with deployed_on(
        guarded_cluster, octopush, endpoint, surveys, tmp_path, PARLEY_REPLICAS="1"
    ) as deployment:
        play = Play(deployment, octopush)
        live(guarded_cluster, deployment, octopush, play, endpoint, surveys, tmp_path)


def live(guarded, deployment, octopush, play, endpoint, surveys, tmp_path):
    """All that a deployment does and its operators can, while servers are emptied of functions, killed and started again."""
    client = guarded.client()
    deployment.start()
    play.hold(range(4))
    invite(deployment, octopush)
    bury(deployment, octopush, play, client)
    edit(deployment, surveys)
    look(deployment, tmp_path)
    operate(deployment)
    until(lambda: endpoint.taken, DEADLINE_S, "the endpoint is told")
    for each in {guarded.url, guarded.broker_url}:
        for server in redis_client.servers_of(redis_client.connect(each)):
            server.execute_command("FUNCTION", "FLUSH")
    play.hold(range(4, 8))
    deployment.judge(guarded)
    guarded.kill9()
    play.crowd.post([inbound(CLARA, "START")])
    guarded.start()
    until(lambda: octopush.accepted(CLARA), DEADLINE_S, "what was spooled is answered")
    deployment.judge(guarded)
    for process in deployment.processes:
        process.terminate()
    say(deployment, [f"reshard --to {2 * SHARDS} --yes"])
    assert refused_in(guarded) == []


def invite(deployment, octopush):
    """Somebody answers, and somebody's session is cancelled; and one is to be asked much later."""
    api = Api(deployment.base)
    people = [{"identifier": each, "channel": "clinic", "clientReference": each} for each in (ANNA, BORIS)]
    anna, boris = (api.invite(**each).json()["id"] for each in people)
    until(lambda: octopush.accepted(ANNA) and octopush.accepted(BORIS), DEADLINE_S, "both are asked")
    assert api.session(boris).ok
    assert api.find(clientReference=ANNA, channel="clinic").json()["state"] == "open"
    later = api.invite(identifier=CLARA, channel="clinic", sendAt=in_a_week())
    assert later.status_code == 202
    assert api.cancel(anna).ok
    assert api.get("/metrics").ok
    for path in ("surveys", "surveys/clinic/results", "surveys/clinic/sessions", "surveys/clinic/funnel"):
        until(lambda path=path: api.get(f"/v1/{path}").ok, DEADLINE_S, f"{path} is told")


def in_a_week():
    return (datetime.now(UTC) + timedelta(days=7)).isoformat(timespec="seconds")


def bury(deployment, octopush, play, client):
    """Two events become dead letters: one is replayed, one is dropped."""
    (worker,) = deployment.of("conversation")
    worker.terminate()
    deployment.processes.remove(worker)
    worker = odd_process(deployment.seen_as("conversation"), "conversation", "deadly")
    play.crowd.post([inbound(DORA, "START")])
    until(lambda: octopush.accepted(DORA), DEADLINE_S, "they are asked")
    play.crowd.post([inbound(DORA, "faulty") for _ in range(2)])
    k = keyspace.shard_of(DORA, SHARDS)
    until(lambda: client.hlen(keyspace.dead_letters_key(k)) == 2, DEADLINE_S, "both are dead letters")
    worker.terminate()
    deployment.processes.remove(worker)
    deployment.spawn("conversation")
    first, second = (each.decode() for each in client.zrange(keyspace.dead_letter_index_key(k), 0, -1))
    say(deployment, ["dead list", f"dead show {first}", f"dead replay --yes {first}", f"dead drop --yes {second}", "dead audit"])  # fmt: skip


def edit(deployment, surveys):
    file = surveys / "clinic.yaml"
    file.write_text(file.read_text() + "\n# edited\n")
    workers = [process for name in ("ratelimit", "conversation") for process in deployment.of(name)]
    for process in workers:
        until(lambda log=process.log: b"taken up" in log.read_bytes(), DEADLINE_S, "it is taken up")


def look(deployment, tmp_path):
    say(deployment, [
        "status", "check", "channel list", "hooks list", "hooks test crm", "surveys", "archive status", "metrics --once",
        f"lane {BORIS}", f"transcript {BORIS}", "results clinic", "funnel clinic", f"export clinic --out {tmp_path}/a.csv",
        "optout list", "optout export", "audit", f"replay {BORIS}",
    ])  # fmt: skip


def operate(deployment):
    say(deployment, [
        "channel pause clinic --why test", "channel resume clinic", "hooks pause crm --why test", "hooks resume crm",
        "hooks rewind crm --to now --yes", f"optout add {BORIS}", f"optout list {BORIS}", f"optout remove {BORIS}",
        "archive rebuild", f"erase --yes {BORIS}",
    ])  # fmt: skip


def say(deployment, commands):
    for command in commands:
        done = deployment.command(*command.split())
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_answers_to_webhooks_are_refused_nothing(guarded):
    with (
        FakeTwilio() as twilio,
        _GuardedTwilioDeployment(guarded, twilio, options='answer = "twiml"', limits=LIMITS) as deployment,
    ):
        deployment.start()
        assert clinic.NAME in deployment.text(ANNA, "START").text
        twilio.tell(twilio.messages[-1], "sent", public=deployment.base)
        assert clinic.temperature("Ada") in deployment.text(ANNA, "Ada").text
        twilio.tell(twilio.messages[-1], "failed", "30003", public=deployment.base)
        deployment.hurry(ANNA)
        deployment.lost(BORIS, "START")
        until(lambda: deployment.resting(BORIS), DEADLINE_S, "it may have left")
        deployment.hurry(BORIS)
        until(lambda: len(twilio.sent()) == 3, DEADLINE_S, "it is sent")
        deployment.judge(guarded)


def test_simulated_phones_are_refused_nothing(guarded, octopush):
    with _GuardedDeployment(guarded.url, guarded.broker_url, octopush) as deployment:
        (deployment.folder / "parley.toml").write_text(
            f'[channels.clinic]\nnumber = "{clinic.NUMBER}"\nsurveys = ["clinic"]\n'
        )
        deployment.start()
        webhook = f"{deployment.base}/webhooks/clinic?token=simulator"
        assert requests.post(webhook, data=inbound(ANNA, "START"), timeout=HANG_S).ok
        phone = f"{deployment.base}/simulator/phones/{ANNA}"
        asked = {"after": "0-0", "wait": 20}
        (sms,) = requests.get(phone, params=asked, timeout=HANG_S).json()["messages"]
        assert sms["text"] == clinic.NAME
        assert requests.get(phone, params={"after": "latest", "wait": 0}, timeout=HANG_S).ok
        say(deployment, [f"erase --yes {ANNA}"])
        deployment.judge(guarded)


@pytest.mark.topologies
def test_behind_sentinels_with_replicas_they_are_refused_nothing(octopush):
    with ValkeyService(replicas=1) as service:
        for server in service.servers:
            let_in(server.client(), *set(users_by_role().values()))
        with _GuardedDeployment(
            service.url, service.broker_url, octopush, environment={"PARLEY_REPLICAS": "1"}
        ) as deployment:
            deployment.start()
            play = Play(deployment, octopush)
            play.hold(range(3))
            say(deployment, ["channel pause clinic --why test", "channel resume clinic", "status"])
            old = service.primary
            old.kill9()
            service.wait_failed_over(old)
            old.start()
            let_in(old.client(), *set(users_by_role().values()))
            service.wait_complete()
            play.hold(range(3, 6))
            deployment.judge(service.primary)


def test_a_replica_follows_as_the_user_that_the_document_has_for_it(guarded):
    (block,) = documents.blocks(FILE.with_name("README.md").read_text())
    for _, name, *rules in (line.split() for line in block.splitlines()):
        guarded.client().execute_command(
            "ACL", "SETUSER", name, *(_with_password(rule, name) for rule in rules)
        )
    with Valkey(
        replicaof=f"127.0.0.1 {guarded.port}", masteruser="replica", masterauth=password_of("replica")
    ) as replica:
        until(
            lambda: replica.client().info("replication")["master_link_status"] == "up",
            DEADLINE_S,
            "it follows",
        )
    assert refusals(guarded.client()) == []
