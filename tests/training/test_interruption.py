"""Ctrl-C and SIGTERM: a training stops on a whole step, and goes on to the same bits."""

import os
import signal
import threading

import numpy as np
import pytest

from pixelnet_tf.training import loop
from pixelnet_tf.training.interruption import Interruption
from tests.listening import Listening

SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


def run_to_end(trainer, resume=False):
    """Final weights, rows of the log without times, and the best step."""
    weights = trainer.run(resume).get_weights()
    rows = [{key: value for key, value in row.items()
             if key not in ("seconds", "slices_per_second")}
            for row in trainer.run_folder.log_rows()]
    return weights, rows, trainer.run_folder.state("best")


def test_a_stop_saves_the_step_at_hand_and_costs_no_more_than_a_validation(make_trainer,
                                                                           monkeypatch):
    fields = {"steps": 5, "checkpoint_every": 100, "validate_every": 2}
    expected = run_to_end(make_trainer("whole", **fields))

    # Ctrl-C within the third step.
    ears = Listening(lambda task, done: done == 3 and os.kill(os.getpid(), signal.SIGINT))
    trainer = make_trainer("stopped", **fields)
    trainer.reporter = ears
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert ears.said[-1] == "stopped; the state after step 3 is saved, --resume goes on from there"
    assert trainer.run_folder.state("last") == {"name": "last-3", "step": 3}

    # SIGTERM within the validation after the fourth.
    def interrupted(*arguments):
        validate = real(*arguments)
        return lambda model: (os.kill(os.getpid(), signal.SIGTERM), validate(model))

    real = loop.case_validator
    trainer = make_trainer("stopped", **fields)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "case_validator", interrupted)
        with pytest.raises(SystemExit) as stopped:
            trainer.run(resume=True)
    assert stopped.value.code == 143
    assert trainer.run_folder.state("last") == {
        "name": "last-4", "step": 4, "unvalidated": True, "before": {"name": "last-3", "step": 3}}

    again, ears = make_trainer("stopped", **fields), Listening()
    again.reporter = ears
    found = run_to_end(again, resume=True)
    assert ears.said[0] == "going on from step 4 of 5"
    for mine, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert found[1:] == expected[1:]


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_second_signal_does_not_wait(number, error):
    reached = []

    def block(interruption):
        with interruption.held():
            os.kill(os.getpid(), number)
            reached.append(1)
            os.kill(os.getpid(), number)
            reached.append(2)

    with Interruption() as interruption, pytest.raises(error):
        block(interruption)
    assert reached == [1]


def test_a_signal_waits_for_the_block_and_the_old_handlers_come_back():
    before, done = [signal.getsignal(number) for number, _ in SIGNALS], []

    def block(interruption):
        with interruption.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)

    with Interruption() as interruption:
        with pytest.raises(SystemExit):
            block(interruption)
        assert done
        # Outside of a block it does not wait.
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert before == [signal.getsignal(number) for number, _ in SIGNALS]


def test_in_another_thread_nothing_is_changed():
    seen = []

    def enter():
        with Interruption() as interruption, interruption.held():
            seen.append([signal.getsignal(number) for number, _ in SIGNALS])

    before = [signal.getsignal(number) for number, _ in SIGNALS]
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
