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
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

FPS, SIZE = 10, 128


def scene(number: int, frames: int, height: int, width: int) -> np.ndarray:
    """A textured background with a moving camera and a moving object: (frames, height, width, 3) uint8."""
    generator = np.random.default_rng(number)
    wall = cv2.resize(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8), (width + 64, height + 64))
    grain = generator.integers(-6, 7, (height, width, 3), dtype=np.int16)
    images = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        shift = int(16 + 16 * np.sin(index / 20))
        picture = wall[shift : shift + height, shift : shift + width].astype(np.int16) + np.roll(
            grain, index, 1
        )
        images[index] = picture.clip(0, 255)
        cv2.circle(images[index], ((5 * index) % width, height // 2), height // 8, (220, 40, 40), -1)
    return images


def write_clips(folder: Path, kind: str, count: int, seconds: int) -> int:
    """Write source videos of one kind; returns how many frames they have together."""
    height, width, rate, codec, suffix, options = {
        # as Something-Something v2 hands them out
        "short_webm": (
            240,
            320,
            12,
            "libvpx-vp9",
            "webm",
            {"deadline": "realtime", "cpu-used": "8", "crf": "32"},
        ),
        "phone_720p": (720, 1280, 30, "libx264", "mp4", {"preset": "veryfast", "crf": "23"}),
        "camera_480p": (480, 640, 30, "libx264", "mp4", {"preset": "veryfast", "crf": "23"}),
    }[kind]
    folder.mkdir(parents=True)
    images = scene(0, seconds * rate, height, width)
    for number in range(count):
        if number:  # encoding is slow and not what is measured
            (folder / f"{number:03d}.{suffix}").write_bytes((folder / f"000.{suffix}").read_bytes())
            continue
        with av.open(str(folder / f"000.{suffix}"), "w") as container:
            stream: Any = container.add_stream(codec, rate=rate, options=options)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return count * seconds * rate


def lerobot_loop(folder: Path, root: Path, **create_options: Any) -> None:
    """The same dataset by LeRobot's create / add_frame / save_episode, with the same codec settings."""
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
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(entry.ru_utime + entry.ru_stime for entry in usage)


def bench_import(
    clips: dict[str, tuple[int, int]] | None = None, rounds: int = 3, workers: int = 2
) -> dict[str, Any]:
    """Source frames per second of the importer and of LeRobot's loop, one after the other on the same two cores.

    Call it in a process whose main module imports little, as that of `lawm-import-videos` does: each of the importer's
    workers imports it anew.

    Args:
        clips: kind -> (number of clips, seconds each); small by default.
        rounds: of both, for each kind.
        workers: processes of the importer.

    Returns:
        per kind: frames, medians of the seconds and frames per second of both, and `times_faster`, the `spread` of their
        ratio over the rounds. Start-up of the workers is counted; importing LeRobot is not, for either.
    """
    # Before the clock runs.
    import lerobot.datasets.lerobot_dataset  # noqa: F401

    import lawm_lerobot.importing.assembly  # noqa: F401
    import lawm_lerobot.importing.publishing  # noqa: F401
    import lawm_lerobot.importing.run  # noqa: F401
    from tools.speed.timing import ratio

    clips = clips or {"short_webm": (80, 4), "camera_480p": (40, 8), "phone_720p": (40, 8)}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    two = set(sorted(cores)[:2])
    report: dict[str, Any] = {"cores": len(two), "workers": workers, "fps": FPS, "size": SIZE, "kinds": {}}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, two)
    try:
        with tempfile.TemporaryDirectory() as place:
            for kind, (count, seconds) in clips.items():
                folder = Path(place) / kind / "clips"
                frames = write_clips(folder, kind, count, seconds)
                every = [one_round(folder, Path(place) / kind / str(turn), workers) for turn in range(rounds)]
                median = {key: float(np.median([found[key] for found in every])) for key in every[0]}
                report["kinds"][kind] = {
                    "source_frames": frames,
                    "episodes": count,
                    **{key: round(value, 2) for key, value in median.items()},
                    "import_frames_per_s": round(frames / median["import_s"]),
                    "lerobot_loop_frames_per_s": round(frames / median["lerobot_loop_s"]),
                    "times_faster": ratio(
                        [found["lerobot_loop_s"] for found in every], [found["import_s"] for found in every]
                    ),
                }
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
    return report


def one_round(clips: Path, place: Path, workers: int) -> dict[str, float]:
    """Wall and processor seconds of importing a folder of clips, and of LeRobot's loop over it.

    Raises:
        RuntimeError: If a clip is left out.
    """
    from lawm_lerobot.importing.config import ImportConfig
    from lawm_lerobot.importing.run import run_import
    from lawm_lerobot.importing.sources import FolderSource

    config = ImportConfig(
        repo_id="bench/import",
        root=place / "import",
        source=FolderSource(path=clips),
        fps=FPS,
        size=str(SIZE),
        workers=workers,
    )
    start, before = time.perf_counter(), cpu_seconds()
    with contextlib.redirect_stdout(io.StringIO()):
        summary = run_import(config)
    ours, ours_cpu = time.perf_counter() - start, cpu_seconds() - before
    if summary.episodes != len(list(clips.iterdir())):
        raise RuntimeError(f"{summary.episodes} episodes came of {len(list(clips.iterdir()))} clips.")
    start, before = time.perf_counter(), cpu_seconds()
    lerobot_loop(clips, place / "loop")
    return {
        "import_s": ours,
        "import_cpu_s": ours_cpu,
        "lerobot_loop_s": time.perf_counter() - start,
        "lerobot_loop_cpu_s": cpu_seconds() - before,
    }


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
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for size in sizes:
            images = scene(1, 300, size, size)
            for name, config in candidates.items():
                path = Path(place) / f"{size}-{len(rows)}.mp4"
                options = config.get_codec_options(encoder_threads=1, as_strings=True)
                settings = EncoderSettings(FPS, size, size, config.vcodec, config.pix_fmt, options)
                start = time.process_time()
                encoder = EpisodeEncoder(path, settings)
                for image in images:
                    encoder.add(image)
                encoder.close()
                row: dict[str, Any] = {
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
                    row[f"{backend}_ms"] = round(float(np.median(spent)) * 1000, 2)
                rows.append(row)
    return rows


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
