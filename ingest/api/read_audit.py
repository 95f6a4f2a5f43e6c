"""Tells the audit who reads whose data, before anything is shown: what it does not take is not shown."""

from typing import Any

from config.settings.channels import ApiKey
from config.store.audit import audit_command
from ingest.intake.mailboxes import AsyncRedisClient


class ReadAudit:
    def __init__(self, lanes: AsyncRedisClient) -> None:
        self._lanes = lanes

    async def record(self, key: ApiKey, action: str, subject: str, **detail: Any) -> None:
        """Returns once the audit has it. Raises RedisUnavailableError."""
        await self._lanes.run_commands([audit_command(f"key {key.name}", action, subject, **detail)])
