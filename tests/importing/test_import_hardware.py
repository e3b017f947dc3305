"""Decoding on hardware: it falls back to the processor, and changes nothing in the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.video_fixtures import code_picture, rotate_mp4, write_video
from test_import_videos import FAST, codes_by_path, run

from lawm_lerobot.importing import run as running
from lawm_lerobot.importing.fitting import PictureMaker
from lawm_lerobot.importing.footage import Reading, VideoFile, containers, video
from lawm_lerobot.importing.footage.hardware import known_devices, works
from lawm_lerobot.scripts.lawm_import_videos import main


def episodes(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((root / "videos").rglob("*.mp4"))]


def on_its_head(index: int, height: int, width: int) -> np.ndarray:
    return np.rot90(code_picture(index, height, width), 2)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of phone videos, on their side and in full range, and the dataset made by the processor."""
    source = tmp_path_factory.mktemp("phone") / "videos"
    options = {"preset": "ultrafast", "crf": "18", "x264-params": "colormatrix=bt709:fullrange=on"}
    for name in ("a.mp4", "b.mp4"):
        rotate_mp4(write_video(source / name, 60, 30, options=options, picture=on_its_head), 180)
    root = source.parent / "plain"
    run(source, root)
    return source, root


def test_without_the_hardware_one_line_says_so_and_the_result_is_the_same(imported, tmp_path, capsys):
    source, plain = imported
    missing = [device for device in known_devices() if not works(device)]
    if not missing:
        pytest.skip("every kind of hardware that PyAV knows works here")
    run(source, tmp_path / "out", f"--hwaccel={missing[0]}")
    lines = [line for line in capsys.readouterr().err.splitlines() if "hwaccel" in line]
    assert lines == [f"warning: --hwaccel={missing[0]} does not work on this machine; the processor decodes."]
    assert episodes(tmp_path / "out") == episodes(plain)
    # The device may also be lost after the check: in a worker, for one file.
    with containers.open_video(str(source / "a.mp4"), missing[0]) as container:
        assert len(list(container.decode(video=0))) == 60


def test_hardware_that_nobody_knows_is_refused(imported, tmp_path, capsys):
    source, _ = imported
    flags = ["--source.type=folder", f"--source.path={source}", "--repo_id=me/clips", "--hwaccel=abacus"]
    assert main([*flags, f"--root={tmp_path / 'out'}", *FAST]) == 1
    assert "--hwaccel=abacus must be one that this PyAV was built for: " in capsys.readouterr().err


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """A stand-in for a device, whose frames have their times and nothing else, as PyAV takes them from one.

    Returns:
        The device that each file was opened with.
    """
    opened: list[str | None] = []
    decoded, open_file = video.decoded, av.open

    def open_on_hardware(*arguments: Any, hwaccel: str | None = None, **options: Any) -> Any:
        opened.append(hwaccel)
        return open_file(*arguments, **options)

    def bare(*arguments: Any) -> Iterator[tuple[Any, int | None, bool]]:
        for frame, stamp, is_new in decoded(*arguments):
            copy = av.VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)
            copy.pts, copy.time_base = frame.pts, frame.time_base
            yield copy, stamp, is_new

    monkeypatch.setattr(containers, "HWAccel", lambda device: device)
    monkeypatch.setattr(containers.av, "open", open_on_hardware)
    monkeypatch.setattr(video, "decoded", bare)
    monkeypatch.setattr(video, "is_on_hardware", lambda context: True)
    monkeypatch.setattr(running, "works", lambda device: True)
    return opened


def test_frames_of_a_device_are_upright_and_in_their_colours(imported, tmp_path, hardware):
    source, plain = imported
    device = known_devices()[0]
    run(source, tmp_path / "out", f"--hwaccel={device}")
    assert hardware.count(device) == 2  # each file once
    assert episodes(tmp_path / "out") == episodes(plain)
    assert codes_by_path(tmp_path / "out")["a.mp4"] == [[3 * number for number in range(20)]]


def test_a_device_that_gives_no_frames_is_given_up(imported, monkeypatch):
    source, _ = imported
    decoded, asked = video.decoded, []

    def nothing(*arguments: Any) -> Iterator[tuple[Any, int | None, bool]]:
        asked.append(reading.device)
        return iter(()) if reading.device is not None else decoded(*arguments)

    monkeypatch.setattr(video, "decoded", nothing)
    reading = Reading(0.0, None, device=known_devices()[0])
    shown = VideoFile(str(source / "a.mp4")).frames(reading, PictureMaker(64, 64, "crop"))
    assert len(list(shown)) == 60 and asked == [known_devices()[0], None]
