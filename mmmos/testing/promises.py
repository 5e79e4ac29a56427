"""Holding a plug-in to its promises."""

from collections.abc import Callable, Iterable
from inspect import getdoc
from typing import TypeVar

Subject = TypeVar("Subject")


def hold(subject: Subject, promises: Iterable[Callable[[Subject], None]]) -> None:
    """Call each promise with the subject; raise one ``AssertionError`` that names all broken ones and says how."""
    faults = []
    for promise in promises:
        try:
            promise(subject)
        except AssertionError as fault:
            faults.append(f"{promise.__name__}: {fault}")
        except Exception as error:
            faults.append(f"{promise.__name__}: {type(error).__name__}: {error} ({getdoc(promise)})")
    if faults:
        raise AssertionError("\n".join(faults))
