"""A way to a server that can be broken: replies that are lost after the command was executed, delay, refusal, a black hole.

A lost reply is the case that clients get wrong: the server has done it, and the client does not know.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Mapping
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tests.support.closing import Closing

T = TypeVar("T")

CHUNK = 65_536
START_S = 60.0


class Loss:
    """Replies to lose: of the commands that hold `match`, each `every`th after the first `skip`, `times` in all."""

    def __init__(self, match: bytes, times: int, skip: int, every: int = 1) -> None:
        self.match = match
        self._skip = skip
        self._times = times
        self._every = every

    def hits(self, sent: bytes) -> bool:
        """Is the reply to `sent` to be lost? Counts."""
        if self.match not in sent or not self._times:
            return False
        if self._skip:
            self._skip -= 1
            return False
        self._skip = self._every - 1
        self._times -= 1
        return True


class Proxy(Closing):
    """Forwards `url` on a port of its own, in a thread of its own. Started when made; a context manager. In replies it writes
    words in the place of others that are as long: `instead`, old -> new.

    `lost` counts the replies that did not get through.
    """

    def __init__(self, url: str, instead: Mapping[bytes, bytes] | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._path = parts.path
        self._instead = dict(instead or {})
        assert all(len(old) == len(new) for old, new in self._instead.items())
        self._loss = Loss(b"", 0, 0)
        self._delay_s = 0.0
        self._refuses = False
        self._swallows = False
        self._pairs: set[Pair] = set()
        self.lost = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}{self._path}"

    def lose_replies(self, match: bytes, times: int = 1, skip: int = 0, every: int = 1) -> None:
        """Let the next commands that hold `match` be executed, and cut before the reply: b"_commit\\r\\n" is of that function, one
        call or several joined."""
        self.lose(Loss(match, times, skip, every))

    def lose(self, loss: Loss) -> None:
        """The same, by a count that others may share."""
        self._loss = loss

    def delay(self, seconds: float) -> None:
        """Keep every reply back for so long; 0 for no longer."""
        self._delay_s = seconds

    def refuse(self) -> None:
        """Cut every connection and let nobody in, as if the server were gone."""
        self._refuses = True
        self._run(self._cut())

    def admit(self) -> None:
        self._refuses = False

    def swallow(self) -> None:
        """Be a black hole: take connections and all that is said on them, and bring it nowhere."""
        self._swallows = True

    def spit_out(self) -> None:
        """Be one no longer. What was said meanwhile is gone: connections are cut."""
        self._swallows = False
        self._run(self._cut())

    def lead_to(self, url: str, *, cut: bool = True) -> None:
        """Forward to another server from now on, as after a failover. Unless `cut`, what is connected stays where it is."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        if cut:
            self._run(self._cut())

    def close(self) -> None:
        self._refuses = True
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def loses(self, sent: bytes) -> bool:
        return self._loss.hits(sent)

    def longest_match(self) -> int:
        return len(self._loss.match)

    def delay_s(self) -> float:
        return self._delay_s

    def swallows(self) -> bool:
        return self._swallows

    def rewritten(self, reply: bytes) -> bytes:
        for old, new in self._instead.items():
            reply = reply.replace(old, new)
        return reply

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_S)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            server = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        pair = Pair(self, reader, writer, *server)
        self._pairs.add(pair)
        try:
            await pair.carry()
        finally:
            self._pairs.discard(pair)

    async def _cut(self) -> None:
        for pair in self._pairs:
            pair.cut()

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)


class Pair:
    """A client's connection and ours to the server."""

    def __init__(
        self, proxy: Proxy, client_in: StreamReader, client_out: StreamWriter, server_in: StreamReader,
        server_out: StreamWriter,
    ) -> None:  # fmt: skip
        self._proxy = proxy
        self._client_in, self._client_out = client_in, client_out
        self._server_in, self._server_out = server_in, server_out
        self._lost = False
        self._tail = b""

    async def carry(self) -> None:
        """Until either side ends."""
        await asyncio.gather(
            self._pump(self._client_in, self._to_server), self._pump(self._server_in, self._to_client)
        )
        self.cut()

    def cut(self) -> None:
        self._client_out.transport.abort()
        self._server_out.transport.abort()

    async def _pump(
        self, source: StreamReader, forward: Callable[[bytes], Coroutine[Any, Any, None]]
    ) -> None:
        try:
            while data := await source.read(CHUNK):
                await forward(data)
        except OSError:
            pass
        finally:
            if not self._lost:
                self.cut()

    async def _to_server(self, data: bytes) -> None:
        """Forward; a match may be split between two reads."""
        if self._client_out.transport.is_closing() or self._proxy.swallows():
            return
        keep = max(0, self._proxy.longest_match() - 1)
        sent = self._tail + data
        self._tail = sent[-keep:] if keep else b""
        if not self._lost and self._proxy.loses(sent):  # what follows on this connection is lost with it
            self._tail = b""
            self._lost = True
        self._server_out.write(data)
        await self._server_out.drain()

    async def _to_client(self, data: bytes) -> None:
        """Forward, or cut the client off. The server is left to read and execute all that was sent."""
        if self._lost:
            if not self._client_out.transport.is_closing():
                self._proxy.lost += 1
                self._client_out.transport.abort()
            self._server_out.write_eof()
            return
        if delay_s := self._proxy.delay_s():
            await asyncio.sleep(delay_s)
        if self._proxy.swallows():
            return
        self._client_out.write(self._proxy.rewritten(data))
        await self._client_out.drain()
