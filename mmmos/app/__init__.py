"""``mmmos app``: a page in the browser that scores files dropped on it, for this machine alone and without a network.

Gradio (extra ``app``) is imported by ``launch`` only.
"""

import shutil
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from mmmos import progress
from mmmos.errors import SetupError

__all__ = ["launch"]

PORT = 7860


def launch(
    bundle: str | Path | None = None,
    *,
    port: int = PORT,
    weights: Mapping[str, str | Path] | None = None,
    device: str = "auto",
    browser: bool = True,
) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C. Files of its visitors lie in a temporary folder, which is removed.

    ``bundle``: what ``mmmos.scoring.load`` takes; None for the demo bundle, made on first use. ``port`` 0: any free
    one. ``browser``: open the page. Raises ``SetupError`` without Gradio and ``UsageError`` for a port that is taken.
    """
    if find_spec("gradio") is None:
        raise SetupError("The page needs Gradio, which is not installed. Type: pip install 'mmmos[app]'")
    from mmmos.app import serving

    port = serving.free_port(port)
    folder = Path(tempfile.mkdtemp(prefix="mmmos-app-")).resolve()
    try:
        serving.prepare(folder)
        address = _start(bundle, port, weights or {}, device, folder)
        sys.stderr.write(f"The page: {address}\nCtrl-C ends it.\n")
        if browser:
            webbrowser.open(address)
        progress.saved("The page has ended, and its files are removed.", goes_on=False)
        threading.Event().wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(bundle: str | Path | None, port: int, weights: Mapping[str, str | Path], device: str, folder: Path) -> str:
    """Load the bundle and serve the page in threads of its own; the page's address."""
    from mmmos import scoring
    from mmmos.app import demo, page
    from mmmos.app.subjects import subject_of

    if bundle is None:
        sys.stderr.write(f"Scoring with the demo bundle. {demo.NOTICE}\n")
    scorer = scoring.load(demo.demo_bundle() if bundle is None else bundle, device=device, weights=weights)
    subject = subject_of(scorer.model, notice=demo.NOTICE if bundle is None else "")
    return page.serve(scorer, subject, port=port, folder=folder)
