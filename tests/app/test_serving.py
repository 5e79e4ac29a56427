"""Who is served, where, and what stays on this machine."""

import asyncio
import errno
import os
import socket

import pytest

from mmmos.app import serving
from mmmos.errors import UsageError


def status(path="/", **headers):
    """What the gate answers, and the headers that it adds."""
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    asyncio.run(serving.Gate(page)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "localhost"])
def test_this_machine_is_served_and_fetches_nowhere_else(host):
    code, headers = status(host=host, origin=f"http://{host}")
    assert code == 200
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy
    assert "*" not in policy


@pytest.mark.parametrize(
    "request_of",
    [
        {"host": "evil.example:7860"},
        {"host": "127.0.0.1.evil.example"},
        {},
        {"host": "127.0.0.1:7860", "origin": "https://evil.example"},
        {"host": "127.0.0.1:7860", "origin": "null"},
        {"host": "127.0.0.1:7860", "path": "/gradio_api/file=https://evil.example/x"},
        {"host": "127.0.0.1:7860", "path": "/gradio_api/proxy=https://evil.example"},
    ],
)
def test_others_are_not(request_of):
    assert status(**request_of)[0] == 403


def test_a_taken_port_is_said():
    with socket.socket() as other:
        other.bind((serving.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} is taken.*--port 0"):
            serving.free_port(port)
    assert serving.free_port(0) > 0
    with pytest.raises(UsageError, match="1 to 65535"):
        serving.free_port(70_000)


def test_a_port_that_may_not_be_used_is_said(monkeypatch):
    def bind(self, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(UsageError, match=r"Port 80 cannot be used \(Permission denied\)\. Name another"):
        serving.free_port(80)


def test_the_servers_own_start_and_end_pass_the_gate():
    passed = []

    async def page(scope, receive, send):
        passed.append(scope["type"])

    asyncio.run(serving.Gate(page)({"type": "lifespan"}, None, None))
    assert passed == ["lifespan"]


def test_nothing_of_the_environment_opens_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {"GRADIO_SHARE": "True", "GRADIO_ALLOWED_PATHS": "/", "OTHER": "1"})
    serving.prepare(tmp_path)
    assert "GRADIO_SHARE" not in os.environ
    assert "GRADIO_ALLOWED_PATHS" not in os.environ
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
