"""Ctrl-C while something is watched: the first ends no look, the second ends any."""

import signal
from time import monotonic

import pytest

from engine.commands.interrupts import until_interrupted
from tests.support.waiting import HANG_S


def test_the_first_ctrl_c_lets_a_look_be_finished_and_is_the_end_of_looking():
    with until_interrupted() as wait_to_look:
        assert wait_to_look(0)
        signal.raise_signal(signal.SIGINT)
        begun = monotonic()
        assert not wait_to_look(HANG_S)
    assert monotonic() - begun < HANG_S


def test_the_second_ctrl_c_breaks_a_look_off():
    with until_interrupted():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_afterwards_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), until_interrupted():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before
