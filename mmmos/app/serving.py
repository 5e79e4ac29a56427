"""Serving a page to this machine alone: its address, what may be asked for, and that nothing is fetched elsewhere."""

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmos.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"

# Scripts of Gradio are built from text, hence 'unsafe-eval'; no directive names another host.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self';"
    " worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)

# Parts of Gradio that fetch from other hosts or load other apps.
FORBIDDEN = ("/file=http:", "/file=https:", "/file/http", "/proxy=")


def prepare(folder: Path) -> None:
    """Set what Gradio reads when it is imported and at work: no calls home, no history, all its files in one folder."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
    }


def free_port(wanted: int) -> int:
    """The wanted port of this machine, or any free one for 0. Raises ``UsageError`` for one that is taken."""
    with socket.socket() as listener:
        if os.name == "posix":  # pragma: no branch - not so on Windows
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
        except (OSError, OverflowError) as error:
            hint = "Name another with --port, or --port 0 for any free one."
            raise UsageError(f"Port {wanted} {_refusal(error)}. {hint}") from error
        return int(listener.getsockname()[1])


def _refusal(error: OSError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return "is none: they go from 1 to 65535"
    if error.errno == errno.EADDRINUSE:
        return "is taken, perhaps by an mmmos app that still runs"
    return f"cannot be used ({error.strerror or error})"


class Gate:
    """Answers this machine's browser alone, and nothing that would make the server fetch; adds the content policy.

    A request must name this machine as its host, and as its origin if it has one: pages of other sites could otherwise
    read this one under their own name, or send it files.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not _is_welcome(scope):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"This page serves its own machine only."})
            return

        async def answer(message: "Message") -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self._app(scope, receive, answer)


def _is_welcome(scope: Any) -> bool:
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
    host = headers.get(b"host", "")
    path = scope["path"].lower()
    return (
        host.partition(":")[0] in (HOST, "localhost")
        and headers.get(b"origin", f"http://{host}") == f"http://{host}"
        and not any(part in path for part in FORBIDDEN)
    )
