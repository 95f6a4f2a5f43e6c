"""By which key do logs and the audit name people? One that was made once and is kept in Redis: the same for all processes and
commands of a deployment, whatever their secrets are, and whichever of these change.

Releases up to 0.1.0 made it of all secrets. Beside one of them, a person has two names in logs.
"""

from hashlib import blake2b

import redis
import structlog

from config.host import THIS_HOST, Host
from config.settings.channels import SIMULATOR
from config.settings.settings import Settings
from config.store import keyspace
from config.store.stored_secret import get_or_set

log = structlog.get_logger()


def open_log_key(client: redis.Redis, settings: Settings, host: Host = THIS_HOST) -> bytes:
    """The key, made if there is none. While a server takes no writes that has none yet, it is that of earlier releases."""
    try:
        return bytes.fromhex(get_or_set(client, keyspace.LOG_SECRET_KEY, host.token_hex(32)))
    except redis.exceptions.NoPermissionError:
        raise
    except redis.ResponseError as e:
        log.warning("logs name people otherwise until the next start: Redis takes no writes", error=str(e))
        return former_log_key(settings)


def former_log_key(settings: Settings) -> bytes:
    """The key of releases up to 0.1.0, made of all secrets."""
    accounts = [settings.accounts[name] for name in sorted(settings.accounts) if name != SIMULATOR]
    secrets = [account[field] for account in accounts for field in sorted(account)]
    for _, channel in sorted(settings.channels.items()):
        secrets += [channel.token, *(channel.secrets[field] for field in sorted(channel.secrets))]
    return blake2b("\0".join(secrets).encode(), digest_size=32, person=b"parley log").digest()
