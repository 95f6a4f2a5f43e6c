"""Every mutant still fits the source: its line stands there once, and what is made of it can be read."""

import ast

import pytest
from lupa.lua51 import LuaRuntime

from config.store.lua_library import _LUA_FILES, LUA_FOLDER, library_text
from tests.simulated.exploring.killing_runs import load_known
from tests.simulated.exploring.mutants import MUTANTS, Mutant
from tests.simulated.exploring.mutated_source import ROOT, MutantDoesNotFitError, mutated_text

LUA = LuaRuntime()


def test_names_tell_mutants_apart():
    assert len({each.name for each in MUTANTS}) == len(MUTANTS) >= 40


def test_of_each_it_is_known_what_finds_it_or_why_nothing_does():
    known = load_known()
    assert known.undecided() == []
    assert known.killed.keys().isdisjoint(known.hidden)


def test_no_two_change_the_same():
    assert len({(each.file, each.before, each.after) for each in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_a_mutant_fits(mutant: Mutant):
    assert "\n" not in mutant.before + mutant.after
    text = mutated_text(mutant)
    if mutant.file.endswith(".py"):
        ast.parse(text)
    else:
        LUA.compile(_library_with(mutant, text))


def test_a_line_that_has_changed_is_told():
    gone = Mutant("gone", "config/store/lua/lanes.lua", "a line that nobody wrote", "", "nothing")
    with pytest.raises(
        MutantDoesNotFitError, match=r"^gone: its line stands 0 times in config/store/lua/lanes\.lua"
    ):
        mutated_text(gone)


def _library_with(mutant: Mutant, text: str) -> str:
    files = {file: file.read_text() for name in _LUA_FILES if (file := LUA_FOLDER / f"{name}.lua")}
    assert ROOT / mutant.file in files
    return library_text("\n".join((files | {ROOT / mutant.file: text}).values()))
