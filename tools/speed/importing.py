"""Speed of `lawm-import-videos`, measured against LeRobot's own recording loop, and of reading what it writes.

    python -m tools.speed.importing            # import against create / add_frame / save_episode
    python -m tools.speed.importing --codecs   # processor ms per clip of 9 frames, by codec and size

Both print JSON. `make bench` runs the first.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tools.speed.fixtures import scene, write_videos
from tools.speed.table import row

FPS, SIZE = 10, 128


def lerobot_loop(folder: Path, root: Path, **create_options: Any) -> None:
    """Make the same dataset by LeRobot's create / add_frame / save_episode, with the same codec settings."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from lawm_lerobot.importing.encoding import EncoderOptions, lerobot_encoder

    camera = "observation.images.main"
    features = {
        camera: {"dtype": "video", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    }
    encoder = lerobot_encoder(EncoderOptions())
    dataset = LeRobotDataset.create(
        "bench/loop", FPS, features, root=root, rgb_encoder=encoder, **create_options
    )
    for path in sorted(folder.iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"  # both cores: the loop has nothing else to use them for
            due = 0
            for frame in container.decode(stream):
                if frame.time is None or frame.time + 1e-6 < due / FPS:
                    continue
                image: np.ndarray = frame.to_ndarray(format="rgb24")
                height, width = image.shape[:2]
                side = min(height, width)
                top, left = (height - side) // 2, (width - side) // 2
                image = cv2.resize(
                    image[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA
                )
                dataset.add_frame({camera: image, "task": ""})
                due += 1
        dataset.save_episode()
    dataset.finalize()


def cpu_seconds() -> float:
    """Processor time of this process and its finished children; unlike wall time, neighbours do not change it much."""
    usage = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(entry.ru_utime + entry.ru_stime for entry in usage)


@contextlib.contextmanager
def on_two_cores() -> Iterator[int]:
    """Keep this process and those that it starts on two cores, with all imported that is not to be timed.

    Yields:
        The number of cores, 1 on a machine that has no second.
    """
    import lerobot.datasets.lerobot_dataset  # noqa: F401

    import lawm_lerobot.importing.assembly  # noqa: F401
    import lawm_lerobot.importing.publishing  # noqa: F401
    import lawm_lerobot.importing.run  # noqa: F401

    if not hasattr(os, "sched_setaffinity"):
        yield min(2, os.cpu_count() or 1)
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(cores)[:2]))
    try:
        yield len(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, cores)


def bench_import(
    videos: dict[str, tuple[int, int]] | None = None, rounds: int = 3, workers: int = 2
) -> dict[str, Any]:
    """Source frames per second of the importer and of LeRobot's loop, one after the other on the same two cores.

    Call it in a process whose main module imports little, as that of `lawm-import-videos` does: each of the importer's
    workers imports it anew.

    Args:
        videos: The number of videos and the seconds of each, by kind; some of every kind by default.
        rounds: The number of runs of both, for each kind.
        workers: The number of the importer's processes.

    Returns:
        For each kind: frames, medians of the seconds and frames per second of both, `times_faster`, the `spread` of their
        ratio over the rounds, and `decoding_cpu_s`, the time of the importer's decoder alone. Start-up of the workers is
        counted; importing LeRobot is not, for either.
    """
    from tools.speed.timing import ratio

    videos = videos or {"short_webm": (80, 4), "camera_480p": (40, 8), "phone_720p": (40, 8)}
    report: dict[str, Any] = {"workers": workers, "fps": FPS, "size": SIZE, "kinds": {}}
    with on_two_cores() as report["cores"], tempfile.TemporaryDirectory() as place:
        for kind, (count, seconds) in videos.items():
            folder = Path(place) / kind / "videos"
            frames = write_videos(folder, kind, count, seconds)
            every = [one_round(folder, Path(place) / kind / str(turn), workers) for turn in range(rounds)]
            median = {key: float(np.median([found[key] for found in every])) for key in every[0]}
            report["kinds"][kind] = {
                "source_frames": frames,
                "episodes": count,
                **{key: round(value, 2) for key, value in median.items()},
                "decoding_cpu_s": round(decoding_cpu_s(folder), 2),
                "import_frames_per_s": round(frames / median["import_s"]),
                "lerobot_loop_frames_per_s": round(frames / median["lerobot_loop_s"]),
                "times_faster": ratio(
                    [found["lerobot_loop_s"] for found in every], [found["import_s"] for found in every]
                ),
            }
    return report


def import_folder(videos: Path, root: Path, workers: int) -> dict[str, float]:
    """Wall and processor seconds of importing a folder of videos into the dataset ``root``.

    Raises:
        RuntimeError: If a video is left out.
    """
    from lawm_lerobot.importing.config import ImportConfig
    from lawm_lerobot.importing.run import run_import
    from lawm_lerobot.importing.sources import FolderSource

    source = FolderSource(path=videos)
    config = ImportConfig("bench/import", root, source, fps=FPS, size=str(SIZE), workers=workers)
    start, before = time.perf_counter(), cpu_seconds()
    with contextlib.redirect_stdout(io.StringIO()):
        summary = run_import(config)
    seconds = {"s": time.perf_counter() - start, "cpu_s": cpu_seconds() - before}
    if summary.episodes != len(list(videos.iterdir())):
        raise RuntimeError(f"{summary.episodes} episodes came of {len(list(videos.iterdir()))} videos.")
    return seconds


def one_round(videos: Path, place: Path, workers: int) -> dict[str, float]:
    """Wall and processor seconds of importing a folder of videos, and of LeRobot's loop over it."""
    ours = import_folder(videos, place / "import", workers)
    start, before = time.perf_counter(), cpu_seconds()
    lerobot_loop(videos, place / "loop")
    return {
        "import_s": ours["s"],
        "import_cpu_s": ours["cpu_s"],
        "lerobot_loop_s": time.perf_counter() - start,
        "lerobot_loop_cpu_s": cpu_seconds() - before,
    }


def decoding_cpu_s(videos: Path) -> float:
    """Processor seconds of decoding a folder of videos as the importer does, and doing nothing with the frames."""
    from lawm_lerobot.importing.fitting import PictureMaker
    from lawm_lerobot.importing.footage.base import Reading
    from lawm_lerobot.importing.footage.video import VideoFile

    start = time.process_time()
    for path in sorted(videos.iterdir()):
        for _ in VideoFile(str(path)).frames(Reading(0.0, None, fps=FPS), PictureMaker(SIZE, SIZE, "crop")):
            pass
    return time.process_time() - start


def import_section(quick: bool, device: str) -> dict[str, Any]:
    """The section `import` of the speed report, which uses no GPU; against FFmpeg's command where there is one.

    The measurements run as programs of their own: the importer's workers import their main module, and not the bench's,
    which imports torch.
    """
    from tools.speed.against_ffmpeg import ffmpeg_rows, find_ffmpeg

    def report_of(module: str) -> dict[str, Any]:
        command = [sys.executable, "-m", module, *(["--quick"] if quick else [])]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)

    report = report_of("tools.speed.importing")
    report["ratios"] = [
        row(f"{kind}: times as fast as LeRobot's loop", found["times_faster"], target=4, at_most=False)
        for kind, found in report["kinds"].items()
    ]
    if find_ffmpeg() is None:
        print("No FFmpeg is installed: the import is not measured against its command.", file=sys.stderr)
        return report
    report["against_ffmpeg"] = report_of("tools.speed.against_ffmpeg")
    report["ratios"] += ffmpeg_rows(report["against_ffmpeg"])
    return report


def bench_codecs(sizes: tuple[int, ...] = (96, 128, 224), repeats: int = 40) -> list[dict[str, Any]]:
    """Processor milliseconds to read a clip of 9 frames from anywhere in a video, by codec, group and size."""
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets.video_utils import decode_video_frames

    from lawm_lerobot.importing.encoding import (
        EncoderOptions,
        EncoderSettings,
        EpisodeEncoder,
        lerobot_encoder,
    )

    def h264(g: int, **fields: Any) -> RGBEncoderConfig:
        return lerobot_encoder(EncoderOptions(g=g, **fields))

    candidates: dict[str, RGBEncoderConfig] = {
        "av1 g=2 (LeRobot's default)": RGBEncoderConfig(),
        "h264 g=2": h264(2, fast_decode=0),
        "h264 g=2 fastdecode": h264(2),
        "h264 g=2 fastdecode crf=28": h264(2, crf=28),
        "h264 g=10 fastdecode": h264(10),
        "h264 g=1 fastdecode": h264(1),
        "h264 g=30 fastdecode": h264(30),
    }
    backends = ["pyav"]
    with contextlib.suppress(Exception):
        import torchcodec.decoders  # noqa: F401

        backends.append("torchcodec")
    entries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for size in sizes:
            images = list(scene(1, 300, size, size))
            for name, config in candidates.items():
                path = Path(place) / f"{size}-{len(entries)}.mp4"
                options = config.get_codec_options(encoder_threads=1, as_strings=True)
                settings = EncoderSettings(FPS, size, size, config.vcodec, config.pix_fmt, options)
                start = time.process_time()
                encoder = EpisodeEncoder(path, settings)
                for image in images:
                    encoder.add(image)
                encoder.close()
                entry: dict[str, Any] = {
                    "size": size,
                    "codec": name,
                    "kB_per_s": round(path.stat().st_size / 1000 / (len(images) / FPS), 1),
                    "encode_ms_per_frame": round((time.process_time() - start) * 1000 / len(images), 2),
                }
                generator = np.random.default_rng(0)
                starts = generator.integers(0, len(images) - 9, repeats)
                for backend in backends:
                    spent = []
                    for first in starts:
                        stamps = [float(first + k) / FPS for k in range(9)]
                        begin = time.process_time()  # busy neighbours change the wall time
                        decode_video_frames(path, stamps, 1e-3, backend)
                        spent.append(time.process_time() - begin)
                    entry[f"{backend}_ms"] = round(float(np.median(spent)) * 1000, 2)
                entries.append(entry)
    return entries


def main() -> None:
    """Print one of the two reports as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codecs", action="store_true", help="measure reading instead of importing")
    parser.add_argument("--quick", action="store_true", help="import few clips, once: does it work?")
    arguments = parser.parse_args()
    if arguments.codecs:
        report: Any = bench_codecs()
    else:
        report = bench_import({"short_webm": (8, 2)}, rounds=1) if arguments.quick else bench_import()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
