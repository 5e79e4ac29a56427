"""Arrays and JSON of untrusted files, within limits: no code, no surprise of size or depth."""

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from mmmos.errors import StoreError

# Bytes of a safetensors header, arrays in a file, levels of a JSON value.
MOST_HEADER, MOST_ARRAYS, MOST_LEVELS = 1_000_000, 20_000, 32
DTYPES = frozenset({"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"})

Arrays = dict[str, NDArray[Any]]


def arrays_of(data: bytes, where: str) -> Arrays:
    """The arrays of a safetensors file. Raises ``StoreError``."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > MOST_HEADER:
        raise StoreError(f"{where} is no safetensors file with a header of at most {MOST_HEADER} bytes.")
    header = json_of(data[8 : 8 + size], f"The header of {where}")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if len(entries) > MOST_ARRAYS:
        raise StoreError(f"{where} holds {len(entries)} arrays; {MOST_ARRAYS} are allowed.")
    for name, entry in entries.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if dtype not in DTYPES:
            raise StoreError(f"{where}: {name!a} is of the type {dtype!a}, which no head has.")
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise StoreError(f"{where} cannot be read as safetensors: {error}.") from None


def json_of(data: bytes, where: str) -> dict[str, Any]:
    """The object in JSON text. Raises ``StoreError``, also for a key twice, NaN, infinity and more than 32 levels."""
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite, parse_int=_whole
        )
        # Half characters, which an escape may stand for, have no bytes in UTF-8.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        what = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise StoreError(f"{where} is not the JSON of a bundle: {what}.") from None
    if not isinstance(found, dict):
        raise StoreError(f"{where} holds no JSON object.")
    if max(_levels(found)) > MOST_LEVELS:
        raise StoreError(f"{where} is nested deeper than {MOST_LEVELS} levels.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!a} is there twice")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"{text[:20]}… is too large")
    return int(text)


def _levels(value: Any) -> Iterator[int]:
    """Depth of every value inside one."""
    waiting = [(value, 1)]
    while waiting:
        each, depth = waiting.pop()
        yield depth
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        waiting += [(part, depth + 1) for part in inner]
