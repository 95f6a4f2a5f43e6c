"""Who did or read what is told once, in the archive for good, and names nobody by a number."""

import json
import os
import signal
import subprocess
import sys
from threading import Thread

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from config.archive import archive_schema, tables
from config.archive.database import ArchiveDatabase
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace, redis_client
from config.store.audit import audit_command, operator_name, record_operator
from config.telemetry.logs import hash_sender
from tests.support.waiting import HANG_S, until
from tests.workers.dead_letters import call, fell, letters_of
from workers.archiving import audit_mover
from workers.archiving.audit_mover import move_audit
from workers.commands.access.audit import audit
from workers.commands.erase import erase
from workers.commands.lane import lane
from workers.commands.optout import optout
from workers.commands.replay import replay
from workers.commands.transcript import transcript

ANNA = "+33600000001"
SHARDS = DEFAULT_SHARDS
ME = f"operator {operator_name()}"


@pytest.fixture
def database(archive_database):
    return archive_database


def url_of(database):
    return database.url.render_as_string(hide_password=False)


def tell(client, *numbers, k=None):
    """Acts of a key; of an operator with a dead letter, if it is shard `k`'s."""
    for number in numbers:
        if k is None:
            redis_client.run_command(
                client, audit_command("key crm", "read results", f"s{number}", count=number)
            )
        else:
            fields = {
                "id": f"l{number}",
                "by": "ada@desk",
                "outcome": "dropped",
                "kind": "sms",
                "reason": "rejected",
            }
            client.xadd(keyspace.dead_letter_audit_key(k), fields)


def wait_for_another_ms(client):
    """What is told in different streams within a ms has no order."""
    begun = redis_client.server_time_ms(client)
    until(lambda: redis_client.server_time_ms(client) > begun, 1, "a ms passes")


def archived(database):
    with database.reading() as connection:
        table = tables.audit.c
        ordered = select(tables.audit).order_by(table.source, table.shard, table.entry_ms, table.entry_seq)
        return connection.execute(ordered).all()


def subjects(database, source=audit_mover.AUDIT_SOURCE):
    return [row.subject for row in archived(database) if row.source == source]


# Moving


def test_what_is_told_is_moved_once_and_trimmed(database, valkey):
    client = valkey.client()
    tell(client, 1, 2)
    assert [move_audit(database, client, SHARDS) for _ in range(2)] == [2, 0]
    assert client.xlen(keyspace.AUDIT_KEY) == 0
    tell(client, 3)
    assert move_audit(database, client, SHARDS) == 1
    first = archived(database)[0]
    assert (first.actor, first.action, first.subject, first.detail) == (
        "key crm", "read results", "s1", '{"count":1}',
    )  # fmt: skip
    assert (first.at == first.entry_ms, subjects(database)) == (True, ["s1", "s2", "s3"])


def test_what_was_done_with_dead_letters_is_moved_and_stays_where_replaying_looks(database, valkey):
    client, broker = valkey.client(), valkey.client(valkey.broker_url)
    tell(client, 1, k=3)
    tell(client, 2, k=15)
    tell(broker, 3, k=0)
    client.xadd(keyspace.dead_letter_audit_key(3), {"id": "l4", "by": "parley erase", "outcome": "erased"})
    assert [move_audit(database, client, SHARDS, broker) for _ in range(2)] == [4, 0]
    assert client.xlen(keyspace.dead_letter_audit_key(3)) == 2
    rows = archived(database)
    assert [(row.source, row.shard, row.actor, row.action, row.subject) for row in rows] == [
        ("dead-audit", 3, "operator ada@desk", "dead letter dropped", "l1"),
        ("dead-audit", 3, "parley erase", "dead letter erased", "l4"),
        ("dead-audit", 15, "operator ada@desk", "dead letter dropped", "l2"),
        ("dramatiq-audit", 0, "operator ada@desk", "dead letter dropped", "l3"),
    ]
    assert json.loads(rows[0].detail) == {"kind": "sms", "reason": "rejected", "channel": ""}


def test_pages_follow_each_other_and_what_nobody_can_read_is_moved_too(database, valkey, monkeypatch):
    monkeypatch.setattr(audit_mover, "AUDIT_PAGE", 3)
    client = valkey.client()
    tell(client, *range(7))
    client.xadd(keyspace.AUDIT_KEY, {b"actor": b"\xff\x00", b"more": b"\x00"})
    assert move_audit(database, client, SHARDS) == 8
    assert (archived(database)[-1].actor, len(subjects(database))) == ("\ufffd\ufffd", 8)


def test_two_movers_at_once_move_each_act_once(database, valkey, monkeypatch):
    monkeypatch.setattr(audit_mover, "AUDIT_PAGE", 3)
    client = valkey.client()
    tell(client, *range(30))
    tell(client, *range(30), k=5)
    moved, failed = [], []

    def move(mine):
        try:
            moved.append(move_audit(mine, redis_client.connect(valkey.url), SHARDS))
        except Exception as e:  # noqa: BLE001 (told by the test)
            failed.append(e)

    movers = [ArchiveDatabase(url_of(database)) for _ in range(3)]
    threads = [Thread(target=move, args=(mine,)) for mine in movers]
    for thread in threads:
        thread.start()
    for number in range(30, 60):
        tell(client, number)
    for thread in threads:
        thread.join(HANG_S)
    moved.append(move_audit(database, client, SHARDS))
    for mine in movers:
        mine.close()
    assert (failed, sum(moved)) == ([], 90)
    assert subjects(database) == [f"s{number}" for number in range(60)]
    assert subjects(database, "dead-audit") == [f"l{number}" for number in range(30)]


MOVE = """
import sys
from config.archive.database import ArchiveDatabase
from config.store import redis_client
from workers.archiving.audit_mover import move_audit
move_audit(ArchiveDatabase(sys.argv[1]), redis_client.connect(sys.argv[2]), 16)
"""


@pytest.mark.processes
@pytest.mark.parametrize("fault", ["before_audit_commit", "after_audit_commit"])
def test_a_mover_that_is_killed_half_way_moves_nothing_twice_and_loses_nothing(database, valkey, fault):
    client = valkey.client()
    tell(client, 1, 2)
    arguments = [sys.executable, "-c", MOVE, url_of(database), valkey.url]
    died = subprocess.run(arguments, env={**os.environ, "PARLEY_FAULT": fault}, timeout=HANG_S, check=False)
    assert died.returncode == -signal.SIGKILL
    assert client.xlen(keyspace.AUDIT_KEY) == 2
    tell(client, 3)
    move_audit(database, client, SHARDS)
    assert (subjects(database), client.xlen(keyspace.AUDIT_KEY)) == (["s1", "s2", "s3"], 0)


@pytest.mark.parametrize("lost", [b"XRANGE", b"XTRIM"])
def test_a_reply_that_is_lost_moves_nothing_twice(database, valkey, proxy, lost):
    tell(valkey.client(), 1, 2)
    proxy.lose_replies(lost, times=2)
    client = redis_client.connect(proxy.url)

    def is_moved():
        move_audit(database, client, SHARDS)
        return not valkey.client().xlen(keyspace.AUDIT_KEY)

    is_cluster = redis_client.is_cluster(
        client
    )  # where what is on a server that is away is for the next time
    assert is_moved() or is_cluster
    until(is_moved, 10, "all is moved")
    assert proxy.lost == 2 or (is_cluster and proxy.lost)
    tell(valkey.client(), 3)
    until(is_moved, 10, "all is moved")
    assert subjects(database) == ["s1", "s2", "s3"]


# What commands tell


@pytest.fixture
def town(deploy, monkeypatch, tmp_path):
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", f"sqlite:///{tmp_path / 'archive.db'}")
    return deploy()


def told(*options):
    """What `parley audit` prints, newest first."""
    run = CliRunner().invoke(audit, [*options, "--json"])
    assert run.exit_code == 0, run.output
    return [json.loads(line) for line in run.stdout.splitlines()]


def run_command(command, *arguments):
    CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_whoever_looks_at_a_person_is_told_of_by_the_numbers_hash(town, tmp_path):
    town.accept(ANNA, "START")
    town.drain()
    run_command(transcript, ANNA, "--session", "x")
    run_command(lane, ANNA)
    run_command(replay, ANNA)
    run_command(replay, "--all")
    run_command(optout, "list")
    run_command(optout, "list", ANNA)
    run_command(optout, "add", ANNA, "--channel", "clinic")
    run_command(optout, "remove", ANNA)
    (tmp_path / "blocked.csv").write_text(f"{ANNA}\n")
    run_command(optout, "import", str(tmp_path / "blocked.csv"))
    run_command(optout, "export")
    run_command(erase, ANNA, "--dry-run")
    run_command(erase, ANNA, "--yes")
    anna = hash_sender(town.world.open_log_key(), ANNA)
    assert [(each["actor"], each["action"], each["subject"]) for each in reversed(told())] == [
        (ME, "read transcript", anna),
        (ME, "read lane", anna),
        (ME, "replay conversations", anna),
        (ME, "replay conversations", "everybody"),
        (ME, "read opt-outs", anna),
        (ME, "opt out", anna),
        (ME, "remove opt-out", anna),
        (ME, "import opt-outs", ""),
        (ME, "export opt-outs", ""),
        (ME, "count traces", anna),
        (ME, "erase", anna),
    ]
    everything = repr(town.client.xrange(keyspace.AUDIT_KEY))
    assert ANNA.removeprefix("+") not in everything


def test_what_becomes_of_a_dead_letter_is_told_once(town, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    call("show", letter.id, status=0)
    call("drop", letter.id, status=0)
    assert [(each["action"], each["subject"]) for each in told()] == [
        ("dead letter dropped", letter.id),
        ("read dead letter", letter.id),
    ]


# What is shown


def test_what_is_archived_and_what_waits_are_one_list(town, tmp_path):
    database = ArchiveDatabase(f"sqlite:///{tmp_path / 'archive.db'}")
    archive_schema.migrate(database)
    tell(town.client, 1, 2)
    wait_for_another_ms(town.client)
    tell(town.client, 3, k=2)
    move_audit(database, town.client, SHARDS)
    wait_for_another_ms(town.client)
    record_operator(town.client, "export", "clinic", rows=7)
    wait_for_another_ms(town.client)
    tell(town.client, 4, k=2)
    assert [each["subject"] for each in told()] == ["l4", "clinic", "l3", "s2", "s1"]
    assert [each["subject"] for each in told("--limit", "2")] == ["l4", "clinic"]
    assert [each["subject"] for each in told("--actor", "KEY crm")] == ["s2", "s1"]
    assert [each["subject"] for each in told("--action", "dead letter")] == ["l4", "l3"]
    assert [each["subject"] for each in told("--since", "1h", "--limit", "0", "--actor", "ada")] == [
        "l4",
        "l3",
    ]
    exported = told("--action", "export")[0]
    assert (exported["actor"], exported["detail"]) == (ME, {"rows": 7})
    shown = CliRunner().invoke(audit, []).stdout
    assert "read results" in shown
    assert "rows 7" in shown
    database.close()


def test_what_is_moved_while_it_is_read_is_told_once(town, tmp_path, monkeypatch):
    database = ArchiveDatabase(f"sqlite:///{tmp_path / 'archive.db'}")
    archive_schema.migrate(database)
    tell(town.client, 1, 2)
    scan = audit_mover.scan_acts

    def scan_and_move(stream, after, *before):
        yield from scan(stream, after, *before)
        if stream.source == audit_mover.AUDIT_SOURCE:
            move_audit(database, town.client, SHARDS)

    monkeypatch.setattr("workers.history.audit_history.scan_acts", scan_and_move)
    assert [each["subject"] for each in told()] == ["s2", "s1"]
    assert subjects(database) == ["s1", "s2"]
    database.close()


def test_without_an_archive_what_waits_is_told_all_the_same(town):
    tell(town.client, 1)
    run = CliRunner().invoke(audit, ["--json"])
    assert (run.exit_code, json.loads(run.stdout)["subject"]) == (0, "s1")
    town.client.set(keyspace.archived_key(0), "1-0")
    assert "the archive cannot be read" in CliRunner().invoke(audit, ["--json"]).stderr
    assert "Nobody has done anything like that." in CliRunner().invoke(audit, ["--actor", "nobody"]).output
