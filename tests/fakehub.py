"""A hub that lies in folders: what huggingface_hub asks of the real one, answered from them, and a cache of its own."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Collection
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from urllib.parse import unquote

import huggingface_hub
import pytest
from huggingface_hub import constants, errors


class FakeHub:
    """Repositories by id; ``asked`` is every question that was put to it."""

    def __init__(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        self.cache, self.folders, self.asked = cache, dict[str, Path](), list[str]()
        self.gated, self.down, self.full = set[str](), False, False
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setattr(huggingface_hub.HfApi, "model_info", lambda api, *given, **options: self.info(*given, **options))
        patch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        patch.setattr(huggingface_hub, "hf_hub_download", self.file)

    def info(self, source: str, *, revision: str | None, files_metadata: bool, timeout: float) -> Any:
        """The listing; of a gated repository it is public."""
        assert files_metadata and timeout > 0
        folder = self._folder(source, revision, "list")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        named = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in named])

    def snapshot(self, source: str, *, revision: str | None = None, allow_patterns: list[str]) -> str:
        """The files that match, in the layout of the real cache."""
        folder = self._folder(source, revision, "get")
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        for name in files:
            if any(fnmatch(name.as_posix(), pattern) for pattern in allow_patterns):
                self._keep(source, revision, name)
        return str(self.place(source, revision))

    def file(self, source: str, name: str, *, revision: str | None = None) -> str:
        """One file."""
        assert (self._folder(source, revision, "get") / name).is_file()
        self._keep(source, revision, Path(name))
        return str(self.place(source, revision) / name)

    def place(self, source: str, revision: str | None = None) -> Path:
        """The snapshot."""
        return self._repository(source) / "snapshots" / f"commit-of-{revision or 'main'}"

    def kept(self, source: str) -> set[str]:
        """What is in the cache of a repository."""
        return {path.relative_to(self.place(source)).as_posix() for path in self.place(source).rglob("*.*")}

    def _repository(self, source: str) -> Path:
        return self.cache / f"models--{source.replace('/', '--')}"

    def _keep(self, source: str, revision: str | None, name: Path) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        target, ref = self.place(source, revision) / name, self._repository(source) / "refs" / (revision or "main")
        for path in (target, ref):
            path.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(self.place(source, revision).name)
        shutil.copyfile(self.folders[source] / name, target)

    def _folder(self, source: str, revision: str | None, what: str) -> Path:
        self.asked.append(f"{what} {source}")
        if self.down:
            raise errors.HTTPError("Name or service not known\nsecond line")
        if source not in self.folders:
            raise errors.RepositoryNotFoundError("404\nlong story", response=_response(404))
        if revision not in (None, "main", "v2"):
            raise errors.RevisionNotFoundError("404", response=_response(404))
        if source in self.gated and what == "get":
            raise errors.GatedRepoError("403", response=_response(403))
        return self.folders[source]


class HubServer(ThreadingHTTPServer):
    """A hub that speaks the real one's language on this machine, for the real library; ``asked`` is every request."""

    daemon_threads = True

    def __init__(self, folders: dict[str, Path], gated: Collection[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folders, self.gated, self.asked = folders, gated, list[str]()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make huggingface_hub ask it."""
        return {"HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}", "HF_HUB_DISABLE_XET": "1"}


class _Answer(BaseHTTPRequestHandler):
    """Listings under /api/models, files under /<id>/resolve; the errors in the header that the library reads."""

    server: HubServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append(f"{self.command} {path}")
        found = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+))?(?:/(.*))?", path)
        assert found, path
        source, what, name = found[1], found[2], found[4]
        if source not in self.server.folders:
            return self.reply(401, {"X-Error-Code": "RepoNotFound"}, b"{}")
        folder = self.server.folders[source]
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if what == "resolve":
            if source in self.server.gated:
                return self.reply(403, {"X-Error-Code": "GatedRepo"}, b"{}")
            data = files[name].read_bytes()
            sha = hashlib.sha256(data).hexdigest()
            return self.reply(200, {"ETag": f'"{sha}"', "X-Repo-Commit": "c" * 40}, data)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        if what == "tree":
            listed: Any = [
                {"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()
            ]
        else:
            siblings = [{"rfilename": name, "size": size, "blobId": "0" * 40} for name, size in sizes.items()]
            listed = {"id": source, "sha": "c" * 40, "siblings": siblings, "tags": [], "private": False}
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(listed).encode())

    def reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the test's terminal."""


def forbid_network(patch: pytest.MonkeyPatch) -> list[str]:
    """Make every way to another machine fail, and return the list that grows with each try, caught or not."""
    tried: list[str] = []

    def refuse(*given: Any, **options: Any) -> NoReturn:
        tried.append(str(given))
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        patch.setattr(socket, name, refuse)
    return tried


def _response(status: int) -> Any:
    """What the errors of huggingface_hub want to know of an answer; the class comes from the client that it uses."""
    answer = errors.Response(status)
    answer.request = type("Request", (), {"url": "https://hub", "method": "GET", "headers": {}})()
    return answer
