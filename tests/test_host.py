"""Who asks the machine for the time, for a rest or for chance? A Host does; whoever else does so cannot run in a time that is made
up, and needs a reason. And whoever could be given a host is given one."""

import ast
from collections.abc import Iterable, Iterator

import pytest

from tests.figures import PACKAGES, ROOT

NEEDS_NO_HOST = {
    "config/host.py": "it is what asks",
    "config/archive/database.py": "ends a statement of a real database that takes too long",
    "config/archive/pseudonyms.py": "makes a key, once for an archive",
    "config/commands/init.py": "makes secrets",
    "config/connections/async_cluster_client.py": "waits for real servers",
    "config/connections/cluster_client.py": "waits for real servers",
    "config/connections/cluster_view.py": "lets real servers rest",
    "config/invitations/invitation_client.py": "waits for a real server between two tries",
    "config/settings/survey_folder.py": "looks how old real files are",
    "config/telemetry/exposition.py": "measures a real process",
    "config/telemetry/multiprocess_metrics.py": "names the files of a real process",
    "config/telemetry/process_registry.py": "is the heartbeat of a real process",
    "config/telemetry/supervision.py": "tells of a real process",
    "workers/console/kept_readings.py": "counts for real browsers",
    "workers/console/live_pages.py": "ticks for real browsers",
    "engine/commands/chat.py": "talks with the person at a terminal",
    "ingest/commands/invite.py": "makes a reference",
    "ingest/commands/key.py": "makes a secret",
    "ingest/commands/phone.py": "talks with the person at a terminal",
    "workers/commands/reports/results.py": "draws a screen anew",
    "workers/commands/run.py": "starts real processes",
    "workers/roles/worker_process.py": "ends a real process",
    "workers/runtime/embedded_redis.py": "starts a real server",
    "workers/sending/deadline_transport.py": "waits for a real network",
    "workers/sending/provider_route.py": "waits for a real network",
}
"""Modules that ask the machine themselves, and why they may."""

HAVE_NO_DEPLOYMENT = {
    "ingest/__main__.py": {"create_app"},
}
"""Where a callable is left with the host that it has by itself."""

MACHINE_MODULES = {"random", "secrets", "time", "uuid"}
MACHINE_CALLS = {
    ("date", "today"),
    ("datetime", "now"),
    ("datetime", "today"),
    ("datetime", "utcnow"),
    ("os", "getrandom"),
    ("os", "times"),
    ("os", "urandom"),
    ("threading", "Timer"),
}


def product_modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def asks_machine(module: ast.Module) -> bool:
    """Whether the module imports what tells the time, rests or gives chance, or calls it by another's name."""
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names) if any(each.name.split(".")[0] in MACHINE_MODULES for each in names):
                return True
            case ast.ImportFrom(module=name, names=names) if name in MACHINE_MODULES:
                return True
            case ast.ImportFrom(module=name, names=names) if any(
                (name, each.name) in MACHINE_CALLS for each in names
            ):
                return True
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name) if (
                owner,
                name,
            ) in MACHINE_CALLS:
                return True
    return False


def host_places(modules: Iterable[ast.Module]) -> dict[str, int]:
    """Of functions and classes of these modules that take a `host`: how many arguments come before it; the most, where several
    are called the same."""
    places: dict[str, int] = {}
    for name, function, bound in _functions_and_classes(modules):
        taken = [each.arg for each in (*function.args.args, *function.args.kwonlyargs)]
        if "host" in taken and "Host" in ast.unparse(function.args):
            places[name] = max(taken.index("host") - bound, places.get(name, 0))
    return places


def _functions_and_classes(modules: Iterable[ast.Module]) -> Iterator[tuple[str, ast.FunctionDef, int]]:
    """Each with its name, what is called, and how many of its arguments are given by Python."""
    for node in (each for module in modules for each in module.body):
        match node:
            case ast.FunctionDef(name=name):
                yield name, node, 0
            case ast.ClassDef(name=name, body=body):
                for each in body:
                    if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                        yield name, each, 1


def left_without_host(module: ast.Module, places: dict[str, int]) -> set[str]:
    """What the module calls, or has called, without a host."""
    imported = {
        each.asname or each.name
        for node in ast.walk(module)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }
    left = set()
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        called, arguments = node.func, node.args
        if isinstance(called, ast.Name) and called.id == "partial" and arguments:
            called, *arguments = arguments
        match called:
            case ast.Name(id=name):
                pass
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in imported:
                pass
            case _:
                continue
        is_given = any(each.arg in ("host", None) for each in node.keywords) or any(
            isinstance(each, ast.Starred) for each in arguments
        )
        if name in places and not is_given and len(arguments) <= places[name]:
            left.add(name)
    return left


def test_only_those_ask_the_machine_who_have_a_reason() -> None:
    assert {file for file, module in product_modules() if asks_machine(module)} == NEEDS_NO_HOST.keys()


def test_whoever_could_be_given_a_host_is_given_one() -> None:
    modules = dict(product_modules())
    places = host_places(modules.values())
    left = {file: found for file, module in modules.items() if (found := left_without_host(module, places))}
    assert left == HAVE_NO_DEPLOYMENT


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import time as clock",
        "import random, json",
        "from time import monotonic as now",
        "from secrets import token_hex",
        "def late():\n    from time import sleep",
        "import uuid",
        "from datetime import datetime\nat = datetime.now()",
        "import datetime\nat = datetime.datetime.utcnow()",
        "from datetime import date\nnow = date.today",
        "import os\nkey = os.urandom(8)",
        "from os import urandom",
        "from threading import Timer",
    ],
)
def test_a_module_that_asks_is_found(source: str) -> None:
    assert asks_machine(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime, time\nat = datetime.combine(day, time())",
        "import asyncio\nasync def rest(loop): await asyncio.sleep(loop.time())",
        "def now(host): return host.wall_s() + host.random()",
    ],
)
def test_one_that_does_not_is_not(source: str) -> None:
    assert not asks_machine(ast.parse(source))


@pytest.mark.parametrize("call", ["Store(1)", "stores.Store(1)", "partial(Store, 1)", "Store(1, 2)"])
def test_a_call_that_leaves_a_host_out_is_found(call: str) -> None:
    module = ast.parse("class Store:\n    def __init__(self, client, shards=16, host: Host = THIS_HOST): ...")
    places = host_places([module])
    assert left_without_host(ast.parse(f"import stores\n{call}"), places) == {"Store"}
    assert not left_without_host(ast.parse("Store(1, host=host), Store(1, 2, host), Store(*all)"), places)
