"""`lawm-import-videos` from the outside: real videos in, a LeRobotDataset out, read back by LeRobot."""

from __future__ import annotations

import bisect
import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.video_fixtures import code_picture, read_code, rotate_mp4, write_video

from lawm_lerobot.scripts.lawm_import_videos import main

CAMERA = "observation.images.main"
FAST = ["--workers=0"]  # in this process: a spawned worker costs a second, which only some tests need


def run(source: Path, root: Path, *flags: str, status: int = 0) -> dict:
    """Import a folder and return the summary."""
    workers = [] if any(flag.startswith("--workers") for flag in flags) else FAST
    argv = ["--source.type=folder", f"--source.path={source}", "--repo_id=me/clips", f"--root={root}"]
    assert main([*argv, "--size=64", *workers, *flags]) == status
    if status:
        return {}
    return json.loads((root / "import_summary.json").read_text())


def load(root: Path, **options):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("me/clips", root=root, video_backend="pyav", **options)


def provenance(root: Path) -> list[dict]:
    from lawm_lerobot.hub.provenance import read_provenance

    return read_provenance(root)


def pictures(dataset) -> list[np.ndarray]:
    """Every frame of the dataset as (h, w, 3) uint8, read the way training reads it."""
    items = [dataset[index][CAMERA] for index in range(len(dataset))]
    return [(item.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for item in items]


def codes_by_path(root: Path) -> dict[str, list[list[int]]]:
    """Source path -> frame numbers read from the pictures, one list per episode."""
    dataset = load(root)
    shown = [read_code(picture) for picture in pictures(dataset)]
    result: dict[str, list[list[int]]] = {}
    for row, episode in zip(provenance(root), dataset.meta.episodes, strict=True):
        codes = shown[episode["dataset_from_index"] : episode["dataset_to_index"]]
        result.setdefault(row["source_path"], []).append(codes)
    return result


def expected_codes(times: list[float], start: float, count: int, fps: int = 10) -> list[int]:
    """Number of the last frame whose time is <= t, for t = start, start + 1 / fps, ..."""
    return [max(0, bisect.bisect_right(times, start + k / fps + 1e-6) - 1) for k in range(count)]


# ── the right frame at every timestamp ────────────────────────────────────────

CONSTANT = {  # name: (frame rate, options of write_video)
    "film_24.mp4": (24, {}),
    "pal_25.mov": (25, {"audio": True}),
    "ntsc_2997.mkv": (Fraction(30000, 1001), {}),
    "phone_30.mp4": (30, {"audio": True}),
    "action_60.mp4": (60, {}),
    "b_frames.mp4": (30, {"options": {"preset": "fast", "bf": "3", "crf": "18"}}),
    "vp9_24.webm": (24, {"codec": "libvpx-vp9"}),
    "vp9_sound.webm": (30, {"codec": "libvpx-vp9", "audio": True}),
    "h265.mp4": (25, {"codec": "libx265"}),
    "av1.mp4": (24, {"codec": "libsvtav1"}),
    "mjpeg.avi": (25, {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {"q": "3"}}),
    "mjpeg_odd.mov": (30, {"codec": "mjpeg", "pix_fmt": "yuvj444p", "height": 77, "width": 75}),
    "h264_10bit.mp4": (30, {"pix_fmt": "yuv420p10le"}),
    "h265_10bit.mkv": (24, {"codec": "libx265", "pix_fmt": "yuv420p10le"}),
    "yuv444_odd.mp4": (30, {"pix_fmt": "yuv444p", "height": 99, "width": 97}),
    "rgb_lossless.mkv": (25, {"codec": "ffv1", "pix_fmt": "bgr0", "height": 130, "width": 130}),
}
VARIABLE = ("vfr.mp4", "vfr.mkv")


def phone_times(frames: int, seed: int) -> list[float]:
    """Frame times of a phone in poor light: between 15 and 60 frames per second, and one long stall."""
    steps = np.random.default_rng(seed).uniform(1 / 60, 1 / 15, frames)
    steps[frames // 2] = 0.7
    return [round(float(t), 4) for t in np.cumsum(steps) - steps[0]]


@pytest.fixture(scope="module")
def formats(tmp_path_factory) -> tuple[Path, dict[str, list[float]]]:
    """One dataset made from a video of every kind, and the frame times of each video."""
    source, times = tmp_path_factory.mktemp("formats"), {}
    for name, (fps, options) in CONSTANT.items():
        frames = int(2 * fps)
        write_video(source / name, frames, fps, **options)
        times[name] = [float(i / Fraction(fps)) for i in range(frames)]
    for number, name in enumerate(VARIABLE):
        times[name] = phone_times(60, number)
        write_video(source / name, 60, 30, times=times[name])
    for degrees in (90, 180, 270):
        name = f"turned_{degrees}.mp4"

        def stored(index: int, height: int, width: int, quarter: int = degrees // 90) -> np.ndarray:
            return np.rot90(code_picture(index, height, width), quarter)  # the player turns it back

        rotate_mp4(write_video(source / name, 60, 30, height=80, width=80, picture=stored), degrees)
        times[name] = [i / 30 for i in range(60)]
    root = source.parent / "formats_out"
    summary = run(source, root)
    assert summary["episodes"] == len(times)
    assert summary["left_out"] == []
    return root, times


def test_every_frame_of_every_format_is_the_one_shown_at_its_time(formats):
    root, times = formats
    codes = codes_by_path(root)
    assert set(codes) == set(times)
    for name, stamps in times.items():
        (episode,) = codes[name]
        # mkv and webm keep milliseconds: there, a frame within one of t may be counted as before or after it
        blur = 1e-3 if name.endswith(("mkv", "webm")) else 0.0
        early = expected_codes([t + blur for t in stamps], 0.0, len(episode))
        late = expected_codes([t - blur for t in stamps], 0.0, len(episode))
        assert all(a <= code <= b for a, code, b in zip(early, episode, late, strict=True)), (name, episode)
        assert abs(len(episode) - (stamps[-1] + 1 / 30) * 10) <= 1.1, name


def test_segments_are_cut_where_the_captions_say(tmp_path):
    source = tmp_path / "videos"
    write_video(source / "long.mp4", 240, 30, options={"g": "48", "preset": "ultrafast", "crf": "18"})
    write_video(source / "other.webm", 96, 24, codec="libvpx-vp9")
    (source / "captions.csv").write_text(
        "path,caption,start,end\n"
        "long.mp4,reach,1.25,3.5\n"
        'long.mp4,"grasp, lift",5,7.05\n'
        "long.mp4,to the end,6.5,\n"
        "other.webm,all of it,,\n"
    )
    run(source, tmp_path / "out")
    rows = provenance(tmp_path / "out")
    codes = codes_by_path(tmp_path / "out")
    stamps = [i / 30 for i in range(240)]
    assert codes["long.mp4"] == [
        expected_codes(stamps, 1.25, 23),
        expected_codes(stamps, 5.0, 21),
        expected_codes(stamps, 6.5, 15),
    ]
    assert [row["caption"] for row in rows] == ["reach", "grasp, lift", "to the end", "all of it"]
    assert [row["start_s"] for row in rows] == pytest.approx([1.25, 5.0, 6.5, 0.0])
    assert all(row["caption_source"] == "captions.csv" for row in rows)
    dataset = load(tmp_path / "out")
    assert dataset[0]["task"] == "reach"


def test_long_videos_become_episodes_without_a_missing_or_repeated_frame(tmp_path, monkeypatch):
    monkeypatch.setattr("lawm_lerobot.importing.plan.WINDOW_S", 2.0)  # several windows, several seeks
    source = tmp_path / "videos"
    write_video(source / "long.mp4", 330, 30, options={"g": "75", "preset": "fast", "bf": "3", "crf": "18"})
    summary = run(source, tmp_path / "out", "--max_episode_s=2", "--min_episode_s=1.5")
    codes = codes_by_path(tmp_path / "out")["long.mp4"]
    assert summary["left_out"] == []
    assert [len(episode) for episode in codes] == [20] * 5  # 11 s: five of 2 s, and 1 s is too short
    assert sum(codes, []) == [3 * k for k in range(100)]
    assert summary["sources"][0]["seconds_under_min_episode_s"] == pytest.approx(1.0)


def test_pad_shows_everything_and_crop_fills(tmp_path):
    source = tmp_path / "videos"
    write_video(source / "wide.mp4", 45, 30, height=64, width=128)
    run(source, tmp_path / "pad", "--fit=pad")
    run(source, tmp_path / "crop", "--fit=crop")
    padded = pictures(load(tmp_path / "pad"))[5]
    assert padded.shape == (64, 64, 3)
    assert padded[:14].max() < 20 and padded[-14:].max() < 20
    assert read_code(padded[16:48]) == 15
    cropped = pictures(load(tmp_path / "crop"))[5]
    whole = code_picture(15, 64, 128)[:, 32:96]
    assert np.abs(cropped.astype(int) - whole).mean() < 12


def test_still_stretches_are_removed_on_request(tmp_path):
    source = tmp_path / "videos"

    def moves_then_rests(index: int, height: int, width: int) -> np.ndarray:
        step = index if index < 60 else 60 if index < 150 else index - 90
        image = np.zeros((height, width, 3), np.uint8)
        image[20:44, step % width : step % width + 20] = 255
        return image

    write_video(source / "rest.mp4", 240, 30, picture=moves_then_rests)
    assert run(source, tmp_path / "all")["frames"] == 80
    summary = run(source, tmp_path / "moving", "--min_motion=0.01")
    assert summary["episodes"] == 2
    assert 40 <= summary["frames"] <= 60
    removed = summary["sources"][0]["seconds_without_motion"]
    assert summary["frames"] / 10 + removed == pytest.approx(8.0)
    still = tmp_path / "still"
    write_video(still / "wall.mp4", 90, 30, picture=lambda i, h, w: np.full((h, w, 3), 90, np.uint8))
    main_status = main(
        [
            "--source.type=folder",
            f"--source.path={still}",
            "--repo_id=me/clips",
            f"--root={tmp_path / 'none'}",
        ]
        + ["--size=64", "--min_motion=0.01", *FAST]
    )
    assert main_status == 1 and not (tmp_path / "none").exists()


def test_colours_follow_the_matrix_and_range_the_file_names(tmp_path):
    import av

    from lawm_lerobot.importing.fitting import PictureMaker

    color = np.full((64, 64, 3), (200, 60, 20), np.uint8)
    for matrix, name in ((1, "itu709"), (5, "itu601")):
        for color_range in (1, 2):
            frame = av.VideoFrame.from_ndarray(color, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=name, src_color_range=2, dst_color_range=color_range
            )
            frame.colorspace, frame.color_range = matrix, color_range
            image = PictureMaker(32, 32, "crop").from_frame(frame, Fraction(1))
            assert np.abs(image[16, 16].astype(int) - color[0, 0]).max() <= 4, (
                name,
                color_range,
                image[16, 16],
            )


# ── piles with broken members ─────────────────────────────────────────────────


def claim_no_pixels(path: Path) -> Path:
    """An avi whose stream header claims 0 x 0, with a codec that knows no size of its own."""
    write_video(path, 30, 30, codec="ffv1", pix_fmt="bgr0")
    data = bytearray(path.read_bytes())
    header = data.index(b"strf") + 8
    data[header + 4 : header + 12] = bytes(8)
    path.write_bytes(bytes(data))
    return path


def break_a_pile(source: Path) -> dict[str, str]:
    """Fill a folder with everything that goes wrong; path -> start of the expected reason."""
    source.mkdir()
    good = write_video(source / "good.mp4", 60, 30)
    write_video(source / "ünï çødé 视频\nnew line.mp4", 60, 30)
    (source / "empty.mp4").write_bytes(b"")
    (source / "text.mp4").write_text("this is not a video\n" * 50)
    (source / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:2,\n{good}\n")
    (source / "concat.mkv").write_text(f"ffconcat version 1.0\nfile '{good}'\n")
    (source / "no_index.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    whole = write_video(source / "whole.mkv", 240, 30, options={"preset": "ultrafast", "crf": "10"})
    (source / "breaks_off.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    write_video(source / "one_frame.mp4", 1, 30)
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    no_frames = write_video(source / "no_frames.mp4", 2, 30, container_options=fragmented)
    data = no_frames.read_bytes()
    no_frames.write_bytes(data[: data.index(b"moof") - 4])  # a track description and no fragment
    write_video(source / "half_second.mp4", 15, 30)
    sound_only(source / "sound.mp4")
    claim_no_pixels(source / "no_pixels.avi")
    os.symlink("loop_b.mp4", source / "loop_a.mp4")
    os.symlink("loop_a.mp4", source / "loop_b.mp4")
    (source / "deeper").mkdir()
    os.symlink("..", source / "deeper" / "up")
    outside = write_video(source.parent / "outside.mp4", 60, 30)
    os.symlink(outside, source / "leads_out.mp4")
    (source / "captions.csv").write_text(
        "path,caption,start,end\n"
        "good.mp4,a good one,,\n"
        "missing.mp4,nobody home,,\n"
        "../outside.mp4,climbs out,,\n"
        f"{outside},absolute,,\n"
        "good.mp4,backwards,3,1\n"
        "good.mp4,too late,50,60\n"
    )
    return {
        "empty.mp4": "empty file",
        "text.mp4": "not a video",
        "playlist.mp4": "not a video",
        "concat.mkv": "not a video",
        "no_index.mp4": "cannot be opened",
        "breaks_off.mkv": "imported in part",
        "one_frame.mp4": "one frame only",
        "no_frames.mp4": "no frames",
        "half_second.mp4": "shorter than --min_episode_s",
        "sound.mp4": "no video stream",
        "no_pixels.avi": "claims an impossible picture size",
        "loop_a.mp4": "a loop of links",
        "loop_b.mp4": "a loop of links",
        "leads_out.mp4": "a link out of the folder",
        "missing.mp4": "named in captions.csv but not there",
        "../outside.mp4": "leads out of the source folder",
        str(outside): "leads out of the source folder",
        "good.mp4": "unusable time range",
        "good.mp4 [50.00-60.00 s]": "starts after the end of the video",
    }


def sound_only(path: Path) -> None:
    import av
    from helpers.video_fixtures import _write_sound

    with av.open(str(path), "w") as container:
        _write_sound(container, container.add_stream("aac", rate=48000), 2.0)


def test_a_pile_with_broken_members_gives_all_that_is_good_and_a_reason_for_the_rest(tmp_path):
    source = tmp_path / "pile"
    expected = break_a_pile(source)
    summary = run(source, tmp_path / "out")
    reasons = {item["path"]: item["reason"] for item in summary["left_out"]}
    assert set(reasons) == set(expected)
    for path, reason in expected.items():
        assert reasons[path].startswith(reason), (path, reasons[path])
    codes = codes_by_path(tmp_path / "out")
    assert set(codes) == {"good.mp4", "ünï çødé 视频\nnew line.mp4", "breaks_off.mkv"}
    assert codes["good.mp4"] == [[3 * k for k in range(20)]]
    (part,) = codes["breaks_off.mkv"]
    assert part == [3 * k for k in range(len(part))] and 10 < len(part) < 70
    assert not (tmp_path / "out.partial").exists()


def test_unreadable_files_are_named_as_such(tmp_path):
    """Root reads everything, so the check runs as another user where the tests run as root."""
    import subprocess
    import sys

    video = write_video(tmp_path / "secret.mp4", 30, 30)
    video.chmod(0)
    code = (
        "import os, sys; from lawm_lerobot.importing.footage.video import sniff_container, UnreadableVideoError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: sniff_container(sys.argv[1])\nexcept UnreadableVideoError as error: print(error.reason)"
    )
    repository = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code, str(video)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": repository},
    )
    assert result.stdout.strip() == "no read permission", result.stderr


def test_nothing_good_leaves_no_dataset_and_fails(tmp_path, capsys):
    source = tmp_path / "bad"
    source.mkdir()
    (source / "a.mp4").write_bytes(b"")
    (source / "b.webm").write_text("no")
    run(source, tmp_path / "out", status=1)
    assert "Nothing could be imported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    summary = json.loads((tmp_path / "out.import_summary.json").read_text())
    assert summary["left_out_by_reason"] == {"empty file": 1, "not a video": 1}


# ── what LeRobot makes of it ──────────────────────────────────────────────────


def lerobot_twin(root: Path, target: Path):
    """The same frames written with LeRobot's own create / add_frame / save_episode."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from lawm_lerobot.importing.encoding import EncoderOptions, lerobot_encoder

    ours = load(root)
    twin = LeRobotDataset.create(
        "me/clips",
        10,
        {CAMERA: ours.meta.features[CAMERA] | {"info": None}},
        root=target,
        rgb_encoder=lerobot_encoder(EncoderOptions()),
    )
    images = pictures(ours)
    for episode in ours.meta.episodes:
        for index in range(episode["dataset_from_index"], episode["dataset_to_index"]):
            twin.add_frame({CAMERA: images[index], "task": episode["tasks"][0]})
        twin.save_episode()
    twin.finalize()
    return LeRobotDataset("me/clips", root=target, video_backend="pyav")


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """A small dataset of two captioned folders."""
    source = tmp_path_factory.mktemp("clips")
    write_video(source / "pick_up" / "a.mp4", 60, 30, height=72, width=96)
    write_video(source / "pick_up" / "b.mp4", 45, 30, first_index=100)
    write_video(source / "put-down" / "c.webm", 48, 24, codec="libvpx-vp9", first_index=200)
    root = source.parent / "clips_out"
    run(source, root)
    return root


def test_the_files_are_those_that_lerobot_writes(imported, tmp_path):
    import pyarrow.parquet as pq

    ours, twin = load(imported), lerobot_twin(imported, tmp_path / "twin")
    written = {str(p.relative_to(tmp_path / "twin")) for p in (tmp_path / "twin").rglob("*") if p.is_file()}
    extra = {"README.md", "import_summary.json", "meta/lawm_provenance.parquet"}
    assert {str(p.relative_to(imported)) for p in imported.rglob("*") if p.is_file()} == written | extra
    data = "data/chunk-000/file-000.parquet"
    assert pq.read_schema(imported / data).equals(pq.read_schema(tmp_path / "twin" / data))
    assert pq.read_table(imported / data).equals(pq.read_table(tmp_path / "twin" / data))
    episodes = "meta/episodes/chunk-000/file-000.parquet"
    mine, theirs = pq.read_table(imported / episodes), pq.read_table(tmp_path / "twin" / episodes)
    assert {field.name: field.type for field in mine.schema} == {
        field.name: field.type for field in theirs.schema
    }
    assert mine.select(["tasks", "length", "dataset_to_index"]).equals(
        theirs.select(["tasks", "length", "dataset_to_index"])
    )
    assert ours.meta.info.to_dict() == twin.meta.info.to_dict()
    assert ours.meta.tasks.equals(twin.meta.tasks)
    for key, statistics in twin.meta.stats.items():
        for name, value in statistics.items():
            # theirs are of decoded pictures (compressed once more) and of sampled frames
            tolerance = 0.03 if key == CAMERA else 1e-6
            np.testing.assert_allclose(
                ours.meta.stats[key][name], value, atol=tolerance, err_msg=f"{key} {name}"
            )


def test_lerobot_tools_take_it(imported, tmp_path):
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, split_dataset

    dataset = load(imported)
    assert len(dataset) == dataset.meta.total_frames and dataset.meta.total_episodes == 3
    shorter = delete_episodes(dataset, [1], output_dir=tmp_path / "shorter", repo_id="me/shorter")
    assert shorter.meta.total_episodes == 2
    parts = split_dataset(load(imported), {"train": [0, 2], "val": [1]}, output_dir=tmp_path / "split")
    assert parts["val"].meta.total_episodes == 1
    merged = merge_datasets([dataset, shorter], output_repo_id="me/merged", output_dir=tmp_path / "merged")
    assert merged.meta.total_episodes == 5
    last = merged[len(merged) - 1][CAMERA].permute(1, 2, 0).numpy() * 255
    assert read_code(last) == read_code(pictures(dataset)[-1])


def test_lerobot_edit_dataset_takes_it_as_a_command(imported, tmp_path, monkeypatch):
    import sys

    from lerobot.scripts.lerobot_edit_dataset import main as edit_dataset

    argv = [
        "--repo_id=me/clips",
        f"--root={imported}",
        "--new_repo_id=me/fewer",
        f"--new_root={tmp_path / 'fewer'}",
    ]
    argv += ["--operation.type=delete_episodes", "--operation.episode_indices=[0]"]
    monkeypatch.setattr(sys, "argv", ["lerobot-edit-dataset", *argv])
    edit_dataset()
    info = json.loads((tmp_path / "fewer" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 2


def test_one_episode_loads_as_the_visualiser_loads_it(imported):
    import torch

    dataset = load(imported, episodes=[1], tolerance_s=1e-4)
    frames = list(torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=0))
    codes = [read_code(image.permute(1, 2, 0).numpy() * 255) for batch in frames for image in batch[CAMERA]]
    assert codes == [100 + 3 * k for k in range(15)]
    assert {task for batch in frames for task in batch["task"]} == {"pick up"}


def test_clips_of_frames_come_with_padding_past_the_end(imported):
    dataset = load(imported, delta_timestamps={CAMERA: [k / 10 for k in range(9)]})
    item = dataset[16]
    assert item[CAMERA].shape == (9, 3, 64, 64)
    assert item[f"{CAMERA}_is_pad"].tolist() == [False] * 4 + [True] * 5


def test_every_episode_has_its_origin(imported):
    rows = provenance(imported)
    assert [row["episode_index"] for row in rows] == [0, 1, 2]
    assert [row["source_path"] for row in rows] == ["pick_up/a.mp4", "pick_up/b.mp4", "put-down/c.webm"]
    assert [row["caption"] for row in rows] == ["pick up", "pick up", "put down"]
    assert {row["caption_source"] for row in rows} == {"folder name"}
    assert all(row["license_note"] for row in rows)
    assert rows[0]["start_s"] == 0 and rows[0]["end_s"] == pytest.approx(2.0)
    card = (imported / "README.md").read_text()
    assert "licence note" in card and "LeRobot" in card


def test_captions_from_text_files_and_jsonl(tmp_path):
    source = tmp_path / "videos"
    for name in ("a", "b", "c"):
        write_video(source / f"{name}.mp4", 45, 30)
    (source / "a.txt").write_text("open the\n drawer\n")
    (source / "b.mp4.txt").write_text("close it")
    (source / "more.jsonl").write_text(
        json.dumps({"path": "c.mp4", "caption": "wipe", "start": 0.2, "end": 1.4})
    )
    run(source, tmp_path / "out", "--source.captions=more.jsonl")
    rows = provenance(tmp_path / "out")
    assert [(row["caption"], row["caption_source"]) for row in rows] == [
        ("open the drawer", "text file"),
        ("close it", "text file"),
        ("wipe", "more.jsonl"),
    ]


# ── flags ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--size=65", "--size=65"),
        ("--fit=stretch", "--fit=stretch"),
        ("--fps=0", "--fps=0"),
        ("--repo_id=clips", "--repo_id=clips"),
        ("--camera=wrist", "--camera=wrist"),
        ("--min_episode_s=60", "--min_episode_s=60"),
        ("--min_episode_s=nan", "--min_episode_s=nan"),
        ("--max_episode_s=nan", "--max_episode_s=nan"),
        ("--max_episode_s=inf", "--max_episode_s=inf"),
        ("--min_motion=nan", "--min_motion=nan"),
        ("--source.max_hours=inf", "--source.max_hours=inf"),
        ("--source.weight=nan", "--source.weight=nan"),
        ("--shard.index=3", "--shard.index=3"),
        ("--source.max_hours=-1", "--source.max_hours=-1"),
        ("--encoder.vcodec=nonsense", "--encoder"),
    ],
)
def test_flags_that_cannot_work_are_named(tmp_path, capsys, flag, words):
    (tmp_path / "videos").mkdir()
    run(tmp_path / "videos", tmp_path / "out", flag, status=1)
    message = capsys.readouterr().err
    assert message.startswith("error: ") and words in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_existing_dataset_is_never_touched(imported, capsys):
    before = sorted((p, p.stat().st_mtime_ns) for p in imported.rglob("*"))
    run(imported.parent, imported, status=1)
    assert "exists already" in capsys.readouterr().err
    assert before == sorted((p, p.stat().st_mtime_ns) for p in imported.rglob("*"))


def test_a_dry_run_writes_nothing_and_says_what_would_come(tmp_path, capsys):
    source = tmp_path / "videos"
    for number in range(3):
        write_video(source / f"{number}.mp4", 75, 30, first_index=300 * number)
    (source / "bad.mp4").write_bytes(b"")
    argv = [
        "--source.type=folder",
        f"--source.path={source}",
        "--repo_id=me/clips",
        f"--root={tmp_path / 'out'}",
    ]
    argv += ["--size=64", *FAST, "--max_episode_s=1", "--min_episode_s=0.5"]
    before = sorted(tmp_path.rglob("*"))
    assert main([*argv, "--dry_run=true"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "Would import 9 episodes, 75 frames" in capsys.readouterr().out
    report = tmp_path / "report.json"
    assert main([*argv, "--dry_run=true", f"--summary_path={report}"]) == 0
    promised = json.loads(report.read_text())
    assert main(argv) == 0
    summary = json.loads((tmp_path / "out" / "import_summary.json").read_text())
    assert (promised["episodes"], promised["frames"]) == (summary["episodes"], summary["frames"])
    assert promised["left_out"] == summary["left_out"]
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "videos").rglob("*.mp4")) / 1e6
    assert promised["estimated_megabytes"] == pytest.approx(size, rel=0.5, abs=0.02)
    shutil.rmtree(tmp_path / "out")
