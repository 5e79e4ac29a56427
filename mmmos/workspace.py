"""A workspace: three shelves with recipes, and a challenge file. The root of the repository is one, too."""

from pathlib import Path

from mmmos.files import write_atomic
from mmmos.recipe import SHELVES, packaged_files

CHALLENGE = """\
# What to compute; `mmmos run` carries it out. Relative paths lie beside this file.
[data]
train = ["train.csv"]          # labelled, natural
dev   = ["dev.csv"]            # labelled, natural
pam   = ["pam.csv"]            # labelled, synthetic proxy: what the ensemble is chosen on
eval  = ["test.csv"]           # to predict; labels, if present, are used for nothing but `evaluate`
# root = { "/your_path" = "/data" }

[features]
recipe = "melstats"            # a name on the shelf, or a path to a .toml; or encoders = ["melstats"]

[ensembles]
recipe = "quick"

[submission]
format = "audiomos2025-track2"
name   = "first"               # -> submissions/first/
"""


def lay_out(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Write a workspace's files where they are absent. Returns the files written and those left as they were."""
    folder = Path(folder)
    wanted = {folder / shelf / file.name: file.read_bytes() for shelf in SHELVES for file in packaged_files(shelf)}
    wanted[folder / "challenge.toml"] = CHALLENGE.encode()
    wanted[folder / ".gitignore"] = "".join(f"/{shelf}/*/\n" for shelf in SHELVES).encode()
    kept = [path for path in wanted if path.exists()]
    written = [write_atomic(path, data) for path, data in wanted.items() if path not in kept]
    return written, kept
