"""One moment of a deployment in which there is something of everything: people at every point of a conversation, and
everything that can be left lying by whoever died, waits, was refused or gave up.

Nothing here may know more of Parley than its processes, its API, its commands and its server-side functions, so that it
can be played by any release.
"""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import requests

from config.store import function_calls, keyspace, redis_client
from config.store.audit import record_operator
from config.store.server_functions import (
    HookPosition,
    MoveHook,
    ReleasedInvitation,
    ReleaseInvitations,
    ReserveOutbox,
    ServerFunction,
    TakeHook,
    TakeTokens,
)
from engine.model.events import (
    Attachment,
    CancelSession,
    DeliveryReceipt,
    ProviderStop,
    SmsPart,
    encode_event,
)
from tests.support.inviting import KEY, Api, key_table
from tests.support.octopush import FakeOctopush, Faults, Scripted
from tests.support.openid_provider import OpenidProvider
from tests.support.person import inbound
from tests.support.processes import Deployment, Process
from tests.support.valkey import Valkey
from tests.support.waiting import free_port, until

CHANNEL, PAUSED = "clinic", "phones"
SUB_NUMBER = "+33700000009"
INVITED_BY_TABLE = "+33600000999"
SHARDS = 16
SOON_S = 30.0
LEFT_MS = 60_000
"""How long what would go soon is there after the scene."""

PICTURE = Attachment("image/png", "https://media.example.org/1")

WHY_PAUSED = "the phones are being counted"

EXPIRES_DAYS = 39.5
"""How long the session of `expiring` lasts. Its lane is kept for a day more, and must be there after 40 of them."""

OIDC = """
[console.users]
"ada@example.org" = ["viewer"]
[console.oidc]
issuer = "{}"
client_id = "parley"
"""

SURVEY = """
survey: sampler
start: [START]
expires: 99999d
cooldown: 0s
variables: [ward]
texts: {not_found: Text START., completed: none}
steps:
  - {id: name, ask: "Your name?", answer: {type: text, max: 40}}
  - {id: age, ask: "How old are you, {name}?", answer: {type: number, min: 1, max: 120}}
  - {id: fever, ask: "Fever, {name}?", answer: {type: yes_no}}
  - {id: where, ask: "Where does it hurt?", answer: {type: choices, options: [head, arm, leg]}}
  - id: how
    ask: "How much?"
    answer: {type: scale, from: 1, to: 5}
    next: [{when: {below: 3}, go: again}, {go: bye}]
  - {id: again, say: "Not much.", next: [{go: how, times: 2}, {go: bye}]}
  - {id: bye, say: "Goodbye, {name}.", next: end}
"""
SAYS = ("START", "Ada", "33", "yes", "head, leg", "4")
HEARS = (
    "Your name?",
    "How old are you, Ada?",
    "Fever, Ada?",
    "Where does it hurt?",
    "How much?",
    "Goodbye, Ada.",
)


def person(place: int) -> str:
    return f"+336120{place:05}"


NAMES = (
    "half_way", "done", "stopped", "came_back", "asked", "held", "start_waits", "reply_waits", "parts", "told_stop",
    "receipt", "cancelled", "released", "unsent", "worker_died", "sender_died", "backing_off", "booked", "uncertain",
    "rejected", "unreadable", "undecodable", "sub_number", "simulated", "entrusted", "reserved", "misread", "expiring",
    "dropped", "erased",
)  # fmt: skip
PEOPLE = {name: person(place) for place, name in enumerate(NAMES)}
"""Who they are: what has happened to them."""


def deployment(valkey: Valkey, octopush: FakeOctopush, surveys: Path) -> Deployment:
    """The configuration of the scene; none of its processes runs yet."""
    surveys.mkdir(exist_ok=True)
    (surveys / "sampler.yaml").write_text(SURVEY)
    limits = {"sessions_per_sender_per_day": 50, "start_burst": 50, "start_per_minute": 60, "sms_per_day": 100_000,
              "new_sessions_per_minute": 6_000, "sms_per_second": 500}  # fmt: skip
    made = Deployment(
        valkey.url, valkey.broker_url, octopush, surveys=surveys, channel_surveys=("sampler",), limits=limits
    )
    config = made.folder / "parley.toml"
    first = config.read_text().replace("surveys =", f'originators = ["{SUB_NUMBER}"]\nsurveys =')
    second = f'[channels.{PAUSED}]\nprovider = "octopush"\ntoken_env = "PARLEY_CLINIC_TOKEN"\nnumber = "+33700000008"\nsurveys = ["sampler"]\n[channels.{PAUSED}.limits]\npause_s = 0\n'
    config.write_text(first + second + key_table(channels=(CHANNEL, PAUSED), per_minute=6_000))
    return made


class Scene:
    """A deployment that is brought to the moment, step by step."""

    def __init__(self, valkey: Valkey, octopush: FakeOctopush, parley: Deployment) -> None:
        self._octopush = octopush
        self._parley = parley
        self._lanes = valkey.client()
        self._broker = valkey.client(valkey.broker_url)
        self._api: Api

    def play(self) -> None:
        """To the moment. Afterwards nothing runs any more."""
        self._lanes.set(keyspace.SHARDS_KEY, SHARDS)
        self._parley.start()
        self._api = Api(self._parley.base)
        self._talk()
        self._give_up()
        self._invite()
        self._die()
        self._leave_lying()

    def says(self, name: str, *texts: str, to: str = "+33700000001") -> None:
        for said in texts:
            answer = requests.post(self._parley.webhook, data=inbound(PEOPLE[name], said, to), timeout=60)
            assert answer.status_code == 200, answer.text

    def heard(self, name: str, count: int) -> list[str]:
        """All that this person has got, once it is so much."""
        until(lambda: len(self._octopush.accepted(PEOPLE[name])) >= count, SOON_S, f"{name} has {count} SMS")
        return [sms.text for sms in self._octopush.accepted(PEOPLE[name])]

    def _talk(self) -> None:
        """Whoever needs nothing but a conversation."""
        for place, name in enumerate(
            ("half_way", "reply_waits", "cancelled", "receipt", "unsent", "backing_off", "booked")
        ):
            for count, said in enumerate(SAYS[: 3 if place else 4], 1):
                self.says(name, said)
                self.heard(name, count)
        for count, said in enumerate(SAYS, 1):
            self.says("done", said)
            self.heard("done", count)
        for name in ("stopped", "came_back"):
            self.says(name, "START")
            self.heard(name, 1)
            self.says(name, "STOP")
            self.heard(name, 2)
        self.says("came_back", "START")
        self.heard("came_back", 3)
        for count, said in enumerate(("START", "Ada", "old", "head"), 1):
            self.says("misread", said)
            self.heard("misread", count)
        self.says("parts", "START")
        self.heard("parts", 1)
        self._accept("parts", SmsPart("00000000000000a1", CHANNEL, "A", "77", 1, 2, attachments=(PICTURE,)))
        self.says("told_stop", "START")
        self.heard("told_stop", 1)
        for name in ("worker_died", "sender_died", "uncertain", "rejected", "unreadable", "undecodable"):
            self.says(name, "START")
            self.heard(name, 1)

        self.says("erased", "START")
        self.heard("erased", 1)
        self._command("erase", PEOPLE["erased"], "--yes")

    def _give_up(self) -> None:
        """Dead letters of both kinds; of one more, only the audit knows."""
        self._accept_raw("dropped", b"no event")
        self._until_dead(1)
        self._command("dead", "drop", "--all", "--yes")
        self._until_dead(0)
        self._octopush.control(Faults(script=[Scripted(400, {"code": 151, "message": "Country not served"})]))
        self.says("rejected", "Ada")
        self._until_dead(1)
        name = "unreadable"
        k = keyspace.shard_of(PEOPLE[name], SHARDS)
        lane = self._lanes.get(keyspace.lane_key(k, PEOPLE[name]))
        self._lanes.set(keyspace.lane_key(k, PEOPLE[name]), b"1 0 no lane", keepttl=True)
        self.says(name, "Ada")
        self._until_dead(2)
        self._lanes.set(keyspace.lane_key(k, PEOPLE[name]), lane, keepttl=True)
        self._accept_raw("undecodable", b"no event")
        self._until_dead(3)

    def _invite(self) -> None:
        """One who was asked, on a sub-number too, and for some weeks; later, one whose invitation is mail, and one whose is
        held."""
        end = (datetime.now(UTC) + timedelta(days=EXPIRES_DAYS)).isoformat()
        for name, more in (
            ("asked", {"campaign": "spring"}),
            ("sub_number", {"originator": SUB_NUMBER}),
            ("expiring", {"expiryTime": end}),
        ):
            self._ask(name, **more)
            self.heard(name, 1)
        for clock in self._parley.of("clock"):
            clock.terminate()
        now = datetime.now(UTC).isoformat()
        self._ask("held", campaign="spring", sendAt=now)

    def _ask(self, name: str, **more: str) -> None:
        answer = self._api.invite(
            "sampler",
            identifier=PEOPLE[name],
            channel=CHANNEL,
            clientReference=f"ref-{name}",
            userSessionVariables={"ward": "7"},
            **more,
        )
        assert answer.status_code == 202, answer.text

    def _die(self) -> None:
        """What is left by a worker that died with a lane in hand, and by one that died with an SMS."""
        self._die_at("conversation", "after_claim", "worker_died")
        self._parley.spawn("conversation")
        self._octopush.control(Faults(script=[Scripted(500, {"code": 500}), Scripted(500, {"code": 500})]))
        self.says("backing_off", "yes")
        self._until_lock("backing_off", b"again")
        self._octopush.control(Faults(cut_after_accept=1.0))
        self.says("uncertain", "Ada")
        self._until_lock("uncertain", b"again")
        self._octopush.control(Faults())
        self._die_at("delivery", "before_send", "sender_died")

    def _die_at(self, role: str, fault: str, name: str) -> None:
        for each in self._parley.of(role):
            if each.alive:
                each.terminate()
        victim: Process = self._parley.spawn(role, fault)
        self.says(name, "Ada")
        victim.wait_dead(SOON_S)

    def _leave_lying(self) -> None:
        """Nobody delivers: SMS wait, some with a permit, promised to an answer, or kept for one. Then nobody works at all,
        and mail of every kind waits."""
        self.says("unsent", "yes")
        self.says("booked", "yes")
        for name in ("unsent", "booked"):
            until(
                lambda name=name: self._lanes.exists(self._key(keyspace.outbox_key, name)),
                SOON_S,
                f"{name}'s SMS waits",
            )  # type: ignore[misc]
        self._rest("booked", b"booked")
        self.says("entrusted", "START")
        until(lambda: self._lanes.exists(self._key(keyspace.outbox_key, "entrusted")), SOON_S, "it waits")
        self._rest("entrusted", b"entrusted 0123456789abcdef?")
        for role in ("ratelimit", "conversation"):
            for each in self._parley.of(role):
                if each.alive:
                    each.kill9()
        self._call(
            ReserveOutbox(
                outbox=self._key(keyspace.outbox_key, "reserved"),
                outbox_lock=self._key(keyspace.outbox_lock_key, "reserved"),
                token="fedcba9876543210",
                lease_ms=86_400_000,
            )
        )  # fmt: skip
        phone = keyspace.simulator_key(PEOPLE["simulated"], "sms")  # as where every channel is simulated
        self._lanes.xadd(phone, {"from": "33700000008", "text": HEARS[0], "ticket": "sms_0000000000002"})
        self._lanes.lpush(self._key(keyspace.tickets_key, "done"), "sms_0000000000001")
        self._lanes.pexpire(self._key(keyspace.tickets_key, "done"), 172_800_000)
        self.says("start_waits", "START")
        self.says("reply_waits", "yes")
        self._accept("parts", SmsPart("00000000000000a2", CHANNEL, "da", "77", 2, 2, attachments=(PICTURE,)))
        self._accept("told_stop", ProviderStop("00000000000000a3", CHANNEL))
        ticket = self._octopush.accepted(PEOPLE["receipt"])[-1].ticket
        self._accept(
            "receipt",
            DeliveryReceipt(
                "00000000000000a4",
                CHANNEL,
                ticket,
                "DELIVERED",
                "delivered",
                segments=1,
                cost_micros=1,
                currency="EUR",
            ),
        )
        self._accept("cancelled", CancelSession("00000000000000a5", CHANNEL, self._session("cancelled")))
        self._ask("released")
        self._release("released")
        self._command("channel", "pause", PAUSED, "--why", WHY_PAUSED)
        why = self._lanes.get(keyspace.pause_key(PAUSED)) or b""
        self._lanes.hset(keyspace.campaign_pauses_key(CHANNEL), "autumn", why)  # as the API does
        requests.post(self._parley.webhook.replace("token=", "token=not-"), data=b"{}", timeout=60)
        for archive in self._parley.of("archive"):
            archive.terminate()
        record_operator(self._lanes, "read results", "clinic")  # which no archive has yet
        self._lanes.set(
            keyspace.ARCHIVE_RETENTION_KEY, ""
        )  # as an archive leaves it that is older than an hour
        self._tell()
        self._look()
        for web in self._parley.of("web"):
            web.terminate()
        for bucket in (
            keyspace.sms_bucket_key(CHANNEL),
            keyspace.session_bucket_key(CHANNEL),
            keyspace.invitation_bucket_key(CHANNEL),
            keyspace.request_bucket_key("tests"),
        ):
            self._take_permit(bucket)

    # What only the server-side functions can do, or a provider that is not in this scene

    def _release(self, name: str) -> None:
        """As a clock does; there is none."""
        k = keyspace.shard_of(PEOPLE[name], SHARDS)
        ids = [
            each
            for each, mail in self._lanes.hgetall(keyspace.held_invitations_key(k)).items()
            if PEOPLE[name].encode() in mail
        ]
        released = ReleasedInvitation(
            mailbox=keyspace.mailbox_key(k, PEOPLE[name]), id=ids[0].decode(), sender=PEOPLE[name]
        )
        call = ReleaseInvitations(
            lane_alarms=keyspace.lane_alarms_key(k),
            held_ids=keyspace.held_ids_key(k, CHANNEL),
            held_invitations=keyspace.held_invitations_key(k),
            campaigns=keyspace.campaigns_key(k),
            campaign_sessions=keyspace.campaign_sessions_key(k),
            invitations=[released],
        )
        assert self._call(call) == [1]

    def _tell(self) -> None:
        """As a process of hooks does that has an endpoint, which fails; and as who pauses it."""
        names = {"lease": keyspace.hook_lease_key("crm"), "circuit": keyspace.hook_circuit_key("crm")}
        take = TakeHook(
            lease=names["lease"], fence=keyspace.hook_fence_key("crm"), owner="told", lease_ms=LEFT_MS
        )
        token, now = self._call(take)
        move = MoveHook(
            **names,
            positions=keyspace.hook_positions_key("crm"),
            token=token,
            lease_ms=LEFT_MS,
            circuit_state=b'{"failures":9,"since":%d,"level":2,"until":%d,"why":"503"}' % (now, now),
            moves=[HookPosition(shard=0, entry_id=f"{now}-0")],
        )
        assert self._call(move) == 1
        self._lanes.set(keyspace.hook_pause_key("crm"), self._lanes.get(keyspace.pause_key(PAUSED)) or b"")

    def _look(self) -> None:
        """As who signs in to the console, after a wrong try, with another link left, and a sign-in at the provider begun, asks what a
        replay would do, has a table of people checked, and has written a campaign's budget."""
        port = free_port()
        provider = OpenidProvider(is_public=True)
        with (self._parley.folder / "parley.toml").open("a") as config:
            config.write(OIDC.format(provider.issuer))
        console = self._parley.spawn("console", PARLEY_CONSOLE_PORT=f"{port}", PARLEY_API_KEY=KEY)
        until(lambda: b"running" in console.log.read_bytes(), SOON_S, "the console runs")
        environment = {**self._parley.environment, "PARLEY_CONSOLE_PORT": f"{port}"}
        links = [
            subprocess.run(
                ["parley", "console", "link"], env=environment, check=True, capture_output=True, text=True
            ).stdout.strip()
            for _ in range(2)
        ]
        visitor, base = requests.Session(), f"http://127.0.0.1:{port}"
        visitor.headers["Sec-Fetch-Site"] = "same-origin"
        visitor.get(f"{base}/sign-in/oidc", timeout=60, allow_redirects=False)
        provider.close()
        for path, form in (
            ("/sign-in", {"link": "a guess"}),
            ("/sign-in", {"link": links[0].partition("link=")[2]}),
            ("/dead-letters/replay", {"do": "preview"}),
        ):
            visitor.post(base + path, data=form, timeout=60, allow_redirects=False)
        until(lambda: self._lanes.exists(keyspace.CONSOLE_JOBS_KEY), SOON_S, "the preview has begun")
        (job,) = (each.decode() for each in self._lanes.zrange(keyspace.CONSOLE_JOBS_KEY, 0, -1))
        address = visitor.post(
            f"{base}/invite",
            data={"survey": f"sampler {CHANNEL}", "campaign": "spring"},
            files={"file": ("people.csv", f"phone\n{INVITED_BY_TABLE}\n".encode(), "text/csv")},
            timeout=60,
            allow_redirects=False,
        ).headers["Location"]
        upload = address.rpartition("/")[2]
        uploaded = keyspace.console_upload_key(upload)
        until(lambda: self._lanes.hexists(uploaded, "check"), SOON_S, "the table is checked")
        self._lanes.set(keyspace.console_upload_claim_key(upload), "", px=LEFT_MS)
        terms = msgspec.msgpack.encode({"price": "0.05", "budget": "100"})
        self._lanes.set(keyspace.campaign_budget_key("spring"), terms, px=LEFT_MS)
        console.terminate()
        console.wait_dead()
        self._lanes.set(keyspace.console_job_alive_key(job), "", px=LEFT_MS)

    def _rest(self, name: str, owner: bytes) -> None:
        """Let the sender rest, as one does who waits for what `owner` says."""
        at = int(time.time() * 1000)
        lock = b" ".join((b"0", str(at + 2_000).encode(), b"1", str(at).encode(), owner))
        self._lanes.set(self._key(keyspace.outbox_lock_key, name), lock, px=86_400_000)

    def _take_permit(self, bucket: str) -> None:
        """As whoever has to ask for one. A bucket goes after a second, which a busy machine takes to look at it."""
        pipeline = self._lanes.pipeline()
        pipeline.execute_command(
            *function_calls.function_call(TakeTokens(bucket=bucket, rate_per_s=500, burst=500, wanted=1))
        )
        pipeline.pexpire(bucket, LEFT_MS)
        assert pipeline.execute() == [1, 1]

    def _session(self, name: str) -> str:
        return self._octopush.accepted(PEOPLE[name])[0].request_id.rpartition("x")[0]

    def _accept(self, name: str, event: object) -> None:
        self._accept_raw(name, encode_event(event))

    def _accept_raw(self, name: str, event: bytes) -> None:
        commands, _ = function_calls.accept_commands(SHARDS, [(PEOPLE[name], False, event)])
        redis_client.run_commands(self._lanes, commands)
        redis_client.run_command(
            self._broker, function_calls.wake_command(keyspace.REPLIES_QUEUE, [PEOPLE[name]])
        )

    def _call(self, call: ServerFunction) -> object:
        return redis_client.run_command(self._lanes, function_calls.function_call(call))

    def _key(self, of: object, name: str) -> str:
        return of(keyspace.shard_of(PEOPLE[name], SHARDS), PEOPLE[name])  # type: ignore[operator]

    def _command(self, *arguments: str) -> None:
        """What an operator types."""
        subprocess.run(["parley", *arguments], env=self._parley.environment, check=True, capture_output=True)

    def _until_dead(self, count: int) -> None:
        def letters() -> int:
            return sum(self._lanes.hlen(keyspace.dead_letters_key(k)) for k in range(SHARDS))

        until(lambda: letters() == count, SOON_S, f"there are {count} dead letters")

    def _until_lock(self, name: str, owner: bytes) -> None:
        key = self._key(keyspace.outbox_lock_key, name)
        until(lambda: owner in (self._lanes.get(key) or b""), SOON_S, f"{name} rests")
