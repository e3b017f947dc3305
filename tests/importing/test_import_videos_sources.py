"""Each kind of source, in the layout its dataset is handed out in."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.video_fixtures import code_picture, read_code, write_video

from lawm_lerobot.importing.segments import LeftOut, Segment
from lawm_lerobot.importing.sources import (
    BridgeV2Source,
    Ego4DSource,
    EpicKitchensSource,
    LeRobotSource,
    SomethingSomethingV2Source,
    VideoSource,
)
from lawm_lerobot.scripts.lawm_import_videos import main

CAMERA = "observation.images.main"


def import_source(root: Path, *flags: str) -> tuple[list[dict], list[list[int]]]:
    """(provenance rows, frame numbers per episode) of an import."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from test_import_videos import pictures

    from lawm_lerobot.hub.provenance import read_provenance

    assert main(["--repo_id=me/set", f"--root={root}", "--size=64", "--workers=0", *flags]) == 0
    dataset = LeRobotDataset("me/set", root=root, video_backend="pyav")
    codes = [read_code(picture) for picture in pictures(dataset)]
    episodes = [codes[e["dataset_from_index"] : e["dataset_to_index"]] for e in dataset.meta.episodes]
    return read_provenance(root), episodes


def split(items) -> tuple[list[Segment], list[LeftOut]]:
    items = list(items)
    return [i for i in items if isinstance(i, Segment)], [i for i in items if isinstance(i, LeftOut)]


def test_something_something_v2(tmp_path):
    source = tmp_path / "ssv2"
    for number in ("78687", "42326"):
        write_video(
            source / "20bn-something-something-v2" / f"{number}.webm",
            36,
            12,
            codec="libvpx-vp9",
            first_index=int(number) % 1000,
        )
    (source / "labels").mkdir()
    entries = [
        {
            "id": "78687",
            "label": "holding potato next to vicks vaporub bottle",
            "template": "Holding [something] next to [something]",
            "placeholders": ["potato", "vicks vaporub bottle"],
        },
        {"id": "999", "label": "gone", "template": "Gone", "placeholders": []},
        {"id": "../42326", "label": "climbs", "template": "Climbs", "placeholders": []},
    ]
    (source / "labels" / "train.json").write_text(json.dumps(entries))
    (source / "something-something-v2-test.json").write_text(json.dumps([{"id": "42326"}]))
    rows, episodes = import_source(
        tmp_path / "out",
        "--source.type=something_something_v2",
        f"--source.path={source}",
        '--source.splits=["train","test"]',
        "--fps=12",
    )
    assert [(row["source_path"], row["caption"], row["caption_source"]) for row in rows] == [
        ("20bn-something-something-v2/78687.webm", entries[0]["label"], "label (train)"),
        ("20bn-something-something-v2/42326.webm", "", "none"),
    ]
    assert episodes == [list(range(687, 687 + 36)), list(range(326, 326 + 36))]
    reasons = [
        item["reason"] for item in json.loads((tmp_path / "out/import_summary.json").read_text())["left_out"]
    ]
    assert reasons == ["named in the labels but not there", "not a video id"]
    segments, _ = split(SomethingSomethingV2Source(path=source, caption="template").segments())
    assert segments[0].caption == "Holding something next to something"


EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)


def test_epic_kitchens(tmp_path):
    source = tmp_path / "epic"
    write_video(source / "P01" / "videos" / "P01_01.MP4".replace("MP4", "mp4"), 240, 30)
    (source / "P01" / "videos" / "P01_01.mp4").rename(source / "P01" / "videos" / "P01_01.MP4")
    (source / "annotations").mkdir()
    (source / "annotations" / "EPIC_100_train.csv").write_text(
        EPIC_HEADER
        + "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.50,00:00:02.50,8,202,open door,open,3,door,3,['door'],[3]\n"
        + "P01_01_1,P01,P01_01,00:00:02.629,00:00:03.00,00:00:07.25,262,370,turn on light,turn-on,6,light,114,\"['a', 'b']\",[114]\n"
        + "P02_07_1,P02,P02_07,00:00:02.629,00:00:03.00,00:00:07.25,262,370,wash,wash,6,cup,114,['cup'],[114]\n"
        + "P01_01_2,P01,P01_01,00:00:02.629,00:00:03.00,00:00:03.00,262,370,nothing,be,6,cup,114,['cup'],[114]\n"
        + "P01_01_3,P01,P01_01,00:00:02.629,00:00:03:10,00:00:04:05,262,370,nothing,be,6,cup,114,['cup'],[114]\n"
        + "x,../P01,../../etc,00:00:02.629,00:00:03.00,00:00:03.00,262,370,nothing,be,6,cup,114,['cup'],[114]\n"
    )
    rows, episodes = import_source(tmp_path / "out", "--source.type=epic_kitchens", f"--source.path={source}")
    assert [(row["caption"], row["start_s"]) for row in rows] == [("open door", 0.5), ("turn on light", 3.0)]
    assert episodes == [[15 + 3 * k for k in range(20)], [90 + 3 * k for k in range(43)]]
    _, left = split(EpicKitchensSource(path=source).segments())
    assert [item.reason for item in left] == [
        "named in the annotations but not there",
        "unusable time range",
        "unusable time range",
        "not a video id",
    ]


def test_ego4d(tmp_path):
    source = tmp_path / "ego4d"
    uid, missing = "000786a7-3f9d-4fe6-bfb3-045b368f7d44", "000a3525-6c98-4650-aaab-be7d2c7b9402"
    write_video(source / "v2" / "full_scale" / f"{uid}.mp4", 300, 30)
    manifest = {
        "date": "220830",
        "version": "v2",
        "videos": [
            {"video_uid": video, "duration_sec": 10.0, "scenarios": ["Cooking", "Cleaning"]}
            for video in (missing, uid)
        ],
    }
    (source / "ego4d.json").write_text(json.dumps(manifest))
    moments = [(2.0, "#C C picks a knife"), (6.0, "#O man X waves #unsure"), (9.0, "#C C cuts")]
    narration = {
        "narration_pass_1": {
            "narrations": [
                {
                    "timestamp_sec": t,
                    "timestamp_frame": int(t * 30),
                    "narration_text": text,
                    "annotation_uid": "a",
                }
                for t, text in moments
            ],
            "summaries": [],
        },
        "status": "complete",
    }
    (source / "v2" / "annotations").mkdir()
    (source / "v2" / "annotations" / "narration.json").write_text(json.dumps({"videos": {uid: narration}}))
    flags = ["--source.type=ego4d", f"--source.path={source}", "--source.clip_s=3"]
    rows, episodes = import_source(tmp_path / "out", *flags)
    assert [(row["caption"], row["start_s"]) for row in rows] == [
        ("C picks a knife", 0.5),
        ("man X waves", 4.5),
        ("C cuts", 7.5),
    ]
    assert [codes[0] for codes in episodes] == [15, 135, 225]
    assert [len(codes) for codes in episodes] == [30, 30, 25]  # the last one meets the end of the video
    for wrong in ("soon", None, float("inf"), -1.0):
        broken = {"timestamp_sec": wrong, "narration_text": "#C C looks"}
        narration["narration_pass_1"]["narrations"].append(broken)  # type: ignore[attr-defined, index]
    (source / "v2" / "annotations" / "narration.json").write_text(json.dumps({"videos": {uid: narration}}))
    segments, left = split(Ego4DSource(path=source, clip_s=3).segments())
    assert [segment.caption for segment in segments] == ["C picks a knife", "man X waves", "C cuts"]
    assert [item.reason for item in left[:-1]] == ["unusable time range"] * 4
    whole, left = split(Ego4DSource(path=source, narrations=False).segments())
    assert [segment.caption for segment in whole] == ["Cooking, Cleaning"]
    assert left[0].reason == "named in the manifest but not there"


def test_bridge_v2_never_opens_a_pickle(tmp_path):
    source = tmp_path / "bridge"
    raw = source / "rss" / "toykitchen2" / "set_table" / "00" / "2022-01-01_00-00-00" / "raw" / "traj_group0"
    for number in (0, 2, 10):
        trajectory = raw / f"traj{number}"
        for camera in (0, 1):
            (trajectory / f"images{camera}").mkdir(parents=True)
            for frame in range(12):  # im_10 must not come before im_2
                image = code_picture(100 * number + 50 * camera + frame, 96, 128)
                image = cv2.resize(
                    image[:, 16:112] * 0 + code_picture(100 * number + 50 * camera + frame, 96, 96), (96, 96)
                )
                cv2.imwrite(str(trajectory / f"images{camera}" / f"im_{frame}.jpg"), image[..., ::-1])
        for name in ("obs_dict.pkl", "policy_out.pkl", "agent_data.pkl"):
            # opening this would end the process: a pickle may do anything
            (trajectory / name).write_bytes(b"cos\n_exit\n(I3\ntR.")
        (trajectory / "lang.txt").write_text(f"put pot {number} on the stove\nconfidence: 0.9\n")
    (raw / "traj10" / "lang.txt").unlink()
    rows, episodes = import_source(
        tmp_path / "out",
        "--source.type=bridge_v2",
        f"--source.path={source}",
        "--source.cameras=[0,1]",
        "--fps=5",
    )
    assert [row["caption"] for row in rows] == ["put pot 0 on the stove"] * 2 + [
        "put pot 2 on the stove"
    ] * 2 + [""] * 2
    assert [codes[0] for codes in episodes] == [0, 50, 200, 250, 1000, 1050]
    assert all(codes == list(range(codes[0], codes[0] + 12)) for codes in episodes)
    _, left = split(BridgeV2Source(path=source, cameras=[3]).segments())
    assert {item.reason for item in left} == {"no such camera"}


@pytest.fixture(scope="module")
def robot_dataset(tmp_path_factory) -> dict[str, Path]:
    """The same robot recording with its pictures as videos and as images in the tables."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    roots = {}
    for kind in ("video", "image"):
        root = tmp_path_factory.mktemp("robot") / kind
        picture = {"dtype": kind, "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
        vector = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
        features = {"observation.images.top": picture, "observation.images.wrist": picture}
        dataset = LeRobotDataset.create(
            "me/robot",
            20,
            {**features, "observation.state": vector, "action": vector},
            root=root,
            use_videos=kind == "video",
        )
        for episode in range(2):
            for frame in range(40):
                number = 1000 * episode + frame
                dataset.add_frame(
                    {
                        "observation.images.top": code_picture(number),
                        "observation.images.wrist": code_picture(500 + number),
                        "observation.state": np.array([frame, episode], np.float32),
                        "action": np.array([frame + 0.5, episode], np.float32),
                        "task": f"task {episode}",
                    }
                )
            dataset.save_episode()
        dataset.finalize()
        roots[kind] = root
    return roots


@pytest.mark.parametrize("kind", ["video", "image"])
def test_another_lerobot_dataset(robot_dataset, tmp_path, kind):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    flags = ["--source.type=lerobot", f"--source.path={robot_dataset[kind]}", "--source.repo_id=me/robot"]
    rows, episodes = import_source(tmp_path / "out", *flags)
    assert [row["caption"] for row in rows] == ["task 0", "task 0", "task 1", "task 1"]
    assert "camera=observation.images.wrist" in rows[1]["source_path"]
    assert [codes[0] for codes in episodes] == [0, 500, 1000, 1500]
    assert all(codes == [codes[0] + 2 * k for k in range(20)] for codes in episodes)
    dataset = LeRobotDataset("me/set", root=tmp_path / "out")
    assert "action" not in dataset.meta.features and "observation.state" not in dataset.meta.features
    flags += [
        '--source.cameras=["observation.images.wrist"]',
        "--source.keep_actions=true",
        "--source.keep_state=true",
    ]
    rows, episodes = import_source(tmp_path / "labelled", *flags)
    dataset = LeRobotDataset("me/set", root=tmp_path / "labelled")
    assert dataset.meta.features["action"]["names"] == ["x", "y"]
    for index, codes in enumerate(episodes):
        for step, code in enumerate(codes):
            item = dataset.hf_dataset[index * 20 + step]
            frame = code - 500 - 1000 * index
            assert item["action"].tolist() == [frame + 0.5, index]
            assert item["observation.state"].tolist() == [frame, index]
    assert dataset.meta.stats["action"]["max"].tolist() == [38.5, 1.0]


def test_a_state_must_be_shared_by_all_sources(robot_dataset, tmp_path, capsys):
    write_video(tmp_path / "videos" / "a.mp4", 60, 30)
    config = tmp_path / "mixture.yaml"
    config.write_text(
        "repo_id: me/set\nworkers: 0\nsources:\n"
        f"  - {{type: lerobot, path: {robot_dataset['video']}, keep_state: true}}\n"
        f"  - {{type: folder, path: {tmp_path / 'videos'}}}\n"
    )
    assert main([f"--config_path={config}", f"--root={tmp_path / 'out'}"]) == 1
    assert "drop keep_state" in capsys.readouterr().err
    segments, _ = split(LeRobotSource(path=robot_dataset["video"], episodes=[1]).segments())
    assert [segment.extra["episode"] for segment in segments] == [1, 1]


def test_a_new_source_is_one_class(tmp_path):
    from dataclasses import dataclass

    @VideoSource.register_subclass("reversed_names")
    @dataclass
    class ReversedNames(VideoSource):
        def segments(self):
            for video in sorted(self.folder().glob("*.mp4")):
                yield self.segment(video, caption=video.stem[::-1], caption_source="its name, reversed")

    write_video(tmp_path / "videos" / "pool.mp4", 60, 30)
    rows, _ = import_source(
        tmp_path / "out", "--source.type=reversed_names", f"--source.path={tmp_path / 'videos'}"
    )
    assert rows[0]["caption"] == "loop"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs" / "import").glob("*.yaml")), ids=str
)
def test_the_configurations_are_read_by_the_real_parser(path):
    import draccus

    from lawm_lerobot.importing.config import ImportConfig

    config = draccus.parse(ImportConfig, config_path=path, args=[])
    config.check()
    assert config.sources
