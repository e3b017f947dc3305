"""A folder of videos, at any depth."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lawm_lerobot.importing.reasons import Reason
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment, inside
from lawm_lerobot.importing.sources.base import VIDEO_EXTENSIONS, VideoSource, read_table, seconds

CAPTION_FILES = ("captions.csv", "captions.jsonl")
PATH_COLUMNS = ("path", "file", "video")
CAPTION_COLUMNS = ("caption", "text", "task")


type _Rows = list[tuple[str, float | None, float | None]]  # caption, start and end in seconds


@VideoSource.register_subclass("folder")
@dataclass
class FolderSource(VideoSource):
    """Every mp4, mov, mkv, avi, webm and m4v below `path`.

    A caption is taken from the first of these that has one: a caption file; `<video>.txt` beside the video; the name of
    the folder the video is in. A caption file is CSV or JSONL with `path` (relative to the folder), `caption` and,
    optionally, `start` and `end` in seconds; a video with several rows gives one segment per row, and only those.

    Args:
        captions: Caption file, relative to `path` or absolute; by default captions.csv or captions.jsonl if there.
        only_captioned: Leave out videos that the caption file does not name.
        folder_names: Use folder names as captions.
        follow_links: Also read links that lead out of the folder.
    """

    captions: Path | None = None
    only_captioned: bool = False
    folder_names: bool = True
    follow_links: bool = False

    def segments(self) -> Iterator[Segment | LeftOut]:
        root = self.folder()
        captions, problems, source = self._read_captions(root)
        yield from problems
        found: list[Path] = []
        for item in self._walk(root):
            if isinstance(item, LeftOut):
                yield item
            else:
                found.append(item)
        seen: set[Path] = set()
        for path in found:
            real = path.resolve()
            if real in seen:
                yield self.left_out(path.relative_to(root), "the same file under another name")
                continue
            seen.add(real)
            rows = captions.pop(real, None)
            if rows is None:
                if self.only_captioned:
                    yield self.left_out(path.relative_to(root), "not in the caption file")
                    continue
                caption, caption_source = self._own_caption(root, path)
                yield self.segment(path, caption=caption, caption_source=caption_source)
                continue
            for caption, start, end in rows:
                own, own_source = (caption, source) if caption else self._own_caption(root, path)
                times = {"start_s": start or 0.0, "end_s": end}
                yield self.segment(path, caption=own, caption_source=own_source, **times)
        for real in captions:
            yield self.left_out(real.relative_to(root), f"named in {source} but not there")

    def _walk(self, root: Path) -> Iterator[Path | LeftOut]:
        """Files with a video's extension, sorted; links are followed once, and out of the folder only on request."""
        visited: set[Path] = set()
        stack = [root]
        while stack:
            folder = stack.pop()
            visited.add(folder.resolve())
            try:
                names = sorted(os.listdir(folder))
            except OSError as error:
                denied = isinstance(error, PermissionError)
                fault = Reason.NO_PERMISSION if denied else Reason.CANNOT_BE_READ
                yield self.left_out(folder.relative_to(root), fault)
                continue
            folders = []
            for name in names:
                path = folder / name
                is_video = path.suffix.lower() in VIDEO_EXTENSIONS
                if path.is_symlink():
                    try:
                        real = path.resolve(strict=True)
                    except (OSError, RuntimeError) as error:
                        if is_video:
                            loop = (
                                isinstance(error, RuntimeError) or getattr(error, "errno", 0) == errno.ELOOP
                            )
                            reason = "a loop of links" if loop else "a link to nothing"
                            yield self.left_out(path.relative_to(root), reason)
                        continue
                    if not self.follow_links and not real.is_relative_to(root):
                        if is_video or real.is_dir():
                            yield self.left_out(
                                path.relative_to(root),
                                "a link out of the folder",
                                "--source.follow_links=true imports it",
                            )
                        continue
                    if real.is_dir() and (real in visited or root.is_relative_to(real)):
                        continue  # a loop, or a folder that has been read
                if path.is_dir():
                    folders.append(path)
                elif is_video:
                    yield path
            stack.extend(reversed(folders))

    def _own_caption(self, root: Path, path: Path) -> tuple[str, str]:
        for beside in (path.with_suffix(".txt"), path.with_name(path.name + ".txt")):
            # A link could lead anywhere, and its text would end up in the dataset.
            if beside.is_file() and beside.resolve().is_relative_to(root):
                try:
                    text = " ".join(beside.read_text(encoding="utf-8", errors="replace")[:2000].split())
                except OSError:
                    continue
                if text:
                    return text, "text file"
        if self.folder_names and path.parent != root:
            return " ".join(path.parent.name.replace("_", " ").replace("-", " ").split()), "folder name"
        return self.default_caption, "default" if self.default_caption else "none"

    def _caption_file(self, root: Path) -> Path | None:
        if self.captions is not None:
            path = self.captions if self.captions.is_absolute() else root / self.captions
            if not path.is_file():
                raise ImportSettingsError(f"--source.captions={self.captions} is not a file in {root}.")
            return path
        return next((root / name for name in CAPTION_FILES if (root / name).is_file()), None)

    def _read_captions(self, root: Path) -> tuple[dict[Path, _Rows], list[LeftOut], str]:
        path = self._caption_file(root)
        if path is None:
            return {}, [], ""
        captions: dict[Path, _Rows] = {}
        problems: list[LeftOut] = []
        for number, row in enumerate(read_table(path), 1):
            name = _first(row, PATH_COLUMNS)
            if not name:
                raise ImportSettingsError(
                    f"Row {number} of {path.name} has no path; the columns must be path, caption and optionally "
                    "start and end (--source.captions)."
                )
            real = inside(root, name)
            if real is None:
                problems.append(self.left_out(name, Reason.LEADS_OUT, f"row {number} of {path.name}"))
                continue
            try:
                start, end = seconds(row.get("start")), seconds(row.get("end"))
                if end is not None and end <= (start or 0.0):
                    raise ValueError(f"end {end} is not after start {start or 0.0}")
            except ValueError as error:
                problems.append(
                    self.left_out(name, Reason.UNUSABLE_TIMES, f"row {number} of {path.name}: {error}")
                )
                continue
            caption = " ".join(_first(row, CAPTION_COLUMNS).split())
            captions.setdefault(real, []).append((caption, start, end))
        return captions, problems, path.name


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((str(row[name]) for name in names if row.get(name)), "")
