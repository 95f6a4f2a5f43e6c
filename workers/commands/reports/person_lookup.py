"""Finds the person whom a command is given by the name that logs have for them."""

import click
import redis

from config.settings.log_key import former_log_key
from config.telemetry.logs import is_log_name
from engine.commands.terminal import progress_bar
from workers.commands.connect import find_readable_shards
from workers.commands.reports.open_archive import open_archive_or_warn
from workers.diagnosis.log_names import (
    KEYS_IN_STEP,
    count_keys,
    find_archived_by_log_name,
    find_by_log_name,
)
from workers.store.deployment import Deployment


def find_person(deployment: Deployment, person: str) -> str:
    """Return the number of a person whom `parse_person_argument` has read. Who is named as in logs is looked for; ends the command if
    there is nobody of that name."""
    if not is_log_name(person):
        return person
    keys = [deployment.open_log_key(), former_log_key(deployment.settings)]
    shards = find_readable_shards(deployment)
    try:
        total = count_keys(deployment.lanes)
        with progress_bar(total, f"looking for {person}", shown_from=KEYS_IN_STEP) as advance:
            found = find_by_log_name(deployment.lanes, shards, keys, person, advance)
    except redis.exceptions.NoPermissionError:
        raise  # config/cli.py says which right is missing
    except redis.RedisError as e:
        raise click.ClickException(f"the Redis of the lanes failed: {type(e).__name__}") from e
    if found is None:
        with open_archive_or_warn(deployment) as archive:
            found = find_archived_by_log_name(archive, keys, person) if archive is not None else None
    if found is None:
        raise click.ClickException(
            f"nobody whom logs name {person} has anything here: they may be erased, or it was made by "
            "another key, as of other secrets before this release"
        )
    return found
