"""What every page of the console works with."""

import asyncio

import msgspec

from config.store import redis_client
from config.store.audit import audit_command
from config.telemetry.logs import hash_sender
from workers.console.blocking_calls import BlockingCalls
from workers.console.jobs.job_runner import JobRunner
from workers.console.kept_readings import KeptReadings
from workers.console.look_recorder import LookRecorder
from workers.console.person_address import PersonAddresses
from workers.console.sign_in.console_sessions import ConsoleSessions, ConsoleUser
from workers.console.sign_in.request_guard import RequestGuard
from workers.console.templates import PageTemplates
from workers.store.deployment import Deployment


class Console(msgspec.Struct, frozen=True):
    """`calls` runs what waits for servers, `readings` what takes long to count; `stopping` is set once the process is told to stop."""

    deployment: Deployment
    templates: PageTemplates
    guard: RequestGuard
    sessions: ConsoleSessions
    calls: BlockingCalls
    readings: KeptReadings
    stopping: asyncio.Event
    addresses: PersonAddresses
    jobs: JobRunner
    looks: LookRecorder
    log_key: bytes

    def name_in_logs(self, number: str) -> str:
        """Return the hash by which the audit and logs name a person."""
        return hash_sender(self.log_key, number)

    def record(self, user: ConsoleUser, action: str, subject: str, **detail: object) -> None:
        """Tell in the audit what `user` does, before it is done or shown. Waits; raises redis.RedisError: then nothing is."""
        command = audit_command(actor_name(user), action, subject, **detail)
        redis_client.run_command(self.deployment.lanes, command)

    def record_look(
        self, user: ConsoleUser, action: str, subject: str, *, is_new: bool, part: str = "", **detail: object
    ) -> None:
        """The same, of a page that asks again and again: if that is not a new look, it is told once in a while only. `part` is what
        of the subject is looked at, as it was asked for. Waits; raises redis.RedisError."""
        now_s = self.deployment.host.monotonic_s()
        looked_at = f"{subject} {part}"
        if is_new or self.looks.is_due(user.name, action, looked_at, now_s):
            self.record(user, action, subject, **detail)
            self.looks.remember(user.name, action, looked_at, now_s)


def actor_name(user: ConsoleUser) -> str:
    """What the audit calls someone who has signed in."""
    return f"console {user.name}"
