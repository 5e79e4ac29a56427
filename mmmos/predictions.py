"""Reading predicted scores from a text file."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmmos.axes import AXES, find_axis
from mmmos.errors import InputError, Problem, shorten

# Lines that cannot be read of which each is named.
NAMED = 20


def read_predictions(
    path: str | Path, names: Sequence[str] = AXES, find: Callable[[str], str | None] = find_axis
) -> pd.DataFrame:
    """Scores from comma-separated text: an id, then scores under a header that names them, or, without one, ``names``
    in their order.

    ``find``: the name among ``names`` that a column of a header holds, None for a column that is left out.
    Returns float64 columns indexed by ``id``. Raises ``InputError`` naming each line that cannot be read.
    """
    file = str(path)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        raise InputError([Problem(file, "does not exist.")]) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError([Problem(file, f"cannot be read as comma-separated text: {error}.")]) from None
    columns = [find(name) for name in rows[0][1][1:]] if rows else []
    if any(columns):
        rows = rows[1:]
    else:
        columns = list(names)
    ids, scores, problems = [], [], []
    for line, row in rows:
        try:
            scores.append([float(score) for score, name in zip(row[1:], columns, strict=True) if name])
            ids.append(row[0])
        except ValueError:
            expected = f"expected an id and {len(columns)} columns with {', '.join(names)}"
            problems.append(Problem(file, f"{expected}; got {shorten(','.join(row))}.", line))
    if problems or not ids:
        found = problems[:NAMED] or [Problem(file, "holds no scores.")]
        raise InputError(found, max(0, len(problems) - NAMED))
    index = pd.Index(ids, name="id", dtype=object)
    return pd.DataFrame(scores, index=index, columns=[name for name in columns if name], dtype=np.float64)
