"""Files that are whole or absent, and the canonical JSON that keys and digests are made of."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write a file under a temporary name in its folder, fsync, rename, fsync the folder.

    A reader sees the old content or all of the new one, also after a kill or a power cut.
    """
    path = Path(path)
    created = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    for folder in (path.parent, *(new.parent for new in created)):
        sync_folder(folder)
    return path


def sync_folder(folder: Path) -> None:
    """Make the renames inside a folder durable, where the platform and the file system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def tensor_bytes(arrays: "Mapping[str, NDArray[Any]]", metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file of numpy arrays, each in C order: the format itself scrambles any other order silently."""
    import numpy as np
    from safetensors.numpy import save

    data: bytes = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata=metadata)
    return data


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN is refused. 1 and 1.0 are different texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pretty_json(value: Any) -> str:
    """JSON for people: sorted keys, indented, newline at the end; NaN is refused."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def key_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
