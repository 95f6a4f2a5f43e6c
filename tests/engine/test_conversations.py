"""Whole conversations go as their transcripts say."""

from pathlib import Path

import pytest

from tests.engine.chat import ROOT, SHIPPED, play, surveys_of

GOLDENS = sorted((ROOT / "tests" / "goldens").glob("*.txt"))


@pytest.fixture(scope="module")
def surveys():
    return surveys_of(SHIPPED)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.stem)
def test_a_conversation_goes_as_written(golden: Path, surveys):
    transcript = golden.read_text(encoding="utf-8")
    assert play(transcript, surveys) == transcript
