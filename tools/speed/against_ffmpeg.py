"""Speed of `lawm-import-videos` against FFmpeg's own command that does the same to the pictures.

    python -m tools.speed.against_ffmpeg

FFmpeg's command decodes, drops to the dataset's rate, scales, crops and encodes with the importer's codec and settings.
Both have two videos at a time in work, with one thread for each, on the same two cores. It prints JSON; `make bench`
runs it where FFmpeg is installed, or the package `imageio-ffmpeg`, which brings it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tools.speed.fixtures import write_videos
from tools.speed.importing import FPS, SIZE, cpu_seconds, import_folder, on_two_cores
from tools.speed.table import row

AT_A_TIME = 2
#: The number of videos, and how often each repeats its first second, by kind.
VIDEOS = {
    "h264_720p30": (8, 8),
    "h264_720p30_no_b_frames": (8, 8),
    "h264_1080p60": (4, 8),
    "hevc_2160p30": (2, 8),
}
QUICK = {"h264_720p30": (2, 1)}


def find_ffmpeg() -> str | None:
    """FFmpeg's program: the one on the PATH, else that of `imageio-ffmpeg`; None if there is neither."""
    found = shutil.which("ffmpeg")
    if found is None:
        with contextlib.suppress(ImportError, RuntimeError):
            found = str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    return found


def version_of(ffmpeg: str) -> str:
    """The version that FFmpeg's program names."""
    answer = subprocess.run([ffmpeg, "-version"], stdout=subprocess.PIPE, check=True, text=True).stdout
    return answer.split()[2]


def convert(ffmpeg: str, video: Path, target: Path, codec_options: dict[str, str]) -> None:
    """Do with FFmpeg's command what the importer does to the pictures of one video, on one thread."""
    filters = (
        f"fps={FPS},scale={SIZE}:{SIZE}:force_original_aspect_ratio=increase:flags=area,crop={SIZE}:{SIZE}"
    )
    options = [part for name, value in codec_options.items() for part in (f"-{name}", value)]
    quiet = ["-nostdin", "-v", "error", "-threads", "1", "-filter_threads", "1"]
    encoded = ["-vf", filters, "-c:v", "libx264", "-pix_fmt", "yuv420p", *options, "-an", str(target)]
    subprocess.run([ffmpeg, *quiet, "-i", str(video), *encoded], check=True)


def convert_folder(ffmpeg: str, videos: Path, place: Path) -> dict[str, float]:
    """Wall and processor seconds of `convert` for every video of a folder."""
    from lawm_lerobot.importing.encoding import EncoderOptions, lerobot_encoder

    options = lerobot_encoder(EncoderOptions()).get_codec_options(encoder_threads=1, as_strings=True)
    place.mkdir(parents=True)
    start, before = time.perf_counter(), cpu_seconds()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        jobs = [
            pool.submit(convert, ffmpeg, path, place / f"{path.stem}.mp4", options)
            for path in sorted(videos.iterdir())
        ]
    for job in jobs:
        job.result()
    return {"s": time.perf_counter() - start, "cpu_s": cpu_seconds() - before}


def repeat(ffmpeg: str, videos: Path, times: int) -> None:
    """Let each video of a folder show its pictures so many times: encoding large ones takes long."""
    for path in sorted(videos.iterdir()):
        once = path.rename(path.with_name(f"once_{path.name}"))
        looped = ["-stream_loop", str(times - 1), "-i", str(once), "-c", "copy", str(path)]
        subprocess.run([ffmpeg, "-nostdin", "-v", "error", *looped], check=True)
        once.unlink()


def bench_against_ffmpeg(
    ffmpeg: str, videos: dict[str, tuple[int, int]] = VIDEOS, rounds: int = 3
) -> dict[str, Any]:
    """Time the importer and FFmpeg's command, one after the other in alternating order.

    Call it in a process whose main module imports little: each of the importer's workers imports it anew.

    Args:
        ffmpeg: FFmpeg's program.
        videos: The number of videos and the seconds of each, by kind.
        rounds: The number of runs of both, for each kind.

    Returns:
        The versions of FFmpeg and of PyAV's own FFmpeg, and for each kind `times_as_fast` by the clock and `cpu_times_as_fast` by
        processor time: FFmpeg's over the importer's, with the seconds of each round. The start of the importer's workers
        and writing the dataset are counted; importing LeRobot is not.
    """
    import av

    from tools.speed.timing import ratio

    report: dict[str, Any] = {
        "ffmpeg_version": version_of(ffmpeg),
        "pyav_ffmpeg_version": av.ffmpeg_version_info,
        "kinds": {},
    }
    with on_two_cores(), tempfile.TemporaryDirectory() as folder:
        for kind, (count, seconds) in videos.items():
            source = Path(folder) / kind / "videos"
            frames = seconds * write_videos(source, kind, count, 1)
            repeat(ffmpeg, source, seconds)
            ours: list[dict[str, float]] = []
            theirs: list[dict[str, float]] = []
            for turn in range(rounds):
                place = source.with_name(str(turn))
                if turn % 2:
                    theirs.append(convert_folder(ffmpeg, source, place / "ffmpeg"))
                ours.append(import_folder(source, place / "import", workers=AT_A_TIME))
                if not turn % 2:
                    theirs.append(convert_folder(ffmpeg, source, place / "ffmpeg"))
            found: dict[str, Any] = {"source_frames": frames, "videos": count}
            for name, key in (("times_as_fast", "s"), ("cpu_times_as_fast", "cpu_s")):
                pair = [each[key] for each in theirs], [each[key] for each in ours]
                found |= {
                    name: ratio(*pair),
                    f"ffmpeg_{key}": rounded(pair[0]),
                    f"import_{key}": rounded(pair[1]),
                }
            report["kinds"][kind] = found
    return report


def ffmpeg_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table for a report of `bench_against_ffmpeg`."""
    return [
        row(f"{kind}: times as fast as FFmpeg's command{clock}", found[name], target=0.9, at_most=False)
        for kind, found in report["kinds"].items()
        for name, clock in (("cpu_times_as_fast", ", by processor time"), ("times_as_fast", ""))
    ]


def rounded(values: Sequence[float]) -> list[float]:
    """Seconds to the hundredth."""
    return [round(value, 2) for value in values]


def main() -> None:
    """Print the report as JSON.

    Raises:
        SystemExit: If there is no FFmpeg.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one kind, once: does it work?")
    quick = parser.parse_args().quick
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        raise SystemExit("FFmpeg is not on the PATH: install it, or the package imageio-ffmpeg.")
    report = bench_against_ffmpeg(ffmpeg, QUICK, rounds=1) if quick else bench_against_ffmpeg(ffmpeg)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
