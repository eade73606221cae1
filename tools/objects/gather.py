"""Gets the files that models need from where they are published, and checks them.

The folder has one sub-folder for each repository, as 'owner/name', with the files at their paths in it. Of GitHub only
the files of the table are fetched, at the table's commit; of Debian the package, by apt-get.
"""

from __future__ import annotations

import functools
import hashlib
import io
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from table import Repository, Source

__all__ = ["gather", "lacking"]


def gather(sources: Sequence[Source], place: Path) -> None:
    """Fetch what is not in ``place`` yet for these models.

    Raises:
        RuntimeError: a program failed; its own words are in the message.
        OSError: git, apt-get or dpkg-deb is not installed.
    """
    for repository in {source.repository.name: source.repository for source in sources}.values():
        paths = {source.path for source in sources if source.repository is repository} | set(repository.files)
        absent = sorted(path for path in paths if not (place / repository.name / path).is_file())
        if absent:
            (_from_debian if repository.package else _from_github)(repository, absent, place / repository.name)


def lacking(source: Source, place: Path) -> str:
    """Why a model cannot be built from the files in ``place``; empty where it can.

    It needs its own file, and those of the table beside it and below.
    """
    beside, files = PurePosixPath(source.path).parent, source.repository.files
    further = {path: files[path] for path in files if beside in PurePosixPath(path).parents}
    for path, sha256 in {source.path: source.sha256, **further}.items():
        file = place / source.repository.name / path
        if not file.is_file():
            return f"{path} is not there"
        if _checksum(file) != sha256:
            return f"{path} is not that of the table"
    return ""


@functools.cache
def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _from_github(repository: Repository, paths: Sequence[str], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(place)]
    if not (place / ".git").is_dir():
        _run([*git, "init", "-q"])
        _run([*git, "remote", "add", "origin", f"https://github.com/{repository.name}"])
    _run([*git, "fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", repository.commit])
    chosen = ["checkout", "-q", repository.commit, "--pathspec-from-file=-", "--pathspec-file-nul"]
    _run([*git, "--literal-pathspecs", *chosen], "\0".join(paths).encode())


def _from_debian(repository: Repository, paths: Sequence[str], place: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # apt downloads as a user of its own
        _run(["apt-get", "download", "-q", repository.package], folder=folder)
        (package,) = Path(folder).glob("*.deb")
        content = io.BytesIO(_run(["dpkg-deb", "--fsys-tarfile", str(package)]))
    with tarfile.open(fileobj=content) as files:
        archive = files.extractfile(f"./{repository.archive}")
        assert archive is not None
        with zipfile.ZipFile(io.BytesIO(archive.read())) as packed:
            for path in paths:
                packed.extract(path, place)


def _run(words: Sequence[str], text: bytes = b"", folder: str | None = None) -> bytes:
    done = subprocess.run(words, input=text, capture_output=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
