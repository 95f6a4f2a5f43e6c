"""Every error of ours has one root, and the tree of them is printed where the root is."""

import importlib
import pkgutil
from inspect import isclass

import config
import engine
import ingest
import workers
from engine.model import errors
from engine.model.errors import ParleyError

PACKAGES = (engine, config, ingest, workers)


def modules():
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(("__main__", ".migrations.env")):  # Alembic alone runs the latter
                yield importlib.import_module(found.name)


def tree(error, depth=1):
    """Each error below `error`: how far in, its name, its module."""
    for each in sorted(error.__subclasses__(), key=lambda each: (each.__module__, each.__name__)):
        yield 4 * depth, each.__name__, each.__module__
        yield from tree(each, depth + 1)


def test_every_error_of_ours_is_a_parley_error():
    ours = [
        value
        for module in modules()
        for value in vars(module).values()
        if isclass(value) and issubclass(value, Exception)
        if value.__module__ == module.__name__
    ]
    assert ParleyError in ours
    assert [each for each in ours if not issubclass(each, ParleyError)] == []


def test_the_tree_of_errors_is_as_it_is_printed():
    list(modules())
    lines = [line for line in errors.__doc__.splitlines() if line.startswith("    ")]
    assert [(len(line) - len(line.lstrip()), *line.split()) for line in lines] == list(tree(ParleyError))
