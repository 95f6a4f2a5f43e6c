"""What every key in Redis is called.

Law: a sender's keys and its shard's indexes share the hash tag `{k}`, k = crc32(sender) mod the number of shards, so that
one server-side function changes them at once, on a single server and on Redis Cluster alike. This module knows names, and
nothing of what lies under them: workers/README.md has the table.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, TypeVar
from zlib import crc32

QUEUES = STARTS_QUEUE, REPLIES_QUEUE, OUTBOUND_QUEUE = "starts", "replies", "outbound"
QUEUES_BY_NUMBER: Mapping[int, tuple[str, ...]] = {
    0: (), 1: (STARTS_QUEUE,), 2: (REPLIES_QUEUE,), 3: (STARTS_QUEUE, REPLIES_QUEUE)
}  # fmt: skip
"""What the server-side functions answer when they say whom to wake."""

BellsDatabase = int | Literal[""]
"""The number of the database of the lanes' own server in which the bells lie, so that its functions can ring; empty: they lie
elsewhere."""

START_PREFIX, REPLY_PREFIX = b"S", b"R"
"""The first byte of a mail entry."""

SURVEYS_KEY = "surveys"
"""Hash: survey version -> the file that it was read from, for sessions pinned to a version."""

PROCESSES_KEY = f"{{{SURVEYS_KEY}}}:runs"
"""Hash: process -> what it last said: see config/telemetry/process_registry.py."""

LOG_SECRET_KEY = f"{{{SURVEYS_KEY}}}:log-key"
"""The secret by which logs name people: see config/settings/log_key.py. Where the versions of surveys are, as no process starts
without these."""

MAX_HELD_MS = 30 * 86_400_000
"""How long an invitation may wait for its turn. One whose turn has not come by then has lost its sense."""

UNARCHIVED_STREAM_MS = 30 * 86_400_000
"""How long the event streams keep what happened while no archive was ever seen. What one has is kept for PARLEY_STREAM_DAYS."""

OPTOUT_SECRET_KEY, OPTOUT_SECRET_CHECK_KEY = "optout-key", "optout-key-check"
"""The secret that hides numbers in the list of opt-outs, if Parley made it; and by what the secret in use is known."""

RETENTION_KEY = "retention"
"""There while the hour's sweep has been made: see workers/clock/retention.py."""

ARCHIVE_RETENTION_KEY = "archive-retention"
"""There while the hour's sweep of the archive has been made: see workers/archiving/archive_retention.py."""

SHARDS_KEY = "shards"
"""How many shards the lanes are divided into: see config/settings/shard_count.py."""

RESHARDING_KEY = "resharding"
"""Hash: how far `parley reshard` is, there while it is not done: see workers/resharding/progress.py."""

DEPLOYMENT_KEY = "deployment"
"""A random id, made once: by it an archive knows the Redis that it is of."""

AUDIT_KEY = "audit"
"""Stream: who did or read what, until the archive has it: see config/store/audit.py."""

CONSOLE_SESSIONS_KEY, CONSOLE_SECRET_KEY = "{console}:sessions", "{console}:secret"
"""Sorted set: digest of a browser's token -> ms at which it signed in; and the secret by which the console hides numbers in the
addresses of its pages: see workers/console/."""

CONSOLE_JOBS_KEY = "{console}:jobs"
"""Sorted set: id of what the console does for someone, at length -> ms at which it began: see workers/console/jobs/."""

LIBRARIES_KEY = "libraries"
"""Sorted set: name of a library of server-side functions -> ms at which it was last known to be in use."""

T = TypeVar("T")


def mail_prefix(start: bool) -> bytes:
    """Return what stands before an event that goes into a mailbox."""
    return START_PREFIX if start else REPLY_PREFIX


def shard_of(sender: str, shards: int) -> int:
    return crc32(sender.encode()) % shards


def group_by_shard(items: Iterable[T], sender_of: Callable[[T], str], shards: int) -> dict[int, list[T]]:
    """The items of each shard, in the order given."""
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(shard_of(sender_of(item), shards), []).append(item)
    return groups


SHARDS_TOGETHER = 32
"""Where one call, or one transaction, may be about several shards: to make one for each costs more than what is done in it."""


def shard_groups(shards: int, together: int = SHARDS_TOGETHER) -> list[range]:
    """All shards, in groups of so many."""
    return [range(first, min(first + together, shards)) for first in range(0, shards, together)]


SHARD_KEY_PATTERN = "{[0-9]*}:*"
"""What the name of every key of a shard is like, for SCAN."""

_SHARD_KEY = re.compile(r"\{(\d+)\}:([^:]*)(?::(.*))?", re.DOTALL)

_KINDS_WITH_OWNER = frozenset(
    ("mail", "lane", "lock", "outbox", "outbox-lock", "tries", "tickets", "reference")
)


class ShardKey(NamedTuple):
    """A key of the shard `k`. `kind` is the word behind the shard. If its name says who or what it belongs to, that is its
    `owner`, by which it lies there."""

    k: int
    kind: str
    owner: str | None


def parse_shard_key(name: str) -> ShardKey | None:
    """Read the name of a key of a shard; None for any other."""
    found = _SHARD_KEY.fullmatch(name)
    return (
        ShardKey(int(found[1]), found[2], found[3] if found[2] in _KINDS_WITH_OWNER else None)
        if found
        else None
    )


_ANY_KEY = re.compile(r"\{[^}]*\}:.+|(?:simulator|bell):.+|[a-z-]+", re.DOTALL)


def is_key(word: str) -> bool:
    """Whether a word of a command may be the name of a key of ours."""
    return _ANY_KEY.fullmatch(word) is not None


def key_shape(name: str) -> str:
    """Return what a key's name is like, without what may be of a person in it."""
    if parse_shard_key(name) is not None:
        _, what, *of = name.split(":", 2)
        return f"{{*}}:{what}{':*' if of else ''}"
    return re.sub(r"^simulator:\{[^}]*\}", "simulator:{*}", name)


def console_session_key(digest: str) -> str:
    """There while a browser is signed in to the console: who, since when."""
    return f"{{console}}:session:{digest}"


def console_link_key(digest: str) -> str:
    """There while a one-time link to the console may be used."""
    return f"{{console}}:link:{digest}"


def console_job_key(job: str) -> str:
    """Hash: what the console does for someone, how far that is, and who wants it stopped."""
    return f"{{console}}:job:{job}"


def console_job_alive_key(job: str) -> str:
    """There while the process lives that does it."""
    return f"{{console}}:job-alive:{job}"


def console_upload_key(upload: str) -> str:
    """Hash: what a table of people is to be invited to, what its check found and what came of it: see workers/console/inviting/."""
    return f"{{console}}:upload:{upload}"


def console_upload_rows_key(upload: str) -> str:
    """List: the invitations of an uploaded table, until they are sent, or for two hours."""
    return f"{{console}}:upload-rows:{upload}"


def console_upload_claim_key(upload: str) -> str:
    """There while somebody begins to check or to send an uploaded table."""
    return f"{{console}}:upload-claim:{upload}"


def campaign_budget_key(campaign: str) -> str:
    """What a campaign may cost, as whoever invited by the console has written it."""
    return f"{{console}}:campaign-budget:{campaign}"


def console_attempts_key(digest: str) -> str:
    """Counts what was wrong of an address that tries to sign in to the console."""
    return f"{{console}}:attempts:{digest}"


def console_sign_in_key(digest: str) -> str:
    """There while somebody whom the console sent to its OpenID provider may come back."""
    return f"{{console}}:sign-in:{digest}"


def console_begun_key(digest: str) -> str:
    """Counts what an address began of that."""
    return f"{{console}}:begun:{digest}"


def mailbox_key(k: int, sender: str) -> str:
    return f"{{{k}}}:mail:{sender}"


def lane_key(k: int, sender: str) -> str:
    return f"{{{k}}}:lane:{sender}"


def lane_key_pattern() -> str:
    """What every lane's name is like, for SCAN."""
    return "{*}:lane:*"


def sender_of_key(name: str) -> str:
    """Whose key it is: mailbox, lane, lock, outbox."""
    return name.rpartition(":")[2]


def lane_lock_key(k: int, sender: str) -> str:
    return f"{{{k}}}:lock:{sender}"


def outbox_key(k: int, sender: str) -> str:
    return f"{{{k}}}:outbox:{sender}"


def outbox_lock_key(k: int, sender: str) -> str:
    return f"{{{k}}}:outbox-lock:{sender}"


def lane_alarms_key(k: int) -> str:
    return f"{{{k}}}:alarms"


def outbox_alarms_key(k: int) -> str:
    return f"{{{k}}}:outbox-alarms"


def fence_key(k: int) -> str:
    return f"{{{k}}}:fence"


def server_key(k: int) -> str:
    """On which server the shard was worked last, and what it may have lost: see lua/servers.lua."""
    return f"{{{k}}}:server"


def events_key(k: int) -> str:
    return f"{{{k}}}:events"


def dividing_events_key(k: int) -> str:
    """What stays of the shard's event stream, while `parley reshard` writes it anew."""
    return f"{{{k}}}:events-dividing"


def archived_key(k: int) -> str:
    """How far an archive has the shard's events: see lua/event_streams.lua. Not there if none was ever seen."""
    return f"{{{k}}}:archived"


def dead_letters_key(k: int) -> str:
    return f"{{{k}}}:dead"


def dead_letter_index_key(k: int) -> str:
    return f"{{{k}}}:dead-index"


def dead_letter_reasons_key(k: int) -> str:
    """How many dead letters there are of each reason."""
    return f"{{{k}}}:dead-reasons"


def dead_letter_audit_key(k: int) -> str:
    """What operators have done with dead letters."""
    return f"{{{k}}}:dead-audit"


def tickets_key(k: int, sender: str) -> str:
    return f"{{{k}}}:tickets:{sender}"


def failed_attempts_key(k: int, sender: str) -> str:
    """What failed tries of the oldest SMS of an outbox came to."""
    return f"{{{k}}}:tries:{sender}"


def optouts_key(k: int) -> str:
    """The list of opt-outs of a shard's senders, by their keyed hashes."""
    return f"{{{k}}}:optouts"


def applied_events_key(k: int, number_hash: str) -> str:
    """Events of a sender, by keyed hashes, that were applied and that the lane does not remember."""
    return f"{{{k}}}:applied:{number_hash}"


def session_key(k: int, identity: str) -> str:
    """Whose session it is, and since when."""
    return f"{{{k}}}:session:{identity}"


def simulator_key(phone: str, what: str) -> str:
    """What a simulated phone got: its SMS, `sms`, and the ids of what it has had, `requests`."""
    return f"simulator:{{{phone}}}:{what}"


def held_ids_key(k: int, channel: str) -> str:
    """Invitations that wait for the channel's pacer: ids, by the ms before which they are not released."""
    return f"{{{k}}}:held:{channel}"


def held_invitations_key(k: int) -> str:
    """The invitations that are held, by id."""
    return f"{{{k}}}:held-mail"


def campaigns_key(k: int) -> str:
    """How many sessions of each campaign are in which state, of the shard's people."""
    return f"{{{k}}}:campaigns"


def campaign_pauses_key(channel: str) -> str:
    """Campaigns of which the channel lets no invitation go, and why."""
    return f"{{channel:{channel}}}:campaign-pauses"


def campaign_sessions_key(k: int) -> str:
    """Sessions of campaigns that are not over: in which state, and of which campaign."""
    return f"{{{k}}}:campaign-sessions"


def reference_key(shards: int, identity: str) -> str:
    """What was invited under an inviter's reference. It lies by its own name, as it must be one for all numbers."""
    return f"{{{shard_of(identity, shards)}}}:reference:{identity}"


def wakeup_queue_key(queue: str) -> str:
    """A Dramatiq queue, on the broker's Redis: the senders to look at, in the order in which they were rung."""
    return f"bell:{queue}"


def sms_bucket_key(channel: str) -> str:
    return f"{{channel:{channel}}}:sms-per-second"


def session_bucket_key(channel: str) -> str:
    return f"{{channel:{channel}}}:sessions-per-minute"


def sms_counter_key(channel: str, day: str) -> str:
    return f"{{channel:{channel}}}:sms:{day}"


def invitation_bucket_key(channel: str) -> str:
    return f"{{channel:{channel}}}:invitations-per-second"


def released_sms_key(channel: str, slot: int) -> str:
    """SMS that invitations released in this span of time are going to need."""
    return f"{{channel:{channel}}}:released:{slot}"


def hook_lease_key(hook: str) -> str:
    """Which process tells the endpoint of what happens: see lua/hooks.lua."""
    return f"{{hook:{hook}}}:lease"


def hook_fence_key(hook: str) -> str:
    return f"{{hook:{hook}}}:fence"


def hook_positions_key(hook: str) -> str:
    """Hash: shard -> the id of the last entry of its event stream that the endpoint needs no more."""
    return f"{{hook:{hook}}}:positions"


def hook_circuit_key(hook: str) -> str:
    """How the endpoint does of late: see config/store/endpoint_health.py."""
    return f"{{hook:{hook}}}:circuit"


def hook_pause_key(hook: str) -> str:
    """Why an operator has the endpoint told nothing."""
    return f"{{hook:{hook}}}:pause"


def hook_key_pattern() -> str:
    """What the names of all positions of endpoints are like, for SCAN."""
    return "{hook:*}:positions"


def hook_of_key(name: str) -> str:
    """Whose positions they are."""
    return name.removeprefix("{hook:").partition("}")[0]


def request_bucket_key(key: str) -> str:
    """Of one key to the API."""
    return f"{{key:{key}}}:requests-per-minute"


def pause_key(channel: str) -> str:
    """Why nothing is sent on a channel now; expires when it is tried again."""
    return f"{{channel:{channel}}}:pause"


def circuit_state_key(channel: str) -> str:
    """How a channel's provider does of late, and its pace: see lua/values.lua."""
    return f"{{channel:{channel}}}:flow"


def webhooks_key(channel: str) -> str:
    """When the channel's provider last called, and when somebody did with a wrong token: see config/store/counts/webhook_record.py."""
    return f"{{channel:{channel}}}:webhooks"


def forged_webhooks_key(channel: str, minute: int) -> str:
    """How many calls of that minute had a wrong token or signature."""
    return f"{{channel:{channel}}}:forged:{minute}"


def answers_key(channel: str, minute: int) -> str:
    """Hash: SMS that the channel's provider took in that minute, and how long people waited: see config/store/counts/answer_record.py."""
    return f"{{channel:{channel}}}:answers:{minute}"


def accepted_sms_key(channel: str, day: str) -> str:
    """SMS that the channel's provider took on that day."""
    return f"{{channel:{channel}}}:accepted:{day}"
