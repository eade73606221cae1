"""Models of the Hugging Face hub: a snapshot in the cache with what a family needs, downloaded once.

A folder is used as it is, and so is a complete snapshot in the cache: then the network is not asked. What is downloaded
is chosen from the hub's listing (layout.py), for a model's repository often holds ten times what a prior needs. The hub
learns what is asked for and the versions of Python and of its library; all other telemetry is switched off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsdistill.core.errors import ModelNotFound, first_line
from gsdistill.models.layout import CARDS, chosen, lack, listing

__all__ = [
    "Need",
    "cached_file",
    "cached_snapshot",
    "fetch",
    "fetch_file",
    "fetch_index",
    "go_offline",
    "is_offline",
    "list_remote_files",
]

PATIENCE = 10.0  # seconds for an answer of the hub


@dataclass(frozen=True)
class Need:
    """Which files of a model are needed."""

    parts: Callable[[Path], Sequence[str]]  # read from a folder that holds model_index.json, at least
    half: bool = False  # the fp16 files where there are any
    weights: bool = True  # False: configs and tokenizers alone
    configs: Sequence[str] = ()  # parts whose config is needed in any case

    def lack(self, place: str | Path, files: Mapping[str, int], folder: Path) -> str | None:
        """One sentence on what is missing among ``files`` of ``place``, or None; ``folder`` names the parts."""
        missing = lack(place, files, self.parts(folder), self.weights)
        return missing or lack(place, files, self.configs, weights=False)

    def chosen(self, files: Mapping[str, int], folder: Path) -> list[str]:
        """The names of those ``files`` that are needed."""
        named = chosen(files, self.parts(folder), self.half, self.weights)
        return [*named, *(chosen(files, self.configs, self.half, weights=False).keys() - named.keys())]


class _Refused(ModelNotFound):
    """A source that cannot be used, with the reason in a few words; a ``final`` reason holds for all other sources."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def go_offline() -> None:
    """Keep this process, and those that it starts, from asking the hub for anything."""
    _switch_on("HF_HUB_OFFLINE")


def _switch_on(name: str) -> None:
    """Set a variable of huggingface_hub, whether it is imported already or will be."""
    os.environ[name] = "1"
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants:
        setattr(constants, name, True)


_switch_on("HF_HUB_DISABLE_TELEMETRY")  # before diffusers and transformers read it


def is_offline() -> bool:
    """Whether the hub may not be asked: after :func:`go_offline`, or by HF_HUB_OFFLINE=1 in the environment."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def fetch(name: str, sources: Sequence[str], need: Need, revision: str | None = None, advice: str = "") -> Path:
    """Return the folder of the model ``name``, from the first of its sources (folders or hub ids) that can be used.

    Folders and complete snapshots in the cache are tried first, then downloads. If all fail, ``advice`` ends the
    message.

    Raises:
        ModelNotFound: what was tried, and why each of them cannot be had.
    """
    for source in sources:
        if Path(source).is_dir():
            return Path(source)
        if snapshot := cached_snapshot(source, need, revision):
            return snapshot
    return _first(name, sources, lambda source: _download(source, need, revision), advice)


def fetch_file(name: str, sources: Sequence[str], file: str, revision: str | None = None, advice: str = "") -> Path:
    """Return one file of the model ``name``, from the first of its hub ids that has it; as :func:`fetch`."""
    for source in sources:
        if path := cached_file(source, file, revision):
            return path
    return _first(name, sources, lambda source: _download_file(source, file, revision), advice)


def cached_snapshot(source: str, need: Need, revision: str | None = None) -> Path | None:
    """The snapshot of a hub id in the cache, if it has everything that is needed; the network is not asked."""
    folder = _snapshot(source, revision)
    return folder if folder and not need.lack(source, listing(folder), folder) else None


def cached_file(source: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a hub id, if the cache has it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if _is_homeless():
        return None
    try:
        path = try_to_load_from_cache(source, file, revision=revision)
    except HFValidationError:  # the hub cannot have such a name; a download would say so
        return None
    return Path(path) if isinstance(path, str) else None


def list_remote_files(source: str, revision: str | None = None) -> dict[str, int]:
    """Ask the hub for the name and the size in bytes of every file of a model.

    Raises:
        ModelNotFound: the hub cannot be asked; the message is the reason, in a few words.
    """
    from huggingface_hub import HfApi

    _ask(source, revision)
    with _in_few_words(source, revision):
        model = HfApi().model_info(source, revision=revision, files_metadata=True, timeout=PATIENCE)
    return {file.rfilename: file.size or 0 for file in model.siblings or ()}


def fetch_index(source: str, revision: str | None = None) -> Path:
    """Return the folder in the cache that holds model_index.json (a few hundred bytes), downloaded if necessary.

    Raises:
        ModelNotFound: as :func:`list_remote_files`.
    """
    return _snapshot(source, revision) or _download_cards(source, revision)


def _first(name: str, sources: Sequence[str], get: Callable[[str], Path], advice: str) -> Path:
    reasons: dict[str, str] = {}
    for source in sources:
        try:
            return get(source)
        except _Refused as refused:
            reasons[source] = str(refused)
            if refused.final:
                reasons = dict.fromkeys(sources, str(refused))
                break
    raise ModelNotFound(f"cannot get {_summary(name, reasons)}{advice}")


def _summary(name: str, reasons: Mapping[str, str]) -> str:
    sources, different = list(reasons), set(reasons.values())
    if len(different) == 1:
        tried = "" if sources == [name] else f" (tried {', '.join(sources)})"
        return f"{name}{tried}: {different.pop()}"
    return f"{name}: " + "; ".join(f"{source}: {reason}" for source, reason in reasons.items())


def _download(source: str, need: Need, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    _ask(source, revision, need)
    files = list_remote_files(source, revision)
    index = _download_cards(source, revision)
    if lacking := need.lack(source, files, index):
        raise _Refused(lacking)
    with _in_few_words(source, revision):
        return Path(snapshot_download(source, revision=revision, allow_patterns=need.chosen(files, index)))


def _download_cards(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    _ask(source, revision)
    with _in_few_words(source, revision):
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(CARDS)))


def _download_file(source: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    if file not in list_remote_files(source, revision):
        raise _Refused(f"it has no {file}")
    with _in_few_words(source, revision):
        return Path(hf_hub_download(source, file, revision=revision))


def _snapshot(source: str, revision: str | None) -> Path | None:
    """The folder of a hub id in the cache, whatever it holds."""
    for sign in ("model_index.json", "unet/config.json", "config.json"):
        if file := cached_file(source, sign, revision):
            return file.parents[sign.count("/")]
    return None


def _is_homeless() -> bool:
    """Whether there is no home folder: then the cache would be a folder called ``~`` in the working directory."""
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE.startswith("~")


def _ask(source: str, revision: str | None, need: Need | None = None) -> None:
    """Refuse to ask the hub while offline, or if there is no folder to keep the answer in."""
    if _is_homeless():
        raise _Refused("there is no home folder to keep models in; set HF_HOME to a folder", final=True)
    if is_offline():
        from huggingface_hub import constants

        folder = _snapshot(source, revision) if need else None
        missing = need.lack(folder, listing(folder), folder) if folder and need else None
        where = f"not in the cache {constants.HF_HUB_CACHE}" if missing is None else f"in the cache, but {missing}"
        raise _Refused(f"it is {where}, and HF_HUB_OFFLINE or --offline forbids to ask the hub")


@contextmanager
def _in_few_words(source: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into a reason of a few words."""
    from huggingface_hub import constants, errors

    address = f"{constants.ENDPOINT}/{source}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise _Refused(f"it is gated: accept its licence at {address}, then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise _Refused("there is no such model on the hub, or it is private (`hf auth login`)") from error
    except errors.RevisionNotFoundError as error:
        raise _Refused(f"it has no revision '{revision or 'main'}'") from error
    except errors.HfHubHTTPError as error:
        raise _Refused(f"the hub refuses: {first_line(error)}") from error
    except errors.HFValidationError as error:
        raise _Refused(f"the hub knows no such names: {first_line(error)}") from error
    except (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError, TimeoutError) as error:
        cause = error.__cause__ or error
        raise _Refused(f"the hub cannot be reached ({first_line(cause)})", final=True) from error
    except OSError as error:
        raise _Refused(f"it cannot be kept in {constants.HF_HUB_CACHE}: {first_line(error)}", final=True) from error
    except (RuntimeError, errors.XetDownloadError) as error:
        raise _Refused(f"the download broke off ({first_line(error)})") from error
