"""Models on the hub: which files a family needs, and the folder on this disk that holds them."""

from __future__ import annotations

from pathlib import Path

from gsdistill.errors import ModelNotFound

__all__ = ["fetched"]


def fetched(source: str, revision: str | None = None) -> Path:
    """The folder of a model: ``source`` itself where it is one, else the snapshot of a hub id, downloaded once.

    Raises:
        ModelNotFound: it is neither here nor to be had.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(source, revision=revision, allow_patterns=["*.json", "*/*.json", "*/*.safetensors"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFound(f"cannot get {source}: {str(error).splitlines()[0]}") from error
