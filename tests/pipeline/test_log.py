"""What a run tells while it works."""

import time

import pytest

from onnxprune.pipeline.run import Log


def test_a_stage_inside_another_has_its_seconds_to_itself() -> None:
    log = Log()
    with log.stage("save"):
        time.sleep(0.02)
        with log.stage("verify"):
            time.sleep(0.1)
    with log.stage("verify"):
        time.sleep(0.05)
    assert 0.02 <= log.seconds["save"] < 0.1
    assert log.seconds["verify"] >= 0.15
    assert not log.inner


def test_a_stage_that_fails_is_closed() -> None:
    log = Log()
    with pytest.raises(KeyError), log.stage("save"), log.stage("verify"):
        raise KeyError
    assert not log.inner
    assert log.seconds.keys() == {"save", "verify"}


def test_what_was_said_of_a_cut_can_be_taken_back() -> None:
    log = Log(notes=["kept"])
    told = log.messages
    log.notes.append("of the cut")
    log.warnings.append("of the cut")
    log.forget(told)
    assert (log.notes, log.warnings) == (["kept"], [])
