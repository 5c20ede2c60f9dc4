"""What tests of training share."""

import signal

import pytest


@pytest.fixture
def interrupt_at(monkeypatch):
    """A function: the training that follows gets a Ctrl-C after that many steps, until ``monkeypatch.undo()``."""
    from convarium.training import progress

    def patch(step):
        seen = 0
        on_step = progress.TrainingProgress.on_step

        def interrupt(self, *arguments):
            nonlocal seen
            seen += 1
            on_step(self, *arguments)
            if seen == step:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(progress.TrainingProgress, "on_step", interrupt)

    return patch
