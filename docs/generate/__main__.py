"""Writes docs/reference/ from the code: ``make reference``."""

from pathlib import Path

import commands
import facts
import public
import registered
import shelves

FOLDER = Path(__file__).parent.parent / "reference"

PAGES = {
    "commands": commands.text,
    "python": public.text,
    "encoders": registered.encoders,
    "heads": registered.heads,
    "losses": registered.losses,
    "selectors": registered.selectors,
    "formats": shelves.formats,
    "recipes": shelves.recipes,
    "codes": facts.codes,
    "licences": facts.licences,
}

if __name__ == "__main__":
    for name, text in PAGES.items():
        (FOLDER / f"{name}.md").write_text(text(), encoding="utf-8")
