"""Writing one episode: frames go to the encoder once, straight into the form in which they are trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from lawm_lerobot.importing.segments import ImportSettingsError

# LeRobot's names and levels (lerobot.datasets.compute_stats.DEFAULT_QUANTILES).
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


@dataclass
class EncoderOptions:
    """Compression of the written video; the names are those of LeRobot's RGBEncoderConfig.

    Measured by `python -m tools.speed.importing --codecs`: processor milliseconds for a clip of 9 consecutive frames from a random place in a textured, moving scene of
    300 frames, read by LeRobot's `decode_video_frames`, median of 40; and per frame when encoding on one thread.

    | codec at 128 x 128          | torchcodec | pyav | encode | kB/s |
    |-----------------------------|------------|------|--------|------|
    | AV1, g=2, LeRobot's default | 2.3        | 6.6  | 2.2    | 16   |
    | h264, g=2                   | 2.7        | 5.5  | 0.5    | 22   |
    | h264, g=2, fastdecode       | 1.6        | 4.1  | 0.3    | 25   |
    | h264, g=1, fastdecode       | 1.7        | 4.7  | 0.4    | 28   |
    | h264, g=10, fastdecode      | 2.1        | 4.3  | 0.3    | 16   |
    | h264, g=30, fastdecode      | 2.4        | 6.2  | 0.4    | 14   |

    The third line is the default: the quickest to read at 96 and 224 pixels too (h264 against AV1 with torchcodec: 1.4
    against 1.7 ms and 3.6 against 7.0 ms), and seven times quicker to write, for half as many bytes again. Longer groups
    save bytes and cost little for consecutive frames, but every single frame and every strided clip pays for the group.
    The size matters more than all of these: 224 pixels read 2.2 times slower than 128, hence the default of 128.
    `superfast` instead of `veryfast`: as many bytes and the same quality, a fifth less time.

    Args:
        vcodec: Codec of the video.
        pix_fmt: Pixel format.
        g: Number of frames in a group, of which the first is coded by itself.
        crf: Quality; a lower number is better and larger.
        preset: Effort of the encoder.
        fast_decode: 1 leaves out what makes decoding slow.
    """

    vcodec: str = "h264"
    pix_fmt: str = "yuv420p"
    g: int = 2
    crf: int = 23
    preset: str = "superfast"
    fast_decode: int = 1


@dataclass(frozen=True)
class EncoderSettings:
    """Form of the written videos; `codec_options` are FFmpeg's, as LeRobot's encoder configuration gives them."""

    fps: int
    height: int
    width: int
    vcodec: str
    pix_fmt: str
    codec_options: dict[str, str]


def lerobot_encoder(options: EncoderOptions) -> Any:
    """LeRobot's encoder configuration for these options, or an `ImportSettingsError` if it refuses them."""
    from lerobot.configs import RGBEncoderConfig

    extra: dict[str, Any] = {}
    if options.vcodec == "h264":
        # No B-frames: frames are then stored in the order they are shown. No scene cuts: each group is `g` long.
        extra = {"bf": 0, "sc_threshold": 0}
    try:
        return RGBEncoderConfig(**asdict(options), extra_options=extra)
    except ValueError as error:
        raise ImportSettingsError(f"--encoder does not work: {error}") from error


class PictureStatistics:
    """Per-channel statistics of 8-bit pictures from a 256-bin histogram: exact, and 6 kB however long the episode.

    LeRobot samples frames and approximates quantiles; here every frame counts, because counting 8-bit values costs less
    than keeping samples. As there, `count` is the number of frames and values are scaled to [0, 1].
    """

    def __init__(self) -> None:
        self.counts = np.zeros((3, 256), dtype=np.int64)
        self.frames = 0

    def add(self, image: np.ndarray) -> None:
        """`image` (h, w, 3) uint8."""
        # LeRobot thins pictures from 300 pixels on before counting; the statistics do not need every pixel.
        height, width = image.shape[:2]
        if max(height, width) >= 300:
            step = int(width / 150) if width > height else int(height / 150)
            image = np.ascontiguousarray(image[::step, ::step])
        for channel in range(3):
            counts = cv2.calcHist([image], [channel], None, [256], [0, 256])
            self.counts[channel] += counts[:, 0].astype(np.int64)
        self.frames += 1

    def summary(self) -> dict[str, list]:
        """LeRobot's statistics of an image feature as nested lists of shape (3, 1, 1), `count` of shape (1,)."""
        values = np.arange(256) / 255.0
        weights = self.counts / self.counts.sum(axis=1, keepdims=True)  # (3, 256)
        mean = weights @ values
        variance = np.maximum(weights @ values**2 - mean**2, 0.0)
        present = self.counts > 0
        result = {
            "min": values[present.argmax(axis=1)],
            "max": values[255 - present[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
        }
        cumulative = np.cumsum(weights, axis=1)
        for name, level in QUANTILES.items():
            result[name] = values[(cumulative < level - 1e-12).sum(axis=1).clip(max=255)]
        shaped = {name: value.reshape(3, 1, 1).tolist() for name, value in result.items()}
        return {**shaped, "count": [self.frames]}


class EpisodeEncoder:
    """One episode's mp4 and its statistics; frames are handed over one by one and none is kept."""

    def __init__(self, target: Path | Any, settings: EncoderSettings):
        self.statistics = PictureStatistics()
        self.frames = 0
        self._container = av.open(str(target) if isinstance(target, Path) else target, "w", format="mp4")
        stream: Any = self._container.add_stream(
            settings.vcodec, rate=settings.fps, options=settings.codec_options
        )
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, settings.pix_fmt
        stream.time_base = self._time_base = Fraction(1, settings.fps)
        self._stream = stream

    def add(self, image: np.ndarray) -> None:
        """`image` (h, w, 3) uint8 RGB of the episode's size."""
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self.frames, self._time_base
        self._container.mux(self._stream.encode(frame))
        self.statistics.add(image)
        self.frames += 1

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        if self.frames:
            self._container.mux(self._stream.encode(None))
        self._container.close()
