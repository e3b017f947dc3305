"""A small Hub on this machine, for the real `huggingface_hub` behind HF_ENDPOINT.

    with HubServer() as hub:
        environment["HF_ENDPOINT"], environment["HF_TOKEN"] = hub.endpoint, hub.token

It knows repositories with commits, tags and visibility, tokens, and how to fail: `HubServer.failing`. All files are
"regular" ones (no large-file storage), and all lie in memory. Jobs are kept and never run: `HubServer.jobs`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import yaml

#: Fails instead of answering: closes the connection at once, or after half of what is sent.
DROP, DROP_HALFWAY = "drop", "drop halfway"


@dataclass
class Repository:
    """Files by path for every commit, the newest last."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]]
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a branch, a tag or an id names."""
        if revision == "main":
            return self.commits[-1]
        wanted = self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == wanted), None)

    def add(self, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits.append((sha, files))
        return sha


class HubServer:
    """The server, its repositories, and a log of what was asked."""

    token = "hf_sentinel_token_that_nobody_may_see"

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        self.jobs: list[dict[str, Any]] = []
        self._failure: tuple[re.Pattern[str], int | str] | None = None
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """Variables of a process that has this Hub and, in ``home``, caches of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home / "home"),
            "HF_LEROBOT_HOME": str(home / "lerobot"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def files(self, repo_id: str, repo_type: str = "model", revision: str = "main") -> dict[str, bytes]:
        commit = self.repositories[repo_type, repo_id].at(revision)
        assert commit is not None, f"{repo_id} has no revision {revision}"
        return commit[1]

    def everything(self) -> bytes:
        """All that was ever published, names included."""
        contents = [
            path.encode() + b"\n" + content
            for repository in self.repositories.values()
            for _, files in repository.commits
            for path, content in files.items()
        ]
        return b"\n".join(contents)

    @contextlib.contextmanager
    def failing(self, request: str, how: int | str) -> Iterator[None]:
        """Answer requests whose ``METHOD /path`` matches ``request`` with a status, `DROP` or `DROP_HALFWAY`."""
        self._failure = re.compile(request), how
        try:
            yield
        finally:
            self._failure = None

    def failure(self, request: str) -> int | str | None:
        if self._failure is None or not self._failure[0].search(request):
            return None
        return self._failure[1]


class _RefusalError(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, *args: Any) -> None:
        """Nothing: the tests read `HubServer.requests`."""

    def do_GET(self) -> None:  # noqa: N802
        self._answer()

    do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.server_hub.requests.append(request)
        length = int(self.headers.get("Content-Length") or 0)
        how = self.server_hub.failure(request)
        if isinstance(how, str):
            if how == DROP_HALFWAY:
                self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        try:
            if how is not None:
                raise _RefusalError(how, f"made to answer {how}")
            with self.server_hub.lock:
                self._route(path, body)
        except _RefusalError as refusal:
            headers = {"X-Error-Message": str(refusal)}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self._send(json.dumps({"error": str(refusal)}).encode(), refusal.status, headers)

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        sent = {"Content-Length": str(len(content)), "Content-Type": "application/json", **(headers or {})}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, answer: Any) -> None:
        self._send(json.dumps(answer).encode())

    # --- who may what -------------------------------------------------------------------------------------

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server_hub.token}"

    def _repository(self, kind: str, repo_id: str) -> Repository:
        repository = self.server_hub.repositories.get((kind, repo_id))
        if repository is None or (repository.private and not self._known):
            raise _RefusalError(404 if self._known else 401, "Repository not found", "RepoNotFound")
        return repository

    def _commit(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = repository.at(revision)
        if commit is None:
            raise _RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # --- what there is ------------------------------------------------------------------------------------

    def _route(self, path: str, body: bytes) -> None:
        if self.command in ("POST", "DELETE") and not self._known:
            raise _RefusalError(401, "Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/whoami-v2":
            return self._who()
        if path == "/api/jobs/somebody":
            return self._start_job(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve("dataset" if match[1] else "model", *match.groups()[1:])
        match = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(\w+)(?:/([^/]+))?)?", path)
        if match is None:
            raise _RefusalError(404, f"this little Hub does not know {self.command} {path}")
        kind, repo_id, what, revision = match.groups()
        repository = self._repository(kind, repo_id)
        answer = {
            ("GET", None): self._info,
            ("GET", "revision"): self._info,
            ("GET", "tree"): self._tree,
            ("GET", "refs"): self._refs,
            ("POST", "preupload"): self._preupload,
            ("POST", "commit"): self._add_commit,
            ("POST", "tag"): self._tag,
            ("DELETE", "tag"): self._untag,
        }[self.command, what]
        return answer(repository, repo_id, revision or "main", body)

    def _who(self) -> None:
        if not self._known:
            raise _RefusalError(401, "Invalid username or password.")
        self._json({"type": "user", "id": "1", "name": "somebody", "orgs": []})

    def _start_job(self, wanted: dict[str, Any]) -> None:
        self.server_hub.jobs.append(wanted)
        owner = {"id": "1", "name": "somebody", "type": "user"}
        job = {"id": f"job{len(self.server_hub.jobs)}", "owner": owner, "status": {"stage": "SCHEDULING"}}
        self._json(job)

    def _create(self, wanted: dict[str, Any]) -> None:
        repo_id = f"{wanted.get('organization') or 'somebody'}/{wanted['name']}"
        kind = wanted.get("type", "model")
        url = f"{self.server_hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if (kind, repo_id) in self.server_hub.repositories:
            answer = {"error": "You already created this repo", "url": url}
            return self._send(json.dumps(answer).encode(), 409)
        private = wanted.get("visibility") == "private"
        self.server_hub.repositories[kind, repo_id] = Repository(private, [("0" * 40, {})])
        self._json({"url": url, "id": repo_id})

    def _validate(self, content: str) -> None:
        """As the Hub: the metadata must be a YAML mapping, and what names repositories must look like it."""
        match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        metadata = yaml.safe_load(match[1]) if match else None
        errors = [] if isinstance(metadata, dict) else ["no metadata"]
        for key in () if errors else ("base_model", "datasets"):
            names = metadata.get(key) or []
            for name in [names] if isinstance(names, str) else names:
                if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
                    errors.append(f'"{key}" with value "{name}" is not valid')
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        self._send(json.dumps(answer).encode(), 400 if errors else 200)

    def _resolve(self, kind: str, repo_id: str, revision: str, file: str) -> None:
        sha, files = self._commit(self._repository(kind, repo_id), revision)
        if file not in files:
            raise _RefusalError(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{_git_oid(files[file])}"', "X-Repo-Commit": sha}
        self._send(files[file], headers={**headers, "Content-Type": "application/octet-stream"})

    def _info(self, repository: Repository, repo_id: str, revision: str, _: bytes) -> None:
        sha, files = self._commit(repository, revision)
        siblings = [{"rfilename": name} for name in files]
        self._json(
            {"id": repo_id, "sha": sha, "private": repository.private, "siblings": siblings, "tags": []}
        )

    def _tree(self, repository: Repository, _: str, revision: str, __: bytes) -> None:
        files = self._commit(repository, revision)[1]
        self._json(
            [
                {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
                for path, content in files.items()
            ]
        )

    def _refs(self, repository: Repository, _: str, __: str, ___: bytes) -> None:
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha}
            for name, sha in repository.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1][0]}
        self._json({"tags": tags, "branches": [main], "converts": []})

    def _preupload(self, repository: Repository, _: str, revision: str, body: bytes) -> None:
        present = self._commit(repository, revision)[1]
        self._json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "regular",
                        "shouldIgnore": False,
                        "oid": _git_oid(present[file["path"]]) if file["path"] in present else None,
                    }
                    for file in json.loads(body)["files"]
                ]
            }
        )

    def _add_commit(self, repository: Repository, repo_id: str, revision: str, body: bytes) -> None:
        files = dict(self._commit(repository, revision)[1])
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "deletedFile":
                files.pop(item["value"]["path"])
        sha = repository.add(files)
        self._json({"commitUrl": f"{self.server_hub.endpoint}/{repo_id}/commit/{sha}", "commitOid": sha})

    def _tag(self, repository: Repository, _: str, revision: str, body: bytes) -> None:
        tag = json.loads(body)["tag"]
        if tag in repository.tags:
            raise _RefusalError(409, f"Tag {tag} exists already")
        repository.tags[tag] = self._commit(repository, revision)[0]
        self._json({})

    def _untag(self, repository: Repository, _: str, tag: str, __: bytes) -> None:
        if repository.tags.pop(tag, None) is None:
            raise _RefusalError(404, f"Invalid rev id: {tag}", "RevisionNotFound")
        self._json({})


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
