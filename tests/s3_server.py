"""A real S3 server on loopback, and a proxy before it that breaks requests in the ways that networks and stores do."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pytest

__all__ = ["FAULTS", "KEY", "SECRET", "S3Proxy", "running_proxy", "s3_proxy"]

KEY, SECRET = "AKIAPLANTEDKEY000001", "planted/secret+key/0123456789abcdefghijkl"
# lost: the server does what is asked, and the answer never comes.
FAULTS = ("500", "503", "reset", "half", "lost", "late")
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_STATUS = {"500": (500, _INTERNAL), "503": (503, _SLOW_DOWN), "403": (403, _DENIED)}


@dataclass(slots=True)
class S3Proxy:
    """Passes requests on, one at a time: what the server does is then in one step, as a store's is."""

    server_port: int
    fault: Callable[[str, str], str | None] = lambda method, path: None
    honours_conditions: bool = True
    requests: list[str] = field(default_factory=list)  # "PUT /bucket/labels/manifest.json"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        self.fault = lambda method, path: None
        self.honours_conditions = True
        self.requests.clear()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy

    def log_message(self, *arguments: Any) -> None:
        pass

    def _pass_on(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with proxy.lock:
            proxy.requests.append(f"{self.command} {self.path}")
            fault = proxy.fault(self.command, self.path)
            if fault in _STATUS:
                status, answer = _STATUS[fault]
                self._answer(status, [("Content-Type", "application/xml")], answer)
                return
            if fault == "reset":
                self._reset()
                return
            if fault == "late":
                time.sleep(0.05)
            headers = dict(self.headers)
            if not proxy.honours_conditions:
                headers.pop("If-None-Match", None)
            connection = http.client.HTTPConnection("127.0.0.1", proxy.server_port, timeout=30)
            connection.request(self.command, self.path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
        if fault == "lost":
            self._reset()
            return
        self._answer(response.status, response.getheaders(), content, is_half=fault == "half")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, is_half: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(content)))
        if status != 204:
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if is_half else content)
        if is_half:
            self._reset()

    def _reset(self) -> None:
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


class _ProxyServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report."""


@pytest.fixture(scope="session")
def running_proxy() -> Iterator[tuple[S3Proxy, str]]:
    from moto.server import ThreadedMotoServer  # takes seconds

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = S3Proxy(server_port=server.get_host_and_port()[1])
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    front = _ProxyServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    yield proxy, f"http://127.0.0.1:{front.server_port}"
    front.shutdown()
    front.server_close()
    thread.join()
    server.stop()


@pytest.fixture
def s3_proxy(running_proxy: tuple[S3Proxy, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> S3Proxy:
    """The proxy, with an empty bucket `bucket` behind it, to which s3:// leads."""
    proxy, url = running_proxy
    proxy.forget()
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr("labelstore.object_store._FIRST_PAUSE_SECONDS", 0.001)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.server_port)
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    connection.close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # they remember the address
    fsspec.filesystem("s3").mkdir("bucket")
    proxy.requests.clear()
    return proxy
