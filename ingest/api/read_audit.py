"""Tells the audit who reads whose data, before anything is shown: what it does not take is not shown."""

from collections.abc import Sequence
from typing import Any

from config.host import THIS_HOST, Host
from config.settings.channels import ApiKey
from config.store import keyspace
from config.store.audit import audit_command
from config.store.function_calls import Command
from config.telemetry.logs import hash_sender
from ingest.intake.mailboxes import AsyncRedisClient


class ReadAudit:
    def __init__(self, lanes: AsyncRedisClient, host: Host = THIS_HOST) -> None:
        self._lanes = lanes
        self._token_hex = host.token_hex
        self._log_key = b""  # until somebody asks

    async def log_names(self, senders: Sequence[str]) -> list[str]:
        """The hashes by which logs, and the audit, name people. Raises RedisUnavailableError."""
        if senders and not self._log_key:
            self._log_key = await self._read_log_key()
        return [hash_sender(self._log_key, each) for each in senders]

    async def _read_log_key(self) -> bytes:
        name = keyspace.LOG_SECRET_KEY
        asked: list[Command] = [("SET", name, self._token_hex(32), "NX"), ("GET", name)]
        (kept,) = await self._lanes.run_commands(asked[1:])
        if kept is None:
            _, kept = await self._lanes.run_commands(asked)
        return bytes.fromhex(kept.decode())

    async def record(self, key: ApiKey, action: str, subject: str, **detail: Any) -> None:
        """Returns once the audit has it. Raises RedisUnavailableError."""
        await self._lanes.run_commands([audit_command(f"key {key.name}", action, subject, **detail)])
