"""Functions that the worker processes of these tests can import."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from mmmos.parallel import on_loky


@pytest.fixture
def worker_tasks(monkeypatch):
    """The module of that name, importable in new workers."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    on_loky.close()
    yield import_module("worker_tasks")
    on_loky.close()
    del sys.modules["worker_tasks"]
