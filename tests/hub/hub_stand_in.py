"""A stand-in of the Hugging Face hub on 127.0.0.1: repositories as lists of commits, and the answers that its client
asks for.

Small files are regular ones, ``*.safetensors`` go through LFS and are served through a redirect, as the hub does. It
can be made to lie: ``listed`` sizes, digests and names, and ``served`` bytes.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
PAGE = 3
_TYPES = {"models": "model", "datasets": "dataset"}
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|preupload|commit)/([^/]+))?")
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LFS = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(name: str) -> bool:
    return name.endswith(".safetensors")


@dataclass
class Repository:
    """Commits from old to new, each (name -> bytes); ``refs``: branches and tags."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.refs["main"] = digest
        return digest

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


class Hub:
    """The repositories by (kind, owner/name), what was asked ("GET /api/…"), and the lies."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.messages: list[str] = []
        self.listed: dict[str, dict[str, Any]] = {}
        self.served: dict[str, bytes] = {}
        self.failing: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        # Large files come from another host, which must not see the token.
        self.elsewhere = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repo: str, files: dict[str, bytes], kind: str = "model", private: bool = False) -> Repository:
        """A repository that somebody else has made."""
        made = self.repositories.setdefault((kind, repo), Repository(private))
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"} | files)
        return made

    def downloads(self) -> list[str]:
        """Files whose bytes were asked for."""
        return [path for method, path in map(str.split, self.asked) if method == "GET" and _is_content(path)]


def _is_content(path: str) -> bool:
    return "/resolve/" in path or path.startswith("/cdn/")


class Refusal(Exception):
    """An answer that is an error: status, the hub's code for it."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        self.hub.asked.append(f"{self.command} {path}")
        try:
            if self.hub.failing:
                raise Refusal(self.hub.failing)
            self._route(path, body)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(refusal.status, b"{}", {name: text for name, text in headers.items() if text})

    def _route(self, path: str, body: bytes) -> None:
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif found := _RESOLVE.fullmatch(path):
            kind = "dataset" if found[1] else "model"
            self._resolve(self._repository(kind, found[2]), unquote(found[3]), unquote(found[4]))
        elif path.startswith("/cdn/"):
            assert self._token() is None
            self._send(200, self.hub.objects[path.removeprefix("/cdn/")])
        elif path.startswith("/upload/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/upload/")
            self.hub.objects[path.removeprefix("/upload/")] = body
            self._send(200)
        elif found := _LFS.fullmatch(path):
            self._may_write()
            self._send_json({"objects": [self._batch(each) for each in json.loads(body)["objects"]]})
        elif found := _API.fullmatch(path):
            self._api(_TYPES[found[1]], found[2], found[3], unquote(found[4] or "main"), body)
        else:
            raise Refusal(404)

    def _api(self, kind: str, repo: str, what: str | None, revision: str, body: bytes) -> None:
        found = self._repository(kind, repo)
        commit = found.find(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what in (None, "revision"):
            self._send_json({"id": repo, "sha": commit, "private": found.private, "siblings": [], "tags": []})
        elif what == "tree":
            self._tree(found.commits[commit])
        elif what == "preupload":
            self._may_write()
            asked = [each["path"] for each in json.loads(body)["files"]]
            there = found.commits[commit]
            modes = [
                {
                    "path": name,
                    "uploadMode": "lfs" if is_lfs(name) else "regular",
                    "shouldIgnore": False,
                    "oid": self._oid(name, there[name]) if name in there else None,
                }
                for name in asked
            ]
            self._send_json({"files": modes})
        elif what == "commit":
            self._may_write()
            self._commit(found, kind, repo, commit, [json.loads(line) for line in body.splitlines()])

    def _tree(self, files: dict[str, bytes]) -> None:
        entries = [self._entry(name, data) for name, data in sorted(files.items())]
        folders = sorted({name.rsplit("/", 1)[0] for name in files if "/" in name})
        entries += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in folders]
        first = int(dict(part.split("=") for part in urlsplit(self.path).query.split("&")).get("cursor", 0))
        headers = {}
        if first + PAGE < len(entries):
            url = f"{self.hub.endpoint}{urlsplit(self.path).path}?recursive=True&cursor={first + PAGE}"
            headers["Link"] = f'<{url}>; rel="next"'
        self._send_json(entries[first : first + PAGE], headers)

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "oid": git_sha1(data), "size": len(data)}
        if is_lfs(name):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry | self.hub.listed.get(name, {})

    @staticmethod
    def _oid(name: str, data: bytes) -> str:
        return hashlib.sha256(data).hexdigest() if is_lfs(name) else git_sha1(data)

    def _batch(self, each: dict[str, Any]) -> dict[str, Any]:
        if each["oid"] in self.hub.objects:
            return each
        return each | {"actions": {"upload": {"href": f"{self.hub.endpoint}/upload/{each['oid']}"}}}

    def _create(self, asked: dict[str, Any]) -> None:
        self._may_write()
        kind, repo = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "me":
            raise Refusal(403, message="You don't have the rights to create a repository under this namespace")
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        if (kind, repo) in self.hub.repositories:
            self._send_json({"error": "You already created this repo", "url": url}, status=409)
            return
        self.hub.add(repo, {}, kind, private=asked.get("visibility") == "private" or asked.get("private") is True)
        self._send_json({"url": url})

    def _commit(self, repository: Repository, kind: str, repo: str, parent: str, lines: list[dict[str, Any]]) -> None:
        header, files = lines[0]["value"], dict(repository.commits[parent])
        if header.get("parentCommit", parent) != parent:
            raise Refusal(412, message="The expected parent commit doesn't match")
        for line in lines[1:]:
            what, value = line["key"], line["value"]
            if what == "deletedFile":
                del files[value["path"]]
            elif what == "deletedFolder":
                files = {name: data for name, data in files.items() if not name.startswith(value["path"])}
            else:
                data = base64.b64decode(value["content"]) if what == "file" else self.hub.objects[value["oid"]]
                files[value["path"]] = data
        commit = repository.commit(files)
        self.hub.messages.append(header["summary"])
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}/commit/{commit}"
        self._send_json({"commitUrl": url, "commitOid": commit})

    def _resolve(self, repository: Repository, revision: str, name: str) -> None:
        commit = repository.find(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound")
        if name not in repository.commits[commit]:
            raise Refusal(404, "EntryNotFound")
        right = repository.commits[commit][name]
        data = self.hub.served.get(name, right)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{self._oid(name, right)}"'}
        if is_lfs(name):
            self.hub.objects[self._oid(name, right)] = data
            location = f"{self.hub.elsewhere}/cdn/{self._oid(name, right)}"
            linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data)), "Location": location}
            self._send(302, b"", headers | linked)
        else:
            self._send(200, data, headers)

    def _repository(self, kind: str, repo: str) -> Repository:
        found = self.hub.repositories.get((kind, repo))
        token = self._token()
        if token is None and (found is None or found.private):
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        if found is None:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return found

    def _token(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in (WRITER, READER):
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return given or None

    def _may_write(self) -> None:
        if self._token() is None:
            raise Refusal(401, message="Invalid username or password.")
        if self._token() != WRITER:
            raise Refusal(403, message="Your token has the role read")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send_json(self, value: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
