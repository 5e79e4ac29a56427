"""Where the work of a command runs: its options --jobs, --backend, --address and --logs."""

from pathlib import Path

from mmmos.parallel import Workers


def workers_of(backend: str, address: str | None, jobs: int, logs: Path | None) -> Workers:
    """The workers that the options name. Raises ``UsageError``, and ``UnknownName`` for a backend that is none."""
    return Workers(backend, address, jobs, None if logs is None else str(logs))
