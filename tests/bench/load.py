"""As many webhooks as one process takes: kept-alive connections, one request under way on each, every body new.

`python -m tests.bench.load URL --connections 64 --seconds 3` prints a JSON object. A process of its own, so that it
takes no time from what it measures but the machine's.
"""

import asyncio
import sys
from time import monotonic
from typing import cast

import click
import msgspec
import uvloop

from tests.support.clinic import number
from tests.support.person import inbound
from tests.support.wire import Address, request

SENDERS = 50_000
WARM_UP_S = 0.5


class Load(msgspec.Struct):
    """What was done: `rate` requests a second after the warm-up; `acknowledged` in all, `refused` of all."""

    rate: float = 0.0
    acknowledged: int = 0
    refused: int = 0


class Client(asyncio.Protocol):
    """Asks, and asks again as soon as it is answered. An answer without a body comes in one piece."""

    def __init__(self, target: str, load: Load, place: int) -> None:
        self._target = target
        self._load = load
        self._place = place
        self.asking = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, answer: bytes) -> None:
        if answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")):
            self._load.acknowledged += 1
        else:
            self._load.refused += 1
        if self.asking:
            self._ask()

    def _ask(self) -> None:
        self._place = (self._place + 1) % SENDERS
        self._transport.write(request("POST", self._target, inbound(number(self._place), "98.6")))


async def drive(address: Address, connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    load = Load()
    clients = [Client(address.target, load, SENDERS // connections * i) for i in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, address.host, address.port)  # type: ignore[misc]
    await asyncio.sleep(WARM_UP_S)
    begun_s, before = monotonic(), load.acknowledged
    await asyncio.sleep(seconds)
    load.rate = (load.acknowledged - before) / (monotonic() - begun_s)
    for client in clients:
        client.asking = False
    await asyncio.sleep(WARM_UP_S)  # let what is under way be answered
    return load


@click.command()
@click.argument("url")
@click.option("--connections", default=64)
@click.option("--seconds", default=3.0)
def main(url: str, connections: int, seconds: float) -> None:
    """Load a webhook, and print how it held.

    \b
    Example:
      python -m tests.bench.load 'http://127.0.0.1:8000/webhooks/clinic?token=t' --seconds 3
    """
    load = uvloop.run(drive(Address.of(url), connections, seconds))
    sys.stdout.write(msgspec.json.encode(load).decode() + "\n")


if __name__ == "__main__":
    main()
