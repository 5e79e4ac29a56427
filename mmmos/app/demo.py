"""The demo bundle: what ``mmmos app`` scores with when it is given none."""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

NOTICE = "Trained on a synthesized corpus with simulated ratings: shows how it works, says nothing about people."


def demo_bundle(folder: Path | None = None) -> Path:
    """The demo bundle in a folder, the user's cache by default; made on first use, in about half a minute.

    It is made beside its place and renamed, so that it is whole or absent.
    """
    place = (folder or cache_folder()) / _version()
    if not place.is_dir():
        sys.stderr.write("Making the demo bundle, once: a synthesized corpus, its features and its heads.\n")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as workspace:
            made = _make(Path(workspace))
            # Another process may have been faster: its bundle is the same.
            with suppress(OSError):
                made.rename(place)
    return place


def cache_folder() -> Path:
    """Where demo bundles lie."""
    import platformdirs

    return platformdirs.user_cache_path("mmmos", appauthor=False) / "demo-bundles"


def _version() -> str:
    from mmmos import __version__
    from mmmos.demo import VERSION
    from mmmos.ensembles.bundle.about import FORMAT

    return f"corpus-{VERSION}-format-{FORMAT}-mmmos-{__version__}"


def _make(workspace: Path) -> Path:
    from mmmos.demo import make_corpus
    from mmmos.pipeline import run
    from mmmos.pipeline.bundles import export

    challenge = make_corpus(workspace, size="tiny")
    run(challenge, intervals=0)
    return Path(export(challenge, to=workspace / "bundle").path)
