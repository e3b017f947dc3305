"""Flags of `lawm-import-videos`."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from lawm_lerobot.importing.encoding import EncoderOptions, EncoderSettings, lerobot_encoder
from lawm_lerobot.importing.footage.hardware import known_devices
from lawm_lerobot.importing.segments import ImportSettingsError
from lawm_lerobot.importing.sources import VideoSource
from lawm_lerobot.importing.tasks import WriteSettings


@dataclass
class ShardOptions:
    """A part of an import, for several machines: every count-th piece, starting at index.

    Args:
        index: Number of the part, from 0.
        count: Number of parts.
    """

    index: int = 0
    count: int = 1


@dataclass
class ImportConfig:
    """Flags of `lawm-import-videos`.

    Args:
        repo_id: Name of the dataset, user/name.
        root: Its folder, which must not exist; by default a folder named after `repo_id` in LeRobot's home.
        source: One source, `--source.type=folder --source.path=...`.
        sources: Several sources, as a list in a YAML file given by `--config_path`.
        fps: Frame rate of the result; every video is resampled to it by its timestamps.
        size: Pixels, `128` for a square or `96x128` for height x width.
        fit: `crop` fills the picture, `pad` shows all of it on black.
        camera: Image feature of the result.
        max_episode_s: Length at which longer videos are cut into episodes.
        min_episode_s: Length below which videos, and rests of long ones, are left out.
        min_motion: Motion below which stretches of at least 1 s are removed: the mean absolute difference of the
            picture over half a second, 0 to 1; 0.01 is a good start. 0 keeps everything.
        encoder: Compression of the written video.
        workers: Number of processes; by default one per core. 0 works in this process and does not survive a crashing
            decoder.
        hwaccel: Hardware that decodes, by FFmpeg's name for it, such as cuda or videotoolbox. Where it is missing, or does
            not take a codec, the processor decodes.
        seed: Seed of the order in which a source with a cap or a weight is drawn from.
        dry_run: Report episodes, hours and size; write nothing.
        shard: Import one part of several.
        merge: Put the `shard.count` parts together, by LeRobot's own aggregation.
        push_to_hub: Upload the result, with a card. Without a source, upload the dataset that `root` holds already.
        private: Make the Hub repository private.
        license: Licence identifier of the card; the card lists the sources' notes either way.
        summary_path: File to write the summary to as well.
    """

    repo_id: str = ""
    root: Path | None = None
    source: VideoSource | None = None
    sources: list[VideoSource] = field(default_factory=list)
    fps: int = 10
    size: str = "128"
    fit: str = "crop"
    camera: str = "observation.images.main"
    max_episode_s: float = 30.0
    min_episode_s: float = 1.0
    min_motion: float = 0.0
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    workers: int | None = None
    hwaccel: str | None = None
    seed: int = 0
    dry_run: bool = False
    shard: ShardOptions = field(default_factory=ShardOptions)
    merge: bool = False
    push_to_hub: bool = False
    private: bool | None = None
    license: str | None = None
    summary_path: Path | None = None

    def all_sources(self) -> list[VideoSource]:
        """`source` and `sources` together."""
        return ([self.source] if self.source is not None else []) + list(self.sources)

    def dataset_root(self) -> Path:
        """`root`, or its default below LeRobot's home."""
        if self.root is not None:
            return Path(os.path.expanduser(self.root)).absolute()
        from lerobot.utils.constants import HF_LEROBOT_HOME

        return HF_LEROBOT_HOME / self.repo_id

    def height_width(self) -> tuple[int, int]:
        """`size` as numbers."""
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(self.size).strip())
        height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not (16 <= height <= 4096 and 16 <= width <= 4096) or height % 2 or width % 2:
            raise ImportSettingsError(
                f"--size={self.size} must be even numbers from 16 to 4096, as 128 or as 96x128 (height x width)."
            )
        return height, width

    def check(self) -> None:
        """Refuse what cannot work before anything is read.

        Raises:
            ImportSettingsError: With a sentence that names the flag to change.
        """
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo_id):
            raise ImportSettingsError(f"--repo_id={self.repo_id or '(missing)'} must look like user/name.")
        if self.fps < 1:
            raise ImportSettingsError(f"--fps={self.fps} must be at least 1.")
        self.height_width()
        if self.fit not in ("crop", "pad"):
            raise ImportSettingsError(f"--fit={self.fit} must be crop or pad.")
        if not re.fullmatch(r"observation\.images\.\w+", self.camera):
            raise ImportSettingsError(f"--camera={self.camera} must look like observation.images.name.")
        if not 0 <= self.min_motion < 1:
            raise ImportSettingsError(f"--min_motion={self.min_motion} must be from 0 to 1.")
        if not (self.min_episode_s >= 0 and 2 <= self.max_episode_s * self.fps < math.inf):
            raise ImportSettingsError(
                f"--max_episode_s={self.max_episode_s} must be a number of seconds that hold at least two frames, and "
                f"--min_episode_s={self.min_episode_s} must not be negative."
            )
        if self.min_episode_s > self.max_episode_s:
            raise ImportSettingsError(
                f"--min_episode_s={self.min_episode_s} is above --max_episode_s={self.max_episode_s}."
            )
        if not 0 <= self.shard.index < self.shard.count:
            raise ImportSettingsError(
                f"--shard.index={self.shard.index} must be from 0 to {self.shard.count - 1} (--shard.count)."
            )
        if self.workers is not None and self.workers < 0:
            raise ImportSettingsError(f"--workers={self.workers} must not be negative.")
        if self.hwaccel is not None and self.hwaccel not in known_devices():
            raise ImportSettingsError(
                f"--hwaccel={self.hwaccel} must be one that this PyAV was built for: {', '.join(known_devices())}."
            )
        if self.push_to_hub and self.shard.count > 1 and not self.merge:
            raise ImportSettingsError(
                "--push_to_hub=true of one part would be overwritten by the next: push with --merge=true."
            )
        if not self.merge and not self.push_to_hub and not self.all_sources():
            raise ImportSettingsError(
                "No source: set --source.type and --source.path, or a list `sources:` in --config_path."
            )

    def write_settings(self) -> WriteSettings:
        """The settings that workers need.

        Raises:
            ImportSettingsError: If LeRobot refuses the encoder's options.
        """
        height, width = self.height_width()
        # One thread each: the workers share the cores already.
        codec_options = lerobot_encoder(self.encoder).get_codec_options(encoder_threads=1, as_strings=True)
        return WriteSettings(
            encoder=EncoderSettings(
                self.fps, height, width, self.encoder.vcodec, self.encoder.pix_fmt, codec_options
            ),
            fit=self.fit,
            min_frames=max(2, math.ceil(self.min_episode_s * self.fps - 1e-6)),
            max_frames=max(2, round(self.max_episode_s * self.fps)),
            min_motion=self.min_motion,
            device=self.hwaccel,
        )
