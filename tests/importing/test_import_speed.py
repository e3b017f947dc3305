"""What makes an import fast changes nothing in it: the pictures are those of an import that decodes every frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.video_fixtures import read_code, write_video

from lawm_lerobot.importing.fitting import PictureMaker
from lawm_lerobot.importing.footage import Reading, VideoFile
from lawm_lerobot.importing.resampling import on_grid

B_FRAMES = {"preset": "fast", "bf": "3", "b-pyramid": "normal", "crf": "18"}
FRAMES, RATE = 150, 30


def taken(
    path: Path, start_s: float, end_s: float | None, fps: int, sparing: bool
) -> tuple[list[int], Reading]:
    """The numbers that the imported pictures carry."""
    footage = VideoFile(str(path))
    reading = Reading(start_s, end_s, Fraction(footage.probe().origin), fps=fps if sparing else None)
    times = (start_s + number / fps for number in range(round(((end_s or 5.0) - start_s) * fps)))
    shown = footage.frames(reading, PictureMaker(64, 64, "crop"))
    return [read_code(sample[1]) for sample in on_grid(shown, times, reading) if sample is not None], reading


VIDEOS = {  # name: (options of write_video, skips pictures)
    "b_frames.mp4": ({"options": B_FRAMES}, True),
    "b_frames.ts": ({"options": B_FRAMES}, True),
    "b_frames.mkv": ({"options": B_FRAMES}, True),
    "hevc.mp4": ({"codec": "libx265"}, True),
    "hevc.mkv": ({"codec": "libx265"}, True),
    "every_one_needed.mp4": ({"options": {**B_FRAMES, "bf": "0"}}, False),
    "vp9.webm": ({"codec": "libvpx-vp9"}, False),
    "b_frames.avi": ({"options": {**B_FRAMES, "bf": "0"}}, False),
    "stalls.mp4": ({"options": B_FRAMES, "times": "uneven"}, True),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_pictures_that_are_not_shown_are_not_decoded_and_the_others_are_the_same(tmp_path, name):
    options, skips = VIDEOS[name]
    if options.get("times"):
        steps = np.random.default_rng(0).uniform(1 / 60, 1 / 20, FRAMES)
        steps[40:44] = 0.7
        options = {**options, "times": [round(float(time), 4) for time in np.cumsum(steps) - steps[0]]}
    path = write_video(tmp_path / name, FRAMES, RATE, **options)
    for start_s, end_s, fps in ((0.0, None, 10), (2.35, 4.1, 7), (1.5, 4.0, 3)):
        found, spared = taken(path, start_s, end_s, fps, sparing=True)
        wanted, all_of_it = taken(path, start_s, end_s, fps, sparing=False)
        assert found == wanted and len(found) == round(((end_s or 5.0) - start_s) * fps)
        assert (spared.jumps, spared.errors, spared.shown_to_s) == ([], [], all_of_it.shown_to_s)
        assert (spared.frames < 0.8 * all_of_it.frames) == skips, (spared.frames, all_of_it.frames)


def test_a_row_of_skipped_pictures_is_no_jump_of_the_clock(tmp_path):
    options = {"preset": "fast", "bf": "16", "b-adapt": "0", "b-pyramid": "none", "crf": "18"}
    path = write_video(
        tmp_path / "slow.mp4", 96, 4, options=options
    )  # 4 s from one needed picture to the next
    found, reading = taken(path, 15.0, 20.0, fps=1, sparing=True)
    assert (found, reading.jumps) == ([60, 64, 68, 72, 76], [])
    assert reading.frames < 60


def test_joined_recordings_are_decoded_in_full_from_the_second_on(tmp_path):
    """The packets' times are those of each recording, and not of what is shown."""
    path = tmp_path / "joined.ts"
    parts = [
        write_video(tmp_path / f"{n}.ts", 91, RATE, options=B_FRAMES, first_index=91 * n) for n in (0, 1)
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found, reading = taken(path, 0.0, 6.0, fps=6, sparing=True)
    assert found == taken(path, 0.0, 6.0, fps=6, sparing=False)[0]
    assert len(reading.jumps) == 1 and 91 < reading.frames < 182
