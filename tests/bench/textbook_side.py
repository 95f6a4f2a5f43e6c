"""The textbook pipeline, run and looked into."""

import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from dramatiq.brokers.redis import RedisBroker

from tests.bench.textbook import SESSION_S, advance, inbound
from tests.support.octopush import FakeOctopush
from tests.support.processes import READY_S, ROOT, TOKEN, Process
from tests.support.valkey import Valkey
from tests.support.waiting import free_port, until

PIPELINE = 1_000


class Textbook:
    """Its processes, on `valkey` and `octopush`. A context manager, which ends them."""

    def __init__(self, valkey: Valkey, octopush: FakeOctopush) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="textbook-")
        self._port = free_port()
        self._database = valkey.client()
        self._queue = valkey.client(valkey.broker_url)
        self._broker = RedisBroker(url=valkey.broker_url)  # type: ignore[no-untyped-call]
        self.processes: list[Process] = []
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": valkey.url,
            "BROKER_URL": valkey.broker_url,
            "SMS_URL": octopush.send_url,
            "TOKEN": TOKEN,
            "PORT": str(self._port),
        }

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self._port}/webhooks/clinic?token={TOKEN}"

    def start_web(self) -> Process:
        process = self._spawn("web", "python -m tests.bench.textbook")
        until(self._listens, READY_S, "the textbook's webhook listens")
        return process

    def start_worker(self, *options: str, ready: int = 1) -> Process:
        """Dramatiq's command line with `options`, once `ready` processes of it are."""
        process = self._spawn("worker", f"dramatiq tests.bench.textbook {' '.join(options)}")
        until(lambda: process.log.read_bytes().count(b"ready for action") >= ready, READY_S, "Dramatiq works")
        return process

    def enqueue(self, texts: Mapping[str, str]) -> None:
        """One SMS from each of these senders waits in the queue."""
        for sender, text in texts.items():
            self._broker.enqueue(inbound.message(sender, text))

    def unsent(self) -> int:
        """SMS that wait to be sent."""
        return int(self._queue.llen("dramatiq:send"))

    def take_unsent(self) -> dict[str, list[str]]:
        """The SMS that wait, by sender; they wait no longer."""
        texts: dict[str, list[str]] = {}
        for encoded in self._queue.hvals("dramatiq:send.msgs"):
            to, text, _ = json.loads(encoded)["args"]
            texts.setdefault(to, []).append(text)
        self._queue.delete("dramatiq:send", "dramatiq:send.msgs")
        return texts

    def open_sessions(self, senders: Iterable[str]) -> None:
        """Sessions as they are after START, put there directly."""
        session = json.dumps(advance({}, "START")[0])
        pipeline = self._database.pipeline(transaction=False)
        for place, sender in enumerate(senders):
            pipeline.set(f"session:{sender}", session, ex=SESSION_S)
            if place % PIPELINE == 0:
                pipeline.execute()
        pipeline.execute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            if error is not None:
                sys.stderr.write(process.log.read_text(errors="replace")[-4000:])
            process.signal(signal.SIGCONT)
            process.kill9()
        self._broker.close()
        self._folder.cleanup()

    def _spawn(self, name: str, command: str) -> Process:
        log = Path(self._folder.name) / f"{name}.{len(self.processes)}.log"
        process = Process(name, command, self._environment, log)
        self.processes.append(process)
        return process

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
