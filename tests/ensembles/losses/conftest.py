"""Losses of few clips are computed in one thread, as in training."""

import pytest


@pytest.fixture(autouse=True)
def _as_in_training(one_thread):
    """See the module."""
