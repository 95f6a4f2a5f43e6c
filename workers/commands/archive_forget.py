"""`parley archive forget`: the archive that was is no more, or is put back to an earlier state."""

import os

import click

from config.store import keyspace, redis_client
from config.telemetry import process_registry
from workers.commands.connect import connect_lanes


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(yes: bool) -> None:
    """Let Redis forget how far the archive is, as if none was ever seen.

    For when it is removed for good, or before it is put back to an earlier state. Redis then keeps what happened for 30 days,
    until an archive says again how far it is. The archive itself stays as it is. Stop all `archive` processes first.

    \b
    Example:
      parley archive forget
    """
    deployment = connect_lanes(os.environ)
    living = process_registry.living_processes(deployment.lanes).values()
    if archiving := [f"{each.role}@{each.host}:{each.pid}" for each in living if each.role == "archive"]:
        raise click.ClickException(
            f"{', '.join(archiving)} would say again how far the archive is: stop it, and wait until "
            "`parley status` does not show it any more"
        )
    if not yes:
        days = keyspace.UNARCHIVED_STREAM_MS // 86_400_000
        click.confirm(
            f"Redis then keeps what happened for {days} days, archived or not. Forget it?", abort=True
        )
    keys = [keyspace.archived_key(k) for k in range(deployment.settings.shards)]
    forgotten = sum(redis_client.run_commands(deployment.lanes, [("DEL", key) for key in keys]))
    click.echo(f"forgotten, for {forgotten} of {len(keys)} shards")
