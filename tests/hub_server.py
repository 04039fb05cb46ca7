"""A hub on loopback that speaks the endpoints huggingface_hub calls, and behaves badly where it is told to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

__all__ = ["Fault", "HubServer", "use_hub"]

_PAGE = 3  # files a page of a listing, so that paging happens
_PART_BYTES = 4096  # of a large file that is sent in parts


@dataclass
class Fault:
    """What is to go wrong with the next `times` requests of a method whose path matches."""

    method: str
    path: str  # a regular expression
    kind: str  # a status code; "cut": no answer; "cut late": none, though it was done; "corrupt": stored wrongly
    times: int = 1


@dataclass
class Repo:
    """One repository: its commits, each a map of names to (is large, sha256 or content)."""

    visibility: str
    commits: dict[str, dict[str, tuple[bool, str]]] = field(default_factory=lambda: {_commit_name(0): {}})

    @property
    def head(self) -> str:
        return list(self.commits)[-1]


class HubServer:
    """Use as a context manager; `requests` counts them by method and kind, `ranges` has what was read of files."""

    def __init__(self, *, faults: list[Fault] | None = None, in_parts: bool = False) -> None:
        self.faults = faults or []
        self.in_parts = in_parts
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.requests: Counter[str] = Counter()
        self.tokens: set[str | None] = set()
        self.ranges: list[tuple[str, int, int, int]] = []  # name, start, stop, size of the file
        self.lock = threading.RLock()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def content(self, repo: str, name: str, *, revision: str = "main") -> bytes:
        """Return a file as it stands at the other end."""
        is_large, value = self.tree(repo, revision)[name]
        return self.blobs[value] if is_large else base64.b64decode(value)

    def names(self, repo: str) -> set[str]:
        return set(self.tree(repo, "main"))

    def tree(self, repo: str, revision: str) -> dict[str, tuple[bool, str]]:
        found = self.repos[repo]
        return found.commits[found.head if revision == "main" else revision]

    def take_fault(self, method: str, path: str) -> str | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault.kind
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, *details: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        hub = self.server_hub
        path = unquote(urlsplit(self.path).path)
        kind = hub.take_fault(method, path)
        if kind == "cut":  # in the middle of what is being sent
            self.rfile.read(min(100, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            return
        body = self._body()
        hub.tokens.add(self.headers.get("Authorization"))
        if kind is not None and kind.isdigit():
            self._send(int(kind), {"error": "not now"}, {"Retry-After": "0"})
            return
        with hub.lock:
            status, content, headers = self._respond(method, path, body, is_corrupt=kind == "corrupt")
        if kind == "cut late":
            self.close_connection = True
            return
        self._send(status, content, headers)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: object, headers: dict[str, str]) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _respond(self, method: str, path: str, body: bytes, *, is_corrupt: bool) -> tuple[int, Any, dict[str, str]]:
        hub = self.server_hub
        if path == "/api/repos/create":
            hub.requests["create"] += 1
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if match := re.fullmatch(r"/upload/(\w+)(?:/(\d+))?", path):
            hub.requests["upload"] += 1
            return self._upload(match[1], None if match[2] is None else int(match[2]), body, is_corrupt)
        if match := re.fullmatch(r"/complete/(\w+)", path):
            numbers = [part["partNumber"] for part in json.loads(body)["parts"]]
            hub.blobs[match[1]] = b"".join(hub.parts[match[1], number] for number in numbers)
            return 200, {}, {}
        repo = re.match(r"/(?:api/)?datasets/([^/]+/[^/.]+)(?:\.git)?(?:/(.*))?$", path)
        if repo is None or repo[1] not in hub.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        name, rest = repo[1], repo[2] or ""
        action, _, place = rest.partition("/")
        hub.requests[f"{method} {action or 'info'}"] += 1
        if action == "preupload":
            return 200, {"files": [self._upload_mode(name, file) for file in json.loads(body)["files"]]}, {}
        if action == "info" and place == "lfs/objects/batch":
            return 200, {"objects": [self._action(item) for item in json.loads(body)["objects"]]}, {}
        if action == "commit":
            return self._commit(name, [json.loads(line) for line in body.splitlines()])
        if action == "tree":
            return self._tree(name, place)
        if action == "paths-info":
            wanted = _fields(body)["paths"]
            tree = hub.tree(name, place)
            return 200, [self._file(path, *tree[path]) for path in wanted if path in tree], {}
        if action == "resolve":
            return self._resolve(name, place)
        if action in ("", "revision"):
            sha = hub.repos[name].head if place in ("", "main") else place
            return 200, {"id": name, "sha": sha, "siblings": [], "tags": []}, {}
        return 404, {"error": f"no such endpoint: {method} {path}"}, {}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.server_hub.repos:
            return (
                409,
                {"error": "You already created this repo", "url": f"{self.server_hub.endpoint}/datasets/{name}"},
                {},
            )
        self.server_hub.repos[name] = Repo(visibility=wanted.get("visibility", "public"))
        return 200, {"url": f"{self.server_hub.endpoint}/datasets/{name}", "name": name}, {}

    def _upload_mode(self, repo: str, file: dict[str, Any]) -> dict[str, Any]:
        is_large = file["path"].endswith((".parquet", ".png"))
        there = self.server_hub.tree(repo, "main").get(file["path"])
        oid = None if there is None else self._file(file["path"], *there)["oid"]
        if there is not None and there[0]:
            oid = there[1]
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _action(self, item: dict[str, Any]) -> dict[str, Any]:
        oid, size, hub = item["oid"], item["size"], self.server_hub
        if oid in hub.blobs:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{hub.endpoint}/upload/{oid}"}
        if hub.in_parts:
            num_parts = -(-size // _PART_BYTES)
            parts = {str(i): f"{hub.endpoint}/upload/{oid}/{i}" for i in range(1, num_parts + 1)}
            upload = {"href": f"{hub.endpoint}/complete/{oid}", "header": {"chunk_size": str(_PART_BYTES), **parts}}
        return {"oid": oid, "size": size, "actions": {"upload": upload}}

    def _upload(self, oid: str, part: int | None, body: bytes, is_corrupt: bool) -> tuple[int, Any, dict[str, str]]:
        content = body[:-1] + bytes([body[-1] ^ 1]) if is_corrupt else body
        if part is not None:
            self.server_hub.parts[oid, part] = content
        else:
            self.server_hub.blobs[oid] = content
        return 200, {}, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}

    def _commit(self, name: str, items: list[dict[str, Any]]) -> tuple[int, Any, dict[str, str]]:
        repo = self.server_hub.repos[name]
        tree = dict(repo.commits[repo.head])
        for item in items:
            value = item["value"]
            if item["key"] == "lfsFile":
                if value["oid"] not in self.server_hub.blobs:
                    return 400, {"error": f"{value['path']}: no such object"}, {}
                tree[value["path"]] = (True, value["oid"])
            elif item["key"] == "file":
                tree[value["path"]] = (False, value["content"])
            elif item["key"] == "deletedFile":
                del tree[value["path"]]
        commit = _commit_name(len(repo.commits))
        repo.commits[commit] = tree
        url = f"{self.server_hub.endpoint}/datasets/{name}/commit/{commit}"
        return 200, {"commitUrl": url, "commitOid": commit, "success": True}, {}

    def _tree(self, name: str, place: str) -> tuple[int, Any, dict[str, str]]:
        revision, _, folder = place.partition("/")
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        files = self.server_hub.tree(name, revision)
        items = [self._file(path, *file) for path, file in sorted(files.items()) if path.startswith(folder)]
        if query.get("recursive", "false").lower() == "false":
            depth = folder.count("/") + 2 if folder else 1
            folders = {"/".join(item["path"].split("/")[:depth]) for item in items if item["path"].count("/") >= depth}
            items = [item for item in items if item["path"].count("/") < depth]
            items += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        start = int(query.get("cursor", 0))
        headers = {}
        if start + _PAGE < len(items):
            base = f"{self.server_hub.endpoint}{urlsplit(self.path).path}"
            rest = "&".join(f"{key}={value}" for key, value in query.items() if key != "cursor")
            headers["Link"] = f'<{base}?{rest}&cursor={start + _PAGE}>; rel="next"'
        return 200, items[start : start + _PAGE], headers

    def _file(self, path: str, is_large: bool, value: str) -> dict[str, Any]:
        if is_large:  # hashed as it is stored: what was damaged on the way has another hash
            content = self.server_hub.blobs[value]
            digest = hashlib.sha256(content).hexdigest()
            lfs = {"oid": digest, "size": len(content), "pointerSize": 130}
            return {"type": "file", "path": path, "oid": _git_oid(digest.encode()), "size": len(content), "lfs": lfs}
        content = base64.b64decode(value)
        return {"type": "file", "path": path, "oid": _git_oid(content), "size": len(content)}

    def _resolve(self, name: str, place: str) -> tuple[int, Any, dict[str, str]]:
        hub = self.server_hub
        revision, _, path = place.partition("/")
        if path not in hub.tree(name, revision):
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        content = hub.content(name, path, revision=revision)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": hub.repos[name].head}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(match[1]), min(int(match[2]) + 1 if match[2] else len(content), len(content))
            hub.ranges.append((path, start, stop, len(content)))
            return 206, content[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        hub.ranges.append((path, 0, len(content), len(content)))
        return 200, content, headers


def _fields(body: bytes) -> dict[str, list[str]]:
    """Return the fields of a body, JSON or of a form."""
    if body.startswith(b"{"):
        values: dict[str, list[str]] = json.loads(body)
        return values
    return parse_qs(body.decode())


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit_name(number: int) -> str:
    return hashlib.sha1(f"commit {number}".encode()).hexdigest()


def use_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub take a server for the hub; it reads these names when it is imported."""
    template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its servers are of another kind
