"""Inputs that people really have: clocks that jump, odd containers and tracks, captions written by hand."""

from __future__ import annotations

import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from helpers.video_fixtures import _write_sound, code_picture, write_video
from test_import_videos import codes_by_path, run
from test_import_videos_sources import import_source, split

from lawm_lerobot.importing.footage import VideoFile
from lawm_lerobot.importing.sources import BridgeV2Source, FolderSource, SomethingSomethingV2Source
from lawm_lerobot.importing.sources.base import seconds
from lawm_lerobot.scripts.lawm_import_videos import main

TWO_SECONDS = [i / 30 for i in range(60)]
FIRST, SECOND, THIRD = (list(range(start, start + 60, 3)) for start in (0, 60, 120))
JUMP = "its clock jumps, or pictures are missing"


def reasons(summary: dict) -> dict[str, str]:
    return {item["path"]: item["reason"] for item in summary["left_out"]}


def joined(path: Path, parts: int, **options: Any) -> Path:
    """Recordings of two seconds each, numbered on, one behind the other in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b""
    for part in range(parts):
        piece = write_video(
            path.parent.parent / f"part{part}{path.suffix}", 60, 30, first_index=60 * part, **options
        )
        data += piece.read_bytes()
    path.write_bytes(data)
    return path


def tracks(path: Path, *each: tuple[str, list[int]], default: int | None = None) -> Path:
    """A file with several video tracks of the given codecs and pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"default_mode": "passthrough"} if path.suffix == ".mkv" else {}
    with av.open(str(path), "w", options=options) as container:
        streams: list[Any] = []
        for number, (codec, _) in enumerate(each):
            stream: Any = container.add_stream(codec, rate=30)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if default is not None:
                stream.disposition = av.stream.Disposition.default.value if number == default else 0
            streams.append(stream)
        for stream, (_, numbers) in zip(streams, each, strict=True):
            for index, number in enumerate(numbers):
                frame = av.VideoFrame.from_ndarray(code_picture(number), format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode(None))
    return path


# ── clocks ────────────────────────────────────────────────────────────────────


def test_a_clock_that_jumps_ends_an_episode_and_repeats_nothing(tmp_path):
    times = TWO_SECONDS + [600 + t for t in TWO_SECONDS]
    video = write_video(tmp_path / "videos" / "a.mkv", 120, 30, times=times)
    assert VideoFile(str(video)).probe().duration_s == pytest.approx(4.0, abs=0.05)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"a.mkv": [FIRST, SECOND]}
    assert reasons(summary) == {"a.mkv": JUMP}
    assert "forward by 598.03 s after 1.97 s" in summary["left_out"][0]["detail"]


def test_a_last_picture_that_stands_for_minutes_is_shown_once(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 61, 30, times=[*TWO_SECONDS, 300.0])
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"a.mp4": [FIRST]}
    assert reasons(summary)["a.mp4"] == JUMP


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.ts", {}),
        ("a.avi", {}),
        ("b_frames.avi", {"options": {"bf": "2", "preset": "fast", "crf": "18"}}),
    ],
)
def test_recordings_joined_end_to_end_are_all_imported(tmp_path, name, options):
    joined(tmp_path / "videos" / name, 3, **options)
    summary = run(tmp_path / "videos", tmp_path / "out")
    listed = [item["reason"] for item in summary["left_out"]]
    if name == "a.webm":  # FFmpeg reads the first two
        assert codes_by_path(tmp_path / "out") == {name: [FIRST, SECOND]}
        assert listed == ["joined recordings", JUMP]
    else:
        assert codes_by_path(tmp_path / "out") == {name: [FIRST, SECOND, THIRD]}
        assert listed == [JUMP]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.ts", "a.avi"])
def test_windows_of_joined_recordings_lose_nothing(tmp_path, monkeypatch, name):
    """Long files are shared out in windows by the length that they claim, here that of the first recording."""
    monkeypatch.setattr("lawm_lerobot.importing.plan.WINDOW_S", 1.0)
    options = {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}
    chosen = {"a.mp4": options, "a.webm": {"codec": "libvpx-vp9"}}.get(name, {})
    joined(tmp_path / "videos" / name, 2, **chosen)
    run(tmp_path / "videos", tmp_path / "out", "--max_episode_s=1")
    halves = [part[at : at + 10] for part in (FIRST, SECOND) for at in (0, 10)]
    assert codes_by_path(tmp_path / "out") == {name: halves}


def test_a_recording_that_the_index_does_not_show_is_listed(tmp_path):
    joined(tmp_path / "videos" / "a.mp4", 2)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"a.mp4": [FIRST]}
    assert reasons(summary) == {"a.mp4": "joined recordings"}


def test_b_frames_in_avi_come_in_their_order(tmp_path):
    options = {"bf": "2", "preset": "fast", "crf": "18"}
    write_video(tmp_path / "videos" / "a.avi", 40, 10, options=options)
    run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"a.avi": [list(range(40))]}


# ── containers and tracks ─────────────────────────────────────────────────────


def test_whatever_ffmpeg_opens_is_video(tmp_path):
    source = tmp_path / "videos"
    formats: dict[str, dict[str, Any]] = {
        "a.mts": {},
        "a.m2ts": {},
        "a.ts": {},
        "a.3gp": {},
        "a.wmv": {"codec": "wmv2", "options": {"b": "4M"}},
        "a.flv": {"codec": "flv", "options": {"b": "4M"}},
        "a.mpg": {"codec": "mpeg2video", "options": {"b": "4M"}},
        "a.gif": {"codec": "gif", "pix_fmt": "rgb8"},
        "a.mp4.part": {"container": "a.mp4"},
        "camera_2.LRV": {"container": "a.mp4"},
    }
    for name, options in formats.items():
        made = source / options.pop("container", name)
        write_video(made, 50, 25, **options).rename(source / name)
    (source / "notes.txt").write_text("bring milk")
    summary = run(source, tmp_path / "out", "--source.folder_names=false", "--fps=5")
    codes = codes_by_path(tmp_path / "out")
    assert set(codes) == set(formats) - {"camera_2.LRV"}
    assert {name: found for name, found in codes.items() if found != [list(range(0, 50, 5))]} == {}
    assert reasons(summary) == {"camera_2.LRV": "a camera's small copy of another video"}


def test_the_track_that_moves_and_is_the_default_is_imported(tmp_path):
    source = tmp_path / "videos"
    tracks(source / "thumbnail.mp4", ("mjpeg", [4000]), ("libx264", list(range(60))))
    tracks(
        source / "angles.mkv", ("libx264", list(range(1000, 1060))), ("libx264", list(range(60))), default=1
    )
    summary = run(source, tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"angles.mkv": [FIRST], "thumbnail.mp4": [FIRST]}
    assert reasons(summary) == {"angles.mkv": "another video track"}


def test_grey_of_more_than_eight_bits_is_depth(tmp_path):
    write_video(tmp_path / "videos" / "depth.mkv", 60, 30, codec="ffv1", pix_fmt="gray16le")
    write_video(tmp_path / "videos" / "colour.mp4", 60, 30)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {"colour.mp4": [FIRST]}
    assert reasons(summary) == {"depth.mkv": "depth maps"}


# ── claims of containers ──────────────────────────────────────────────────────


def noisy(index: int, height: int, width: int) -> np.ndarray:
    """A picture that takes as many bytes as one of a camera."""
    noise = np.random.default_rng(index).integers(-8, 9, (height, width, 3))
    return (code_picture(index, height, width).astype(int) + noise).clip(0, 255).astype(np.uint8)


def claim(path: Path, seconds: float) -> Path:
    """Write another length into the header of an mkv."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 1000 * seconds)
    path.write_bytes(bytes(data))
    return path


def test_weights_go_by_decoded_lengths(tmp_path):
    for number in range(5):
        write_video(tmp_path / "true" / f"{number}.mp4", 60, 30)
    claimed = claim(
        write_video(tmp_path / "claims" / "a.mkv", 60, 30, options={"qp": "4"}, picture=noisy), 10.0
    )
    assert VideoFile(str(claimed)).probe().duration_s == pytest.approx(10.0, abs=0.1)
    live = write_video(
        tmp_path / "live" / "a.webm", 60, 30, codec="libvpx-vp9", container_options={"live": "1"}
    )
    assert VideoFile(str(live)).probe().duration_s is None
    for name in ("claims", "live"):
        config = tmp_path / f"{name}.yaml"
        config.write_text(
            "repo_id: me/set\nsize: 64\nworkers: 0\nsources:\n"
            + "".join(f"  - {{type: folder, path: {tmp_path / p}, weight: 1}}\n" for p in (name, "true"))
        )
        root = tmp_path / f"{name}_out"
        assert main([f"--config_path={config}", f"--root={root}"]) == 0
        summary = json.loads((root / "import_summary.json").read_text())
        assert [source["frames"] for source in summary["sources"]] == [20, 20], name
        assert summary["left_out"] == []


def test_a_whole_video_does_not_break_off(tmp_path):
    path = tmp_path / "videos" / "sound_goes_on.mkv"
    write_video(tmp_path / "videos" / "short.mp4", 60, 30)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48000)
        for index in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(code_picture(index), format="rgb24")))
        container.mux(stream.encode(None))
        _write_sound(container, sound, 20.0)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert codes_by_path(tmp_path / "out") == {path.name: [FIRST], "short.mp4": [FIRST]}
    assert summary["left_out"] == []


# ── captions ──────────────────────────────────────────────────────────────────


def segments_of(folder: Path) -> tuple[list[tuple], list[tuple[str, str]]]:
    found, left = split(FolderSource(path=folder).segments())
    return (
        [(s.relative_path, s.caption, s.start_s, s.end_s) for s in found],
        [(item.path, item.reason) for item in left],
    )


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("path, caption, start, end", ", "),
        ("path,caption,start_s,end_s", ","),
        ("Path;Caption;Start_Time;End_Time", ";"),
        ("file\tText\tSTART\tend\t", "\t"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_columns_of_a_caption_file_are_recognised(tmp_path, header, separator, encoding):
    (tmp_path / "a.mp4").write_bytes(b"x")
    rows = [("a.mp4", "pick", "0", "1"), ("a.mp4", "place it", "2", "3")]
    text = "\n".join([header, *(separator.join(row) for row in rows)]) + "\n"
    (tmp_path / "captions.csv").write_bytes(text.encode(encoding))
    assert segments_of(tmp_path) == ([("a.mp4", "pick", 0.0, 1.0), ("a.mp4", "place it", 2.0, 3.0)], [])


def folder_flags(folder: Path) -> list[str]:
    root = folder / "out"
    return ["--source.type=folder", f"--source.path={folder}", "--repo_id=me/x", f"--root={root}"]


@pytest.mark.parametrize("name", ["begin", "captoin", "start (s)"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_unknown_columns_are_refused(tmp_path, capsys, name, kind):
    line = json.dumps({"path": "a.mp4", "caption": "pick", name: 1})
    text = f"path,caption,{name}\na.mp4,pick,1\n" if kind == "csv" else line
    (tmp_path / f"captions.{kind}").write_text(text)
    assert main(folder_flags(tmp_path)) == 1
    error = capsys.readouterr().err
    assert repr(name) in error and "start_s" in error and "--source.captions" in error


def test_a_caption_file_in_another_encoding_is_refused(tmp_path, capsys):
    (tmp_path / "captions.csv").write_bytes("path,caption\na.mp4,café\n".encode("latin-1"))
    assert main(folder_flags(tmp_path)) == 1
    assert "save it as UTF-8" in capsys.readouterr().err


def test_a_wrong_row_keeps_its_video_out(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(b"x")
    (tmp_path / "captions.csv").write_text(
        "path,caption,start,end\na.mp4,pick,one,two\nb.mp4,pick up, then place,0,1\nc.mp4,good,0,1\nc.mp4,bad,5,1\n"
    )
    found, left = segments_of(tmp_path)
    assert found == [("c.mp4", "good", 0.0, 1.0)]
    assert left == [(f"{name}.mp4", "unusable time range") for name in ("a", "b", "c")]


def test_lines_of_json_are_read_as_rows_are(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(b"x")
    (tmp_path / "captions.jsonl").write_text(
        '{"Path ": "a.mp4", "Caption": "pick", "start_s": 1, "End": "2.5"}\n'
        '{"path": "b.mp4", "caption": "no time", "start": NaN}\n'
        '{"path": "c.mp4", "caption": "no end", "end": Infinity}\n'
    )
    assert segments_of(tmp_path) == (
        [("a.mp4", "pick", 1.0, 2.5)],
        [("b.mp4", "unusable time range"), ("c.mp4", "unusable time range")],
    )


def test_captions_reach_files_with_accents(tmp_path):
    for stem in ("é", "ö"):
        (tmp_path / f"{unicodedata.normalize('NFD', stem)}.mp4").write_bytes(b"x")
    (tmp_path / f"{unicodedata.normalize('NFC', 'ö')}.txt").write_bytes("öffnen".encode("utf-16"))
    (tmp_path / "captions.csv").write_text(f"path,caption\n{unicodedata.normalize('NFC', 'é')}.mp4,écrire\n")
    found, left = segments_of(tmp_path)
    assert [caption for _, caption, _, _ in found] == ["écrire", "öffnen"]
    assert left == []


def test_times_are_understood_or_refused():
    known = {"12.5": 12.5, 3: 3.0, "00:01:02.5": 62.5, "1:02,5": 62.5, "100:00": 6000.0, "": None, " 7 ": 7.0}
    assert {value: seconds(value) for value in known} == known
    for value in (
        "00:00:01:05",
        "00:00:01;05",
        "1:75",
        "1:75:00",
        "1_0",
        "nan",
        "-1",
        "1e3s",
        True,
        -2,
        "1:2.5:3",
        float("inf"),
        float("nan"),
    ):
        with pytest.raises(ValueError, match="is not a time|more than 59"):
            seconds(value)


# ── public datasets in other forms ────────────────────────────────────────────


def bridge(root: Path, trajectory: str, numbers: list[int]) -> None:
    images = root / "kitchen/00/raw/traj_group0" / trajectory / "images0"
    images.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(images / f"im_{number}.png"), np.ascontiguousarray(code_picture(number)[..., ::-1]))


def test_bridge_below_a_folder_of_any_name_with_gaps_in_time(tmp_path):
    root = tmp_path / "traj_data" / "traj1"
    bridge(root, "traj0", [*range(4, 10), *range(12, 16)])
    bridge(root, "traj1", [*range(8), *range(40, 48)])
    stray = root / "kitchen/00/raw/traj_group0/traj1/images0/im_²"
    stray.with_suffix(".png").write_bytes(b"no number")
    flags = ["--source.type=bridge_v2", f"--source.path={tmp_path / 'traj_data'}", "--fps=5"]
    rows, episodes = import_source(tmp_path / "out", *flags)
    # Pictures 10 and 11 are missing: picture 9 stands for them. After 32 missing ones an episode begins.
    expected = [[*range(4, 10), 9, 9, *range(12, 16)], list(range(8)), list(range(40, 48))]
    assert episodes == expected
    assert [row["start_s"] for row in rows] == [0.0, 0.0, 8.0]
    summary = json.loads((tmp_path / "out/import_summary.json").read_text())
    assert [item["detail"] for item in summary["left_out"]] == [
        "2 missing after picture 5",
        "32 missing after picture 7",
    ]
    (tmp_path / "traj_data/traj1/kitchen/00/raw/traj_group0/traj2").mkdir()
    _, left = split(BridgeV2Source(path=tmp_path / "traj_data").segments())
    assert [item.reason for item in left] == ["no such camera"]


def test_something_something_in_another_container(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "12.mp4").write_bytes(b"x")
    (tmp_path / "train.json").write_text(json.dumps([{"id": "12", "label": "lifts a cup"}]))
    found, left = split(SomethingSomethingV2Source(path=tmp_path).segments())
    assert [(segment.relative_path, segment.caption) for segment in found] == [
        ("videos/12.mp4", "lifts a cup")
    ]
    assert left == []


# ── other LeRobotDatasets ─────────────────────────────────────────────────────


def coded_dataset(root: Path, kinds: dict[str, tuple[int, ...]], lengths: tuple[int, ...] = (40, 40)) -> Path:
    """Videos of numbered pictures at 20 fps; the action is the picture's number."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features: dict[str, dict] = {
        key: {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
        for key, shape in kinds.items()
    }
    features["action"] = {"dtype": "float32", "shape": (1,), "names": ["number"]}
    dataset = LeRobotDataset.create("me/coded", 20, features, root=root, use_videos=True)
    number = 0
    for length in lengths:
        for _ in range(length):
            pictures = {key: code_picture(number) for key in kinds}
            dataset.add_frame({**pictures, "action": np.array([number], np.float32), "task": "go"})
            number += 1
        dataset.save_episode()
    dataset.finalize()
    return root


def import_actions(root: Path, *flags: str) -> list[int]:
    """The kept actions of an import, one after the other."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    _, episodes = import_source(root, "--source.type=lerobot", "--source.keep_actions=true", *flags)
    actions = [int(value) for value in LeRobotDataset("me/set", root=root).hf_dataset["action"]]
    assert actions == sum(episodes, [])  # as they were recorded with the pictures
    return actions


@pytest.mark.parametrize("drift_s", [-0.012, 0.012])
def test_frames_of_a_dataset_go_by_number(tmp_path, drift_s, capsys):
    """The start of an episode in the table is a sum of claimed lengths in datasets that LeRobot converted from v2.1."""
    import pandas as pd

    root = coded_dataset(tmp_path / "data", {"observation.images.top": (64, 64, 3)}, (40, 40, 40))
    (table,) = (root / "meta/episodes").rglob("*.parquet")
    episodes = pd.read_parquet(table)
    episodes["videos/observation.images.top/from_timestamp"] += np.array([0.0, drift_s, 1.5 * drift_s])
    episodes.to_parquet(table)
    flags = [f"--source.path={root}", "--fps=20"]
    assert import_actions(tmp_path / "out", *flags) == list(range(120))
    assert import_actions(tmp_path / "half", f"--source.path={root}") == list(range(0, 120, 2))
    # With LeRobot's tolerance only the first episode is where the table says that it is.
    capsys.readouterr()
    near = import_actions(tmp_path / "near", *flags, "--source.tolerance_s=1e-4")
    assert near == list(range(40))
    assert capsys.readouterr().out.count("by 0.01") == 2
    assert import_actions(tmp_path / "all", *flags, "--source.tolerance_s=0.02") == list(range(120))


def test_a_dataset_as_other_people_write_it(tmp_path, capsys):
    """A float for the frame rate, axes in another order, language columns; one action is no number."""
    from helpers.datasets_on_the_spot import add_language, change_column, described_otherwise

    def breaks(values: np.ndarray) -> None:
        values[45] = np.nan

    plain = coded_dataset(tmp_path / "plain", {"observation.images.top": (64, 64, 3)}, (40, 40, 40))
    camera = {"shape": [3, 64, 64], "names": ["channels", "height", "width"]}
    root = add_language(described_otherwise(plain, tmp_path / "root", camera, fps=20.0))
    change_column(root, "action", breaks)
    actions = import_actions(tmp_path / "out", f"--source.path={root}", "--fps=20")
    assert actions == [*range(40), *range(80, 120)]
    summary = json.loads((tmp_path / "out/import_summary.json").read_text())
    (left,) = summary["left_out"]
    assert (left["path"], left["reason"]) == ("episode=1", "a value that is not finite")
    assert left["detail"] == "action in frame 5"
    flags = ["--source.type=lerobot", f"--source.path={root}", "--repo_id=me/x"]
    assert main([*flags, f"--root={tmp_path / 'none'}", "--source.episodes=[0,3]"]) == 1
    assert "--source.episodes has 3, but" in capsys.readouterr().err


def test_rows_of_pictures_are_found_in_every_file(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features: dict[str, dict] = {
        "observation.images.top": {"dtype": "image", "shape": (64, 64, 3), "names": ["h", "w", "c"]},
        "action": {"dtype": "float32", "shape": (1,), "names": ["number"]},
    }
    made = LeRobotDataset.create("me/rows", 20, features, root=tmp_path / "rows", use_videos=False)
    made.meta.update_chunk_settings(data_files_size_in_mb=1e-3)  # type: ignore[arg-type]
    for number in range(80):
        made.add_frame(
            {
                "observation.images.top": code_picture(number),
                "action": np.array([number], np.float32),
                "task": "go",
            }
        )
        if number % 20 == 19:
            made.save_episode()
    made.finalize()
    assert len(list((tmp_path / "rows/data").rglob("*.parquet"))) > 1
    flags = [f"--source.path={tmp_path / 'rows'}", "--fps=20", "--source.episodes=[1,3]"]
    assert import_actions(tmp_path / "out", *flags) == [*range(20, 40), *range(60, 80)]


def test_depth_cameras_are_imported_only_by_name(tmp_path, capsys):
    colour, depth = "observation.images.top", "observation.images.depth"
    root = coded_dataset(tmp_path / "data", {colour: (64, 64, 3), depth: (64, 64, 3)})
    flags = ["--source.type=lerobot", f"--source.path={root}"]
    rows, _ = import_source(tmp_path / "out", *flags)
    assert [row["source_path"].split("camera=")[1] for row in rows] == [colour, colour]
    summary = json.loads((tmp_path / "out/import_summary.json").read_text())
    assert reasons(summary) == {depth: "a depth camera"}
    rows, _ = import_source(tmp_path / "named", *flags, f'--source.cameras=["{depth}"]')
    assert [row["source_path"].split("camera=")[1] for row in rows] == [depth, depth]
    only = coded_dataset(tmp_path / "only", {depth: (64, 64, 3)})
    assert (
        main(["--source.type=lerobot", f"--source.path={only}", "--repo_id=me/x", f"--root={tmp_path / 'x'}"])
        == 1
    )
    assert "--source.cameras" in capsys.readouterr().err
