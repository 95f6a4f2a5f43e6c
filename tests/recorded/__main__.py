"""`python -m tests.recorded FILE`: play the scene by this release's processes, and write what lies in Redis then."""

import json
import socket
import sys
import tempfile
from pathlib import Path

from tests.recorded.reading import samples
from tests.recorded.scene import Scene, deployment
from tests.support.octopush import FakeOctopush
from tests.support.processes import ROOT
from tests.support.valkey import Valkey


def record(file: Path) -> None:
    """Nothing of this machine is written: its name, and where this and Python lie, have others of the same length."""
    folders = {str(ROOT): "p", sys.prefix: "v", sys.base_prefix: "b"}
    hidden = {each: "/" + letter * (len(each) - 1) for each, letter in folders.items()}
    hidden[socket.gethostname()] = "machine"
    with Valkey() as valkey, FakeOctopush() as octopush, tempfile.TemporaryDirectory() as folder:
        with deployment(valkey, octopush, Path(folder) / "surveys") as parley:
            Scene(valkey, octopush, parley).play()
        lines = [json.dumps(each) for each in samples(valkey.client(), valkey.client(valkey.broker_url))]
    written = "\n".join([*lines, ""])
    for what, other in hidden.items():
        written = written.replace(what, other.ljust(len(what), "x")[: len(what)])
    file.write_text(written)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
