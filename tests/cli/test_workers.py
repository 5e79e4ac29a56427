"""Where a command's work runs, as its options say."""

from pathlib import Path

import pytest

from mmmos.cli.workers import workers_of
from mmmos.errors import UnknownName, UsageError
from mmmos.parallel import Workers


def test_options_name_workers():
    assert workers_of("local", None, 0, None) == Workers()
    assert workers_of("dask", "tcp://host:8786", 4, Path("logs")) == Workers("dask", "tcp://host:8786", 4, "logs")


def test_a_mistyped_backend_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"dask"):
        workers_of("dusk", None, 0, None)


@pytest.mark.parametrize(("backend", "address", "jobs"), [("local", "tcp://host:8786", 0), ("dask", None, -1)])
def test_options_that_make_no_sense_together_are_refused(backend, address, jobs):
    with pytest.raises(UsageError, match=r"address|jobs"):
        workers_of(backend, address, jobs, None)
