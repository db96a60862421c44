"""A small Hugging Face Hub of one data set, on loopback: the addresses that its client library asks, and no others.

Source: the Hub API endpoints (https://huggingface.co/docs/hub/api).
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = "somebody/pictures"
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder as the data set NAME; `asked` is every request so far."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.folder = folder
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self) -> list[dict[str, Any]]:
        result = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": str(path.relative_to(self.folder)),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in result
        ]


class Answers(BaseHTTPRequestHandler):
    """The answers of a Hub, without its large file storage."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def answer(self, body: str = "") -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        about, tree, infos = (f"/api/datasets/{NAME}{end}" for end in ("", "/tree/", "/paths-info/"))
        files = f"/datasets/{NAME}/resolve/"
        if path.startswith(files):
            self.send_file(path.removeprefix(files).partition("/")[2])
        elif path.startswith(infos):
            self.send_json([each for each in self.server.files() if each["path"] in named(body)])
        elif path.startswith(tree):
            self.send_json(listed(self.server.files(), path.removeprefix(tree).partition("/")[2], self.path))
        elif path == about or path.startswith(f"{about}/revision/"):
            names = [{"rfilename": each["path"]} for each in self.server.files()]
            self.send_json({"id": NAME, "sha": COMMIT, "siblings": names, "private": False, "tags": [], "downloads": 0})
        else:
            self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def send_file(self, name: str) -> None:
        path = self.server.folder / name
        if not path.is_file():
            self.send_json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = content[int(start or 0) : int(end) + 1 if end else None]
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
        self.send(part, 206 if "Range" in self.headers else 200, headers)

    def send_json(self, what: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(what).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_said: Any) -> None:
        """Say nothing."""


def named(body: str) -> list[str]:
    """The paths that a question names, as a form or as JSON."""
    paths: list[str] = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
    return paths


def listed(files: list[dict[str, Any]], folder: str, query: str) -> list[dict[str, Any]]:
    """What lies in a folder: files and folders, or all files below it."""
    inside = [each for each in files if Path(folder) in Path(each["path"]).parents]
    if "recursive=true" in query.lower():
        return inside
    direct = [each for each in inside if Path(each["path"]).parent == Path(folder)]
    deeper = {
        str(Path(folder, Path(each["path"]).relative_to(folder).parts[0])) for each in inside if each not in direct
    }
    return [*direct, *({"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(deeper))]


@contextmanager
def hub_of(folder: Path) -> Iterator[Hub]:
    """A Hub with this folder's files, as long as it is needed."""
    with Hub(folder) as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
