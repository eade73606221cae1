"""Which files a model needs, which are here, and how large they are; no weights are loaded or downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gsdistill.core.errors import ModelNotFound
from gsdistill.models.catalogue import PriorCard, cards
from gsdistill.models.hub import Need, cached_file, cached_snapshot, fetch_index, list_remote_files
from gsdistill.models.layout import CARDS, chosen, lack, listing
from gsdistill.models.pipelines import FAMILIES, needed_parts

__all__ = ["Share", "find_shares", "free_space", "gigabytes"]

USELESS = ("*.bin", "*.ckpt", "*.msgpack", "*.onnx*", "safety_checker/*")  # files that no prior reads


@dataclass(frozen=True)
class Share:
    """The files that a prior needs of one model of the hub."""

    name: str  # the card's, or the hub id
    sources: tuple[str, ...]
    file: str | None = None  # one checkpoint, or None where it is parts of a folder
    parts: tuple[str, ...] = ()  # those parts, where they are known without asking
    source: str | None = None  # the one that serves: cached, else the first that the hub has
    folder: Path | None = None  # where all of it is on this disk
    files: tuple[tuple[str, int], ...] = ()  # what is needed of it, name and bytes, where that is known
    reason: str | None = None  # why that is not known
    revision: str | None = None  # of the card
    light: bool = False  # whether there are fp16 files, by the card

    @property
    def size(self) -> int:
        """Bytes that are needed."""
        return sum(size for _, size in self.files)

    def here(self) -> dict[str, int]:
        """The files of those needed that the cache holds, with their bytes."""
        source = self.source or self.sources[0]
        return {name: size for name, size in self.files if cached_file(source, name, self.revision)}

    def by_part(self) -> dict[str, int]:
        """Bytes of each part that holds weights, largest first."""
        sizes: dict[str, int] = {}
        for name, size in self.files:
            part = name.partition("/")[0]
            sizes[part] = sizes.get(part, 0) + size
        return {part: sizes[part] for part in sorted(sizes, key=lambda part: -sizes[part]) if sizes[part] >= 5e6}

    def command(self, half: bool) -> str:
        """The command that downloads it; if its files are not known, with patterns for their names."""
        words = f"hf download {self.source or self.sources[0]}"
        if self.files or self.file:
            return f"{words} {' '.join(name for name, _ in self.files) or self.file}"
        if not self.parts:
            return f"{words} {_flags('exclude', USELESS)}"
        # text encoders and tokenizers of any number: a family may take more of them than it must have
        texts = {
            part: f"{part.rstrip('_23')}*" for part in self.parts if part.startswith(("text_encoder", "tokenizer"))
        }
        parts = dict.fromkeys(texts.get(part, part) for part in self.parts)
        weights = [part for part in parts if not part.startswith(("tokenizer", "scheduler"))]
        patterns = [*(f"{part}/*" for part in parts if part not in weights), *(f"{part}/*.json" for part in weights)]
        patterns += [f"{part}/*{'.fp16*' if half and self.light else ''}.safetensors" for part in weights]
        others = "" if half else f" {_flags('exclude', ('*.fp16*', '*.non_ema*'))}"
        return f"{words} {_flags('include', (CARDS[0], *patterns))}{others}"


def find_shares(name: str, half: bool) -> Iterator[Share]:
    """What the prior ``name``, a card or a hub id, needs of the hub, which is asked if the cache is not complete."""
    card = cards().get(name)
    if card and card.checkpoint and card.base:
        yield _file_share(name, card, card.checkpoint)
        yield _folder_share(card.base, cards()[card.base], half, FAMILIES[card.pipeline].others)
    else:
        yield _folder_share(name, card, half)


def free_space(folder: str) -> int:
    """Free bytes on the disk that a folder, which need not exist, lies on."""
    place = Path(folder).absolute()
    return shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free


def gigabytes(size: float) -> str:
    """A number of bytes for a human eye."""
    unit, scale = ("GB", 1e9) if size >= 5e7 else ("MB", 1e6) if size >= 5e4 else ("kB", 1e3)
    return f"{size / scale:.1f} {unit}"


def _folder_share(name: str, card: PriorCard | None, half: bool, parts: Sequence[str] = ()) -> Share:
    revision = card.revision if card else None
    listed = tuple(parts or (FAMILIES[card.pipeline].parts if card else ()))
    share = Share(
        name, card.sources if card else (name,), parts=listed, revision=revision, light=bool(card and card.variant)
    )
    need = Need((lambda folder: parts) if parts else needed_parts)
    for source in share.sources:
        if folder := cached_snapshot(source, need, revision):
            files = chosen(listing(folder), need.parts(folder), half)
            return replace(share, source=source, folder=folder, files=tuple(files.items()))

    def ask(source: str) -> tuple[tuple[str, int], ...]:
        there = list_remote_files(source, revision)
        wanted = parts or _parts_of(card, there, source)
        if missing := lack(source, there, wanted):
            raise ModelNotFound(missing)
        return tuple(chosen(there, wanted, half).items())

    return _ask_each(share, ask)


def _file_share(name: str, card: PriorCard, file: str) -> Share:
    share = Share(name, card.sources, file, revision=card.revision)
    for source in share.sources:
        if path := cached_file(source, file, card.revision):
            return replace(share, source=source, folder=path.parent, files=((file, path.stat().st_size),))

    def ask(source: str) -> tuple[tuple[str, int], ...]:
        there = list_remote_files(source, card.revision)
        if file not in there:
            raise ModelNotFound(f"it has no {file}")
        return ((file, there[file]),)

    return _ask_each(share, ask)


def _flags(flag: str, patterns: Sequence[str]) -> str:
    return " ".join(f"--{flag} '{pattern}'" for pattern in patterns)


def _ask_each(share: Share, ask: Callable[[str], tuple[tuple[str, int], ...]]) -> Share:
    """The share with the first source that answers, or the reasons why none does, each once."""
    reasons: dict[str, str] = {}
    for source in share.sources:
        try:
            return replace(share, source=source, files=ask(source))
        except ModelNotFound as error:
            reasons.setdefault(str(error), source)
    return replace(share, reason="; ".join(f"{source}: {reason}" for reason, source in reasons.items()))


def _parts_of(card: PriorCard | None, files: dict[str, int], source: str) -> Sequence[str]:
    """The parts that a model of the hub needs: of a card by its listing, which is public where the files are gated."""
    if card is None:
        return needed_parts(fetch_index(source))
    folders = sorted({name.partition("/")[0] for name in files if name.count("/") == 1})
    texts = [part for part in folders if part.startswith(("text_encoder", "tokenizer"))]
    return tuple(dict.fromkeys([*FAMILIES[card.pipeline].parts, *texts]))
