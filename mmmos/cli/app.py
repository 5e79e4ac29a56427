"""``mmmos app``: the page in the browser."""

from typing import Annotated

from cyclopts import Parameter

from mmmos.cli.inputs import paths_by_name
from mmmos.cli.options import Device, Weights


def app(
    *,
    bundle: str | None = None,
    port: int = 7860,
    weights: Weights = None,
    device: Device = "auto",
    no_browser: Annotated[bool, Parameter(name="--no-browser")] = False,
) -> int:
    """Score audio on a page in the browser: drop files, see and compare their scores. Ctrl-C ends it.

    The page serves this machine alone and needs no network. Without a bundle it scores with a demo bundle, which is
    made once and says nothing about people. Example: mmmos app --bundle audiobox

    Parameters
    ----------
    bundle
        A bundle's name, folder, zip or hf:// address, or audiobox; by default the demo bundle.
    port
        Of 127.0.0.1; 0: any free one.
    no_browser
        Do not open the page.
    """
    from mmmos.app import launch

    launch(bundle, port=port, weights=paths_by_name(weights), device=device, browser=not no_browser)
    return 0
