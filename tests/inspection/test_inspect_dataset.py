"""`lawm-inspect` without a policy: datasets made to be good, or odd in one way, and what is said of each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets_on_the_spot import (
    change_column,
    column,
    film,
    make_dataset,
    square_path,
    write_episodes,
)
from helpers.training import run_command
from matplotlib.image import imread

from lawm_lerobot.inspection.dataset.demonstrations import clipped_shares, copied_share, find_idle
from lawm_lerobot.inspection.dataset.motion import find_cuts, find_repeated, take_stretches
from lawm_lerobot.method.latent_action import DEFAULT_STRIDE
from lawm_lerobot.scripts import lawm_inspect

SECONDS, FPS = 3.3, 30


def look(dataset: Path, output_dir: Path, *flags: str, code: int = 0) -> str:
    """Run `lawm-inspect` on a dataset alone; returns its log."""
    codes: list[int] = []
    log = run_command(
        lambda: codes.append(lawm_inspect.main()),
        f"--dataset.repo_id=test/{dataset.name}",
        f"--dataset.root={dataset}",
        f"--output_dir={output_dir}",
        *flags,
    )
    assert codes == [code], log
    return log


def report_of(folder: Path) -> dict[str, Any]:
    assert {file.name for file in folder.iterdir()} == {"dataset.md", "dataset.json", "dataset.png"}
    assert np.ptp(imread(folder / "dataset.png")) > 0.5
    return json.loads((folder / "dataset.json").read_text())


def pictures(*episodes: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"top": frames} for frames in episodes]


# --- video ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fps", "video", "frames"), [(10, False, 4), (30, True, 12), (80, True, 32)])
def test_good_video_is_good_and_advised_the_same_time_at_every_rate(
    fps: int, video: bool, frames: int, tmp_path: Path
) -> None:
    episodes = pictures(*(film(square_path(SECONDS, fps, seed), seed) for seed in range(2)))
    good = write_episodes(tmp_path / "good", episodes, fps, video)
    log = look(good, tmp_path / "report", "--require=good")
    found = report_of(tmp_path / "report")
    assert (found["verdict"], found["findings"]) == ("good", {})
    assert (found["stride"]["seconds"], found["stride"]["frames"]) == (0.4, frames)
    assert f"{found['stride']['seconds']}s" == DEFAULT_STRIDE
    assert found["stride"]["spanned"] == pytest.approx(0.62, abs=0.04)
    contents = found["contents"]
    assert (contents["fps"], contents["episodes"], contents["frames_read"]) == (fps, 2, 2 * SECONDS * fps)
    assert contents["cameras"] == {"observation.images.top": [3, 64, 64]}
    assert contents["tasks"] == {"push the square": 2}
    page = (tmp_path / "report" / "dataset.md").read_text()
    for said in (
        "test/good: good",
        f"--policy.latent_action.stride=0.4s ({frames} frames",
        "without actions",
    ):
        assert said in page, page
    assert str(tmp_path) not in page
    assert f"Dataset: good. The report is {tmp_path / 'report' / 'dataset.md'}" in log


def test_fast_motion_is_advised_less(tmp_path: Path) -> None:
    fast = pictures(film(square_path(4 * SECONDS, FPS, 0)[::4], 0))
    look(write_episodes(tmp_path / "fast", fast, FPS), tmp_path / "report")
    stride = report_of(tmp_path / "report")["stride"]
    assert (stride["seconds"], stride["frames"]) == (0.2, 6)
    assert "things move fast" in stride["sentence"]


def test_still_video(tmp_path: Path) -> None:
    path = square_path(SECONDS, FPS, 0)
    path[30:] = path[30]
    still = write_episodes(tmp_path / "still", pictures(film(path, 0), film(path, 1)), FPS)
    log = look(still, tmp_path / "report", "--require=cuts", code=1)
    assert "error: The verdict is still, expected cuts or better" in log
    found = report_of(tmp_path / "report")
    assert found["verdict"] == "still"
    assert "the longest pause is 1.9 s, in episode 0 from 1.0 s on" in found["findings"]["still"]
    assert list(found["findings"]) == ["still"]


def test_jump_cuts(tmp_path: Path) -> None:
    half = [square_path(SECONDS / 2, FPS, seed) for seed in range(4)]
    of_other_tables = np.concatenate([film(half[seed], seed) for seed in (0, 1)])
    of_other_moments = film(np.concatenate(half[2:]), 2)
    cuts = write_episodes(tmp_path / "cuts", pictures(of_other_tables, of_other_moments), FPS)
    look(cuts, tmp_path / "report")
    found = report_of(tmp_path / "report")
    assert list(found["findings"]) == [found["verdict"]] == ["cuts"]
    assert found["findings"]["cuts"].startswith("2 cuts within episodes")
    assert "the first in episode 0 at 1.7 s, episode 1 at 1.7 s." in found["findings"]["cuts"]


def test_frames_that_are_written_three_times(tmp_path: Path) -> None:
    episodes = [film(square_path(SECONDS, 10, seed), seed).repeat(3, axis=0) for seed in range(2)]
    wrong = write_episodes(tmp_path / "wrong", pictures(*episodes), FPS)
    log = look(wrong, tmp_path / "report")
    found = report_of(tmp_path / "report")
    assert list(found["findings"]) == [found["verdict"]] == ["wrong_rate"]
    assert "taken at about 10 frames per second and written at 30" in log
    assert "lawm-import-videos --fps=10" in log
    assert found["stride"]["seconds"] == 0.4


def test_episodes_that_look_alike_and_a_part_of_the_frames(tmp_path: Path) -> None:
    episodes = [film(square_path(SECONDS, 10, seed), seed) for seed in (0, 1)]
    again = film(square_path(SECONDS, 10, 0), 0, noise=3)
    other_end = square_path(SECONDS, 10, 1)
    other_end[20:] = 1 - other_end[20:]
    alike = write_episodes(tmp_path / "alike", pictures(*episodes, again, film(other_end, 1)), 10)
    look(alike, tmp_path / "report", "--frames=60")
    found = report_of(tmp_path / "report")
    assert found["verdict"] == "duplicates"
    assert "1 look like an earlier one" in found["findings"]["duplicates"]
    assert "such as 2 like 0." in found["findings"]["duplicates"]
    assert (found["contents"]["frames"], found["contents"]["frames_read"]) == (132, 33)


def test_stretches_hold_every_frame_once_or_are_spread() -> None:
    every = take_stretches([250, 40], 10, 10_000)
    assert [(s.episode, s.own) for s in every] == [
        (0, range(0, 83)),
        (0, range(83, 166)),
        (0, range(166, 250)),
        (1, range(0, 40)),
    ]
    assert [len(s.read) for s in every] == [93, 93, 84, 40]
    some = take_stretches([250] * 100, 10, 1000)
    assert sum(len(s.read) for s in some) <= 1000
    assert len({s.episode for s in some}) == len(some) == 11
    assert len(take_stretches([250] * 100, 10, 2)) == 1


def test_a_burst_of_motion_is_no_cut_and_a_pause_no_repeat() -> None:
    calm, rng = np.full(60, 0.001), np.random.default_rng(0)
    for length, cuts in ((1, 1), (2, 0), (4, 0)):
        moved = calm.copy()
        moved[30 : 30 + length] = 0.1
        assert find_cuts(moved, 30).sum() == cuts, length
    shaking = rng.uniform(0.02, 0.1, 300)
    assert not find_cuts(shaking, 30).any()
    most = np.full(90, 0.4)
    most[30:60] = 0.01
    clear, repeated = find_repeated(most, 30)
    assert clear.sum() > 60 and repeated.sum() <= 10
    assert not find_repeated(np.tile([0.1, 0.0], 45), 30)[0].any()  # a codec that leaves out slow motion


# --- demonstrations -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two joints move the square by uneven speeds, and a third something out of sight; actions lead by a frame."""
    episodes = []
    for seed in range(3):
        pace = np.random.default_rng(seed).uniform(0, 2, 12).repeat(10).cumsum() / FPS
        path = square_path(30, 100, seed)[(100 * pace).astype(int)]  # (120,2)
        joints = np.concatenate([path, np.sin(pace)[:, None] + 2], 1).astype(np.float32)
        action = np.concatenate([joints[1:], joints[-1:]]) + np.float32(0.001 * seed)
        episodes.append({"top": film(path, seed), "state": joints, "action": action})
    return write_episodes(tmp_path_factory.mktemp("demos") / "demos", episodes, FPS)


def hold(values: np.ndarray) -> None:
    values[:, 2] = 1


def clip(values: np.ndarray) -> None:
    values[:, 0] = np.minimum(values[:, 0], np.quantile(values[:, 0], 0.8))


def advance(values: np.ndarray) -> None:
    """Let the numbers of each of the three episodes come 12 frames early."""
    for episode in range(3):
        part = values[120 * episode : 120 * (episode + 1)]
        part[:-12] = part[12:].copy()


def test_good_demonstrations(demonstrations: Path, tmp_path: Path) -> None:
    look(demonstrations, tmp_path / "report", "--require=good")
    found = report_of(tmp_path / "report")
    assert (found["verdict"], found["findings"]) == ("good", {})
    assert "change 0.00 s after the state does" in found["passed"]["out_of_step"]
    assert found["contents"]["actions"]


def test_odd_demonstrations(demonstrations: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(demonstrations, tmp_path / "odd")
    change_column(odd, "observation.state", hold)
    change_column(odd, "observation.state", advance)
    change_column(odd, "action", clip)
    look(odd, tmp_path / "report")
    found = report_of(tmp_path / "report")
    assert found["verdict"] == "out_of_step"
    assert set(found["findings"]) == {"out_of_step", "clipped_actions", "idle_joint"}
    assert "change 0.40 s after the state does" in found["findings"]["out_of_step"]
    assert "never move: joint_2 of observation.state." in found["findings"]["idle_joint"]
    assert list(found["demonstrations"]["clipped"]) == ["joint_0"]


def test_actions_that_are_the_state(demonstrations: Path, tmp_path: Path) -> None:
    def copy(values: np.ndarray) -> None:
        values[:] = states

    copied = shutil.copytree(demonstrations, tmp_path / "copied")
    states = column(copied, "observation.state")
    look(change_column(copied, "action", copy), tmp_path / "report", "--require=out_of_step", code=1)
    assert report_of(tmp_path / "report")["verdict"] == "copied_state"


def test_what_is_clipped_and_what_is_not() -> None:
    rng = np.random.default_rng(0)
    free = np.cumsum(rng.normal(size=(400, 1)), 0)
    clipped = np.minimum(np.cumsum(rng.normal(size=(400, 1)), 0), 2)
    switch = (np.arange(400)[:, None] // 50) % 2
    shares = clipped_shares(np.concatenate([free, clipped, switch], 1), [400])
    assert shares[0] < 0.02 and shares[1] > 0.1 and shares[2] == 0
    # At home for a quarter of the time, at the end of its range, but with all else at rest.
    home = np.concatenate([np.zeros((100, 2)), np.abs(np.cumsum(rng.normal(size=(300, 2)), 0))])
    assert max(clipped_shares(home, [400])) < 0.05
    # What differs from one episode to the next does not move.
    held = np.array([[0, 1], [1, 0], [0.5, 0.5], [0.2, 0.3]]).repeat(10, axis=0)
    assert clipped_shares(held, [10, 20, 30, 40]) == [0, 0]


def test_dimensions_that_never_move_beside_others() -> None:
    values = np.random.default_rng(0).uniform(0, [90, 45, 0.3, 0], (50, 4))
    assert find_idle(values).tolist() == [False, False, True, True]
    assert find_idle(np.zeros((5, 2))).all()
    assert copied_share(values, values[:, :2]) is None
    assert copied_share(values, values + 1) == 0


# --- errors -----------------------------------------------------------------------------------------------


def test_flags_of_a_policy_and_datasets_that_show_nothing(tmp_path: Path) -> None:
    dataset, out = make_dataset(tmp_path / "video", lengths=(5,), video=False), tmp_path / "report"
    for flag, said in (
        ("--clips=8", "--clips means nothing"),
        ("--require=healthy", "expected one of good, idle_joint, "),
        ("--policy.device=cpu", "expected --policy.path"),
        ("--policy.type=lawm_act", "give --policy.path alone"),
    ):
        assert said in look(dataset, out, flag, code=2)
    blind = make_dataset(tmp_path / "blind", lengths=(5,), cameras=())
    assert "has no camera" in look(blind, out, code=1)
    assert not out.exists()
    # What is too short to measure says so.
    brief = make_dataset(tmp_path / "brief", lengths=(3, 1), video=False)
    look(brief, out)
    found = report_of(out)
    assert "No episode lasts 0.4 s" in found["passed"]["still"]
    assert found["stride"]["frames"] == 1
    assert "a clip of 8 latent actions is to fit" in found["stride"]["sentence"]
