"""Large arrays that all processes of this machine look at in one place: written once, memory-mapped by each."""

import os
import shutil
import tempfile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Bytes from which on an array is shared and not sent.
LARGE = 1 << 20


class SharedArrays:
    """What stands for the large arrays of a call in the messages to its processes; ``clear`` when the call ends."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._folder: Path | None = None
        # The array itself is kept: no other one can have its id.
        self._kept: dict[int, tuple[Any, str]] = {}

    def __reduce__(self) -> tuple[type["SharedArrays"], tuple[()]]:
        """In a worker, one without arrays: it sends nothing."""
        return SharedArrays, ()

    def __call__(self, array: "NDArray[Any]") -> Any:
        """How an array is sent, as ``object.__reduce__`` has it."""
        if array.nbytes < LARGE or array.dtype.hasobject:
            return array.__reduce__()
        with self._lock:
            if id(array) not in self._kept:
                self._kept[id(array)] = array, self._written(array)
            return _mapped, (self._kept[id(array)][1],)

    def clear(self) -> None:
        """Forget the arrays; their files go."""
        with self._lock:
            self._kept.clear()
            folder, self._folder = self._folder, None
        if folder is not None:
            _forget(folder)

    def _written(self, array: "NDArray[Any]") -> str:
        import numpy as np

        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mmmos-"))
            _remember(self._folder)
        path = self._folder / f"{len(self._kept)}.npy"
        np.save(path, array, allow_pickle=False)
        return str(path)


def _mapped(path: str) -> "NDArray[Any]":
    import numpy as np

    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _remember(folder: Path) -> None:
    """Have a folder deleted when this process is killed, by the helper that joblib starts for its own."""
    from joblib.externals.loky.backend import resource_tracker

    resource_tracker.register(str(folder), "folder")


def _forget(folder: Path) -> None:
    from joblib.externals.loky.backend import resource_tracker

    shutil.rmtree(folder, ignore_errors=True)
    # Where Windows keeps what is still mapped, the helper deletes it at the end.
    if not os.path.exists(folder):  # noqa: PTH110  # pragma: no branch - it exists on Windows alone
        resource_tracker.unregister(str(folder), "folder")
