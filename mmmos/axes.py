"""The four axes of listening tests with aesthetics ratings (Audiobox-Aesthetics, arXiv 2502.05139).

Conventions: an axis is addressed by its short name; ``AXES`` is the only place where an order exists.
Scores are means of ratings on the raw scale, ``SCALE`` = 0 to 10.
"""

from mmmos.errors import UnknownName, did_you_mean

AXES = ("PQ", "PC", "CE", "CU")
"""Short names of Production Quality, Production Complexity, Content Enjoyment and Content Usefulness, in the order of
tables and arrays (Audiobox-Aesthetics, arXiv 2502.05139). Scores are means of ratings, 0 to 10.

>>> mmmos.AXES
('PQ', 'PC', 'CE', 'CU')
"""

LONG_NAMES = {
    "PQ": "Production_Quality",
    "PC": "Production_Complexity",
    "CE": "Content_Enjoyment",
    "CU": "Content_Usefulness",
}

SCALE = (0.0, 10.0)

_BY_ALIAS = {
    alias.lower(): short for short, long in LONG_NAMES.items() for alias in (short, long, long.replace("_", " "))
}


def find_axis(name: str) -> str | None:
    """Short name of an axis given by its short, long or spaced name in any case; None for any other name."""
    return _BY_ALIAS.get(name.strip().lower())


def axis(name: str) -> str:
    """Short name of an axis given by any of its names.

    Raises ``UnknownName`` for any other name.
    """
    short = find_axis(name)
    if short is None:
        options = [*AXES, *LONG_NAMES.values()]
        raise UnknownName("axis", name, options, did_you_mean(name, options))
    return short
