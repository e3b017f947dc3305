"""The verdict on a dataset: findings, each one way in which it can harm a training, and the stride to take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from lerobot.utils.constants import ACTION

from lawm_lerobot.inspection.dataset.demonstrations import (
    CLIPPED,
    COPIED,
    CORRELATED,
    LATE_S,
    Demonstrations,
)
from lawm_lerobot.inspection.dataset.motion import DEFAULT_S, FAR_S, FAST_S, STILL, TIMES_S, Motion, runs
from lawm_lerobot.method.latent_action import LatentActionConfig, stride_frames

GOOD = "good"
IDLE_JOINT = "idle_joint"
CLIPPED_ACTIONS = "clipped_actions"
DUPLICATES = "duplicates"
CUTS = "cuts"
STILL_VIDEO = "still"
OUT_OF_STEP = "out_of_step"
COPIED_STATE = "copied_state"
WRONG_RATE = "wrong_rate"
#: From best to worst.
VERDICTS = (
    GOOD,
    IDLE_JOINT,
    CLIPPED_ACTIONS,
    DUPLICATES,
    CUTS,
    STILL_VIDEO,
    OUT_OF_STEP,
    COPIED_STATE,
    WRONG_RATE,
)

#: Share of the compared episodes, above which copies are worth a verdict.
COPIES = 0.1
#: Share of the clips of the default length in which a cut falls, above which cuts are.
CUT_CLIPS = 0.05
#: Share of the frames at which nothing moves, above which the video is still.
STILL_FRAMES = 0.5
#: Share of the frames with clear motion that repeat the one before, above which the frame rate is not the video's own.
REPEATED_FRAMES = 0.4
#: Share of what moves within a second that a latent action may span: beyond it things have left their places.
SPANNED = 0.8

HORIZON = LatentActionConfig().horizon


@dataclass(frozen=True)
class Stride:
    """The stride to take, and why.

    Args:
        seconds: The time that a latent action should span.
        frames: The same in frames of this dataset.
        spanned: The share of what moves within a second that has moved after `DEFAULT_S`; None where nothing moves.
        sentence: The advice in words.
    """

    seconds: float
    frames: int
    spanned: float | None
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """All that is said of a dataset.

    Args:
        verdict: The worst of the findings, one of `VERDICTS`.
        findings: For each thing that was found, a sentence with the numbers and with what to do.
        passed: For each thing that was looked for and not found, a sentence with the numbers.
        stride: The stride to take.
    """

    verdict: str
    findings: dict[str, str]
    passed: dict[str, str]
    stride: Stride


def judge(
    motions: Mapping[str, Motion],
    fps: float,
    episode_s: float,
    copies: tuple[int, list[tuple[int, int]]],
    demonstrations: Demonstrations | None,
) -> Verdict:
    """Say what the measures of a dataset mean.

    Args:
        motions: What moves, by camera.
        fps: The frames per second.
        episode_s: The median length of an episode in seconds.
        copies: How many episodes were compared, and each that is a copy of one before it, with that one.
        demonstrations: The measures of the numbers, if there are actions.
    """
    checks = {
        WRONG_RATE: _repeated(motions, fps),
        STILL_VIDEO: _still(motions, fps),
        CUTS: _cuts(motions, fps),
        DUPLICATES: _copies(*copies),
    }
    if demonstrations is not None:
        checks |= _demonstrations(demonstrations, fps)
    findings = {name: sentence for name, (failed, sentence) in checks.items() if failed}
    passed = {name: sentence for name, (failed, sentence) in checks.items() if not failed}
    worst = max(findings, key=VERDICTS.index, default=GOOD)
    return Verdict(worst, findings, passed, advise(motions, fps, episode_s))


def advise(motions: Mapping[str, Motion], fps: float, episode_s: float) -> Stride:
    """Advise `DEFAULT_S`, or `FAST_S` where things have left their places by then; no more than lets a clip fit.

    They have if more than `SPANNED` of what moves within a second has moved by then. A clip of the default horizon fits
    if it is no longer than the median episode.
    """
    moved = {seconds: _mean([motion.moved[seconds] for motion in motions.values()]) for seconds in TIMES_S}
    spanned = moved[DEFAULT_S] / moved[FAR_S] if moved[FAR_S] > STILL else None
    seconds = FAST_S if spanned is not None and spanned > SPANNED else DEFAULT_S
    if spanned is None:
        why = "the default, because too little moves to tell"
    else:
        how = "things move fast" if seconds == FAST_S else "the default"
        why = f"{how}, because {spanned:.0%} of what moves within a second has moved after {DEFAULT_S} s (fast above {SPANNED:.0%})"
    fitting = episode_s / HORIZON
    if fitting < seconds:
        seconds = max(fitting, 1 / fps)
        why = f"the median episode lasts {episode_s:.1f} s, into which a clip of {HORIZON} latent actions is to fit"
    frames = stride_frames(f"{seconds}s", fps)
    sentence = (
        f"--policy.latent_action.stride={seconds:.3g}s ({frames} frames at {fps:g} frames per second): {why}."
    )
    return Stride(round(seconds, 4), frames, spanned, sentence)


def _mean(parts: list[np.ndarray]) -> float:
    values = np.concatenate(parts)
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def _repeated(motions: Mapping[str, Motion], fps: float) -> tuple[bool, str]:
    shares = {
        camera: float(motion.repeated.sum() / clear)
        for camera, motion in motions.items()
        if (clear := motion.clear.sum())
    }
    if not shares:
        return False, "Whether frames are repeated cannot be told: nothing moves clearly."
    camera = max(shares, key=lambda name: shares[name])
    found = (
        f"Where things clearly move before {camera}, {shares[camera]:.0%} of the frames repeat the one before (wrong rate above "
        f"{REPEATED_FRAMES:.0%})"
    )
    if shares[camera] <= REPEATED_FRAMES:
        return False, f"{found}."
    own = fps * (1 - shares[camera])
    return True, (
        f"{found}: the video was taken at about {own:.0f} frames per second and written at {fps:g}. Import it again with "
        f"lawm-import-videos --fps={own:.0f}, or record at the camera's own rate."
    )


def _still(motions: Mapping[str, Motion], fps: float) -> tuple[bool, str]:
    first, *others = motions.values()
    # Still is what is still before every camera.
    still = (
        first.still & np.logical_and.reduce([motion.still for motion in others]) if others else first.still
    )
    known = (still | np.logical_or.reduce([motion.moving for motion in motions.values()])).sum()
    share = float(still.sum() / known) if known else math.nan
    if not known:
        return False, f"No episode lasts {DEFAULT_S} s, so pauses cannot be told."
    found = (
        f"In {share:.0%} of the frames nothing moves within {DEFAULT_S} s (still above {STILL_FRAMES:.0%})"
    )
    pauses = sorted(runs(first, still), key=lambda run: run.start - run.stop)
    if pauses:
        run = pauses[0]
        found += (
            f"; the longest pause is {(run.stop - run.start) / fps:.1f} s, in episode {first.episode[run.start]} from "
            f"{first.frame[run.start] / fps:.1f} s on"
        )
    if share <= STILL_FRAMES:
        return False, f"{found}."
    return True, f"{found}. Cut the pauses out, or turn the camera to where something happens."


def _cuts(motions: Mapping[str, Motion], fps: float) -> tuple[bool, str]:
    cut = np.logical_or.reduce([motion.cut for motion in motions.values()])
    motion = next(iter(motions.values()))
    clip_s = HORIZON * DEFAULT_S
    share = min(1.0, float(cut.sum() * clip_s * fps / len(cut)))
    found = (
        f"{int(cut.sum())} cuts within episodes were found, which fall into {share:.1%} of all clips of {clip_s:.1f} s "
        f"(cuts above {CUT_CLIPS:.0%})"
    )
    places = [
        f"episode {motion.episode[i]} at {(motion.frame[i] + 1) / fps:.1f} s" for i in np.flatnonzero(cut)[:3]
    ]
    if places:
        found += f", the first in {', '.join(places)}"
    if share <= CUT_CLIPS:
        return False, f"{found}."
    return (
        True,
        f"{found}. A latent action across a cut means nothing: import each shot as an episode of its own.",
    )


def _copies(compared: int, copies: list[tuple[int, int]]) -> tuple[bool, str]:
    share = len(copies) / max(compared, 1)
    found = f"Of {compared} episodes that were compared, {len(copies)} look like an earlier one (duplicates above {COPIES:.0%})"
    if copies:
        found += f", such as {', '.join(f'{copy} like {original}' for copy, original in copies[:3])}"
    if share <= COPIES:
        return False, f"{found}."
    return (
        True,
        f"{found}. They count several times, and leak into a held-out part: leave them out with --dataset.episodes.",
    )


def _demonstrations(found: Demonstrations, fps: float) -> dict[str, tuple[bool, str]]:
    idle = [f"{name} of {key}" for key, names in found.idle.items() for name in names]
    clipped = [f"{name} ({share:.0%})" for name, share in found.clipped.items()]
    checks = {
        IDLE_JOINT: (
            True,
            f"These never move: {', '.join(idle)}. If the joint is in use, check its motor and calibration.",
        )
        if idle
        else (False, "Every dimension of state and action moves."),
        CLIPPED_ACTIONS: (
            True,
            f"Actions stand at an end of their range while others move (clipped above {CLIPPED:.0%}): {', '.join(clipped)}. "
            "The policy cannot learn what was cut off: raise the limit in the recording, or calibrate again.",
        )
        if clipped
        else (False, f"No action stands at an end of its range in {CLIPPED:.0%} of the frames or more."),
    }
    if found.copied is not None:
        said = (
            f"In {found.copied:.0%} of the frames the {ACTION} equals the state (copied from {COPIED:.0%} on)"
        )
        checks[COPIED_STATE] = (
            (
                True,
                f"{said}: a policy learns to stay where it is. Record what was commanded, or the state a frame later.",
            )
            if found.copied >= COPIED
            else (False, f"{said}.")
        )
    for camera, step in found.steps.items():
        how = "after" if step.frames >= 0 else "before"
        said = (
            f"The pictures of {camera} change {abs(step.frames) / fps:.2f} s {how} the state does (out of step above {LATE_S} "
            f"s; correlation {step.correlation:.2f} there and {step.at_once:.2f} without a distance)"
        )
        if step.correlation < CORRELATED:
            said = (
                f"Whether the pictures of {camera} are in step with the state cannot be told: their changes correlate by no "
                f"more than {step.correlation:.2f} (told from {CORRELATED} on)"
            )
        if step.late(fps):
            checks[OUT_OF_STEP] = (
                True,
                f"{said}. Give cameras and arm a common clock, or shift one of them.",
            )
        elif OUT_OF_STEP not in checks:
            checks[OUT_OF_STEP] = (False, f"{said}.")
    return checks
