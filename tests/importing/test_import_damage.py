"""Damaged and joined recordings, and containers that say what is not so: nothing is lost or repeated without a line."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import pytest
from helpers.video_fixtures import write_video
from test_import_inputs import FIRST, JUMP, SECOND, THIRD, claim, joined, noisy, reasons
from test_import_videos import codes_by_path, run
from test_import_videos_runs import mixture

from lawm_lerobot.importing.footage import VideoFile
from lawm_lerobot.importing.footage.containers import outline

PART_DAMAGED = "imported in part: damaged"


# ── damage ────────────────────────────────────────────────────────────────────


def damage(path: Path, *numbers: int) -> Path:
    """Overwrite the packets of these numbers with zeros, but for their first bytes, which the container may need."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        place, size = places[number]
        data[place + 16 : place + size] = bytes(size - 16)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_damage_inside_a_whole_video_is_listed(tmp_path, name):
    """Every picture stands for itself, so that a damaged one costs itself only: the one before it stands for it."""
    options = {"g": "1", "preset": "ultrafast", "crf": "18"}
    damage(write_video(tmp_path / "videos" / name, 60, 30, options=options), 30, 31)
    write_video(tmp_path / "videos" / "good.mp4", 60, 30)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {
        name: [[29 if code == 30 else code for code in FIRST]],
        "good.mp4": [FIRST],
    }
    assert reasons(summary) == {name: PART_DAMAGED}
    assert summary["left_out"][0]["detail"].startswith("2 x ")


def test_damage_before_a_stretch_is_not_of_it(tmp_path):
    options = {"g": "1", "preset": "ultrafast", "crf": "18"}
    damage(write_video(tmp_path / "videos" / "a.mp4", 120, 30, options=options), 5, 88)
    (tmp_path / "videos" / "captions.csv").write_text(
        "path,caption,start,end\na.mp4,a,0,1\na.mp4,b,0.5,1.5\na.mp4,c,1.9,2.95\na.mp4,d,3,4\n"
    )
    summary = run(tmp_path / "videos", tmp_path / "out")
    listed = [(item["path"], item["reason"]) for item in summary["left_out"]]
    assert listed == [("a.mp4 [0.00-1.00 s]", PART_DAMAGED), ("a.mp4 [1.90-2.95 s]", PART_DAMAGED)]
    stretches = [(0, 30), (15, 45), (57, 88), (90, 120)]
    expected = [list(range(first, end, 3)) for first, end in stretches]
    assert codes_by_path(tmp_path / "out") == {"a.mp4": expected}


def test_dropped_frames_of_an_avi_take_their_time(tmp_path):
    """A capture that falls behind writes empty packets: the picture before them goes on being shown."""
    video = write_video(
        tmp_path / "videos" / "a.avi", 60, 30, codec="mjpeg", pix_fmt="yuvj420p", options={"q": "3"}
    )
    empty_chunks(video, range(30, 36))
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {
        "a.avi": [[29 if code in (30, 33) else code for code in FIRST]]
    }
    assert summary["left_out"] == []


def empty_chunks(path: Path, numbers: range) -> None:
    """Take the content of these pictures out of an avi file, and its index away."""
    data = path.read_bytes()
    movi = data.index(b"movi") - 8
    place, end = movi + 12, movi + 8 + struct.unpack("<I", data[movi + 4 : movi + 8])[0]
    chunks, count = b"", 0
    while place < end:
        name, size = struct.unpack("<4sI", data[place : place + 8])
        content = data[place + 8 : place + 8 + size]
        if name == b"00dc":
            content = b"" if count in numbers else content
            count += 1
        chunks += struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)
        place += 8 + size + size % 2
    whole = data[12:movi] + struct.pack("<4sI4s", b"LIST", 4 + len(chunks), b"movi") + chunks
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(whole), b"AVI ") + whole)


# ── joined recordings ─────────────────────────────────────────────────────────


def test_an_avi_of_several_parts_is_one_recording(tmp_path):
    """A long recording goes on in a part of another name after a gigabyte."""
    parts = [struct.pack("<4sI4s", b"RIFF", 4 + 21, name) + bytes(22) for name in (b"AVI ", b"AVIX", b"AVI ")]
    (tmp_path / "a.avi").write_bytes(b"".join(parts[:2]))
    assert outline(str(tmp_path / "a.avi")).begins == ()
    (tmp_path / "a.avi").write_bytes(b"".join(parts))
    assert outline(str(tmp_path / "a.avi")).begins == (2 * len(parts[0]),)


def test_recordings_of_a_browser_joined_end_to_end(tmp_path):
    """They do not say how long they are, as what is written to a stream."""
    path = joined(tmp_path / "videos" / "a.webm", 3, codec="libvpx-vp9", container_options={"live": "1"})
    assert outline(str(path)).recordings == 3
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"a.webm": [FIRST, SECOND, THIRD]}
    assert reasons(summary) == {"a.webm": JUMP}


# ── clocks ────────────────────────────────────────────────────────────────────


def test_a_clock_of_33_bits_that_wraps_goes_on(tmp_path):
    """The clock of a transport stream starts again every 26 hours."""
    wrap = 2**33 / 90000
    path = tmp_path / "videos" / "a.ts"
    write_video(path, 60, 30, times=[wrap - 1 + i / 30 for i in range(60)])
    assert VideoFile(str(path)).probe().duration_s == pytest.approx(2.0, abs=0.1)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"a.ts": [FIRST]}
    assert summary["left_out"] == []


def test_a_time_lapse_shows_each_picture_long(tmp_path):
    """Seconds between two pictures are a jump in a film, and nothing unusual in a time lapse."""
    video = write_video(tmp_path / "videos" / "a.mkv", 10, 1, times=[3.0 * i for i in range(10)])
    assert VideoFile(str(video)).probe().duration_s == pytest.approx(28.0, abs=2.0)
    summary = run(tmp_path / "videos", tmp_path / "out", "--fps=1")
    assert codes_by_path(tmp_path / "out") == {"a.mkv": [[i // 3 for i in range(28)]]}
    assert summary["left_out"] == []


# ── claims of containers ──────────────────────────────────────────────────────


def test_a_video_that_is_longer_than_it_says_is_whole(tmp_path):
    video = claim(
        write_video(tmp_path / "videos" / "a.mkv", 120, 30, options={"qp": "4"}, picture=noisy), 0.5
    )
    assert VideoFile(str(video)).probe().duration_s == pytest.approx(0.5, abs=0.1)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"a.mkv": [list(range(0, 120, 3))]}
    assert summary["left_out"] == []


def test_hours_are_counted_in_decoded_ones(tmp_path):
    source = tmp_path / "videos"
    for number in range(4):
        claim(write_video(source / f"{number}.mkv", 60, 30, options={"qp": "4"}, picture=noisy), 60.0)
    entries = f"  - {{type: folder, path: {source}, max_hours: {6 / 3600}}}\n"
    summary, _ = mixture(tmp_path, source, entries)
    assert (summary["episodes"], summary["frames"]) == (3, 60)
