"""High dynamic range: patches of known light, stored as phones store them, come out as a screen of BT.709 shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lawm_lerobot.importing import fitting
from lawm_lerobot.importing.fitting import PictureMaker
from lawm_lerobot.importing.footage import Reading, VideoFile

WHITE = 203.0  # cd/m², BT.2408
BT709, BT2020, PQ, HLG = "bt709", "bt2020-10", "smpte2084", "arib-std-b67"
# Dim enough to stay as they are: light is compressed from 94 cd/m² on, which is 185 of 255.
COLOURS = [(0, 0, 0), (108, 108, 108), (180, 180, 180), (180, 60, 40), (40, 150, 60), (30, 60, 170)]


def linear(colour: tuple[int, int, int]) -> np.ndarray:
    """Colour of BT.709 as 8 bits -> light of BT.2020's primaries on a screen of BT.1886, cd/m²."""
    to_bt2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    return to_bt2020 @ (np.array(colour) / 255) ** 2.4 * WHITE  # the matrix of BT.2087


def pq_codes(light: np.ndarray) -> np.ndarray:
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_codes(light: np.ndarray) -> np.ndarray:
    shown = light / 1000
    luminance = shown @ np.array([0.2627, 0.6780, 0.0593])
    scene = shown * max(luminance, 1e-9) ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12,
        np.sqrt(3 * scene),
        0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
    )


def stored(codes: np.ndarray) -> list[int]:
    """Codes of red, green and blue in [0, 1] -> Y, Cb, Cr of BT.2020 with 10 bits in narrow range."""
    luma = codes @ np.array([0.2627, 0.6780, 0.0593])
    blue, red = (codes[2] - luma) / 1.8814, (codes[0] - luma) / 1.4746
    return [round(64 + 876 * luma), round(512 + 896 * blue), round(512 + 896 * red)]


def write_patches(path: Path, patches: list[np.ndarray], transfer: str, matrix: str = "bt2020nc") -> Path:
    """Three pictures of 10 bits in HEVC, with a patch of 32x32 for each triple of codes, side by side."""
    samples = np.array([stored(codes) for codes in patches])
    planes = [
        np.repeat(samples[:, channel], 32)[None].repeat(32, 0).astype(np.uint16) for channel in range(3)
    ]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx265", rate=30)
        stream.height, stream.width, stream.pix_fmt = 32, 32 * len(patches), "yuv420p10le"
        colours = f"colorprim=bt2020:transfer={transfer}:colormatrix={matrix}:range=limited"
        options = {"preset": "ultrafast", "x265-params": f"log-level=none:pools=1:lossless=1:{colours}"}
        stream.codec_context.options = options
        for index in range(3):
            frame = av.VideoFrame(stream.width, stream.height, "yuv420p10le")
            for plane, values in zip(
                frame.planes, (planes[0], planes[1][::2, ::2], planes[2][::2, ::2]), strict=True
            ):
                row = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                row[:, : plane.width] = values
                plane.update(row.tobytes())
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(path: Path, patches: int, scale: float = 0.5) -> np.ndarray:
    """The patches of the first picture as (patches, 3), imported at `scale` of the size."""
    maker = PictureMaker(round(32 * scale), round(32 * patches * scale), "crop")
    _, picture = next(iter(VideoFile(str(path)).frames(Reading(0.0, None), maker)))
    assert picture is not None
    image = picture()
    assert image.dtype == np.uint8
    return image[image.shape[0] // 2, round(16 * scale) :: round(32 * scale)]


@pytest.mark.parametrize(("transfer", "codes"), [(PQ, pq_codes), (HLG, hlg_codes)], ids=["pq", "hlg"])
def test_patches_of_known_light_come_out_right(tmp_path, transfer, codes):
    for matrix in ("bt2020nc", "undef"):
        patches = [codes(linear(colour)) for colour in COLOURS]
        path = write_patches(tmp_path / f"{matrix}.mp4", patches, transfer, matrix)
        found = shown(path, len(COLOURS))
        assert np.abs(found.astype(int) - np.array(COLOURS)).max() <= 3, found
    # BT.2408's white keeps room for what is brighter, up to the peak; a PQ file may hold light beyond it.
    bright = [np.full(3, light) for light in (WHITE, 400.0, 1000.0, 4000.0 if transfer == PQ else 1000.0)]
    path = write_patches(tmp_path / "bright.mp4", [codes(light) for light in bright], transfer)
    # 230 and 250 are BT.2390's EETF from 1000 to 203 cd/m², worked out by hand.
    assert np.abs(shown(path, 4).astype(int) - np.array([[230], [250], [255], [255]])).max() <= 2


def test_colours_outside_the_screens_are_clipped_and_borders_stay_black(tmp_path):
    pure = [np.array([0.0, 100.0, 0.0]), np.array([100.0, 0.0, 0.0])]  # BT.2020's own green and red
    path = write_patches(tmp_path / "pure.mp4", [pq_codes(light) for light in pure], PQ)
    green, red = shown(path, 2).astype(int)
    assert green[0] == green[2] == 0 and green[1] > 180
    assert red[1] == red[2] == 0 and red[0] > 180
    maker = PictureMaker(64, 64, "pad")
    _, picture = next(iter(VideoFile(str(path)).frames(Reading(0.0, None), maker)))
    assert picture is not None and picture()[:16].max() == 0 and picture()[32].max() > 180


def test_only_what_says_so_is_tone_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "to_standard", lambda *_: pytest.fail("standard range was tone-mapped"))
    codes = [np.array(colour) / 255 for colour in COLOURS]
    for transfer in (BT709, BT2020, "unknown"):
        path = write_patches(tmp_path / f"{transfer}.mp4", codes, transfer)
        assert np.abs(shown(path, len(COLOURS)).astype(int) - np.array(COLOURS)).max() <= 2
