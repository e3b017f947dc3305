"""The clips of a sample that are shown, real and imagined: as strips, as a film and in the Rerun viewer.

Letters: n shown clips, H latent actions, T = H + 1 frames, C h w.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.utils.import_utils import require_package
from torch import Tensor

from lawm_lerobot.inspection.sample import Sample
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.imagination import PLANNED, frame_titles, imagine_clip, telling_clips
from lawm_lerobot.policies.common.policy import LawmPolicy

SHOWN_CLIPS = 4
# Clips among which the shown ones are chosen.
CANDIDATES = 128
VIDEO_ROUNDS = 3
# Seconds for which a video rests on the last frame of a clip.
VIDEO_REST = 0.5
RECONSTRUCTED = "reconstructed"


@dataclass(frozen=True)
class Shown:
    """The clips in the pictures, as titled strips of frames (n,T,C,h,w) in [0, 1].

    Args:
        strips: Each clip, real and imagined from latents of its own.
        transfer: Each clip, imagined from the latents of another one.
        titles: The names of the T frames.
        frame_rate: The frames per second at which a clip plays as fast as it happened; five if nobody knows.
    """

    strips: dict[str, Tensor]
    transfer: dict[str, Tensor]
    titles: list[str]
    frame_rate: Fraction


@torch.no_grad()
def choose_shown(policy: LawmPolicy, sample: Sample) -> Shown:
    """Choose clips that move, each in its own way, and imagine them from their own and from another one's latents."""
    candidates = torch.arange(len(sample.frames))[:: -(-len(sample.frames) // CANDIDATES)]
    frames = sample.pixels(candidates)
    valid = torch.ones(frames.shape[0], frames.shape[1] - 1, dtype=torch.bool)
    inferred = sample.inferred[candidates]
    chosen, other = telling_clips(frames, valid, inferred.nan_to_num(0, 0, 0), SHOWN_CLIPS)
    real, first = frames[chosen], frames[chosen, 0]  # (n,T,C,h,w), (n,C,h,w)
    own = inferred[chosen]  # (n,H,Z)

    device = policy.config.device
    reconstructed = policy.pretraining.world_model.reconstruct(real.to(device), own.to(device))
    strips = {"real": real}
    if reconstructed is not None:
        strips[RECONSTRUCTED] = reconstructed.float().cpu()
    strips["imagined, own latents"] = imagine_clip(policy, first, own)
    if policy.config.latent_action.source != POLICY:
        strips[PLANNED] = imagine_clip(policy, first, sample.predicted[candidates][chosen])
    strips["copy of x_0"] = real[:, :1].expand_as(real)
    transfer = {
        "A, real": frames[other],
        "B, real": real,
        "B, imagined, B's latents": strips["imagined, own latents"],
        "B, imagined, A's latents": imagine_clip(policy, first, inferred[other]),
    }
    fps, stride = policy.config.dataset_fps, policy.config.latent_action.stride
    frame_rate = Fraction(fps).limit_denominator(1001) / stride if fps else Fraction(5)
    return Shown(strips, transfer, frame_titles(policy.config), frame_rate)


def write_video(strips: dict[str, Tensor], frame_rate: Fraction, file: Path) -> Path:
    """Write titled strips (n,T,C,h,w) as an MP4 film: one row per strip, one column per clip, side by side."""
    import av
    import cv2

    side = next(iter(strips.values())).shape[-1]
    zoom = max(1, 128 // side)
    margin, gap = 220, 4
    tile = side * zoom + gap
    clips, time = next(iter(strips.values())).shape[:2]
    height, width = len(strips) * tile, margin + clips * tile
    canvas = np.full((height + height % 2, width + width % 2, 3), 255, np.uint8)  # H.264 wants even sides
    for row, title in enumerate(strips):
        place, font = (4, row * tile + tile // 2), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(canvas, title, place, font, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    pictures: list[np.ndarray] = []
    for k in range(time):
        picture = canvas.copy()
        for row, frames in enumerate(strips.values()):
            for clip in range(clips):
                small = (frames[clip, k].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                large = small.repeat(zoom, 0).repeat(zoom, 1)
                top, left = row * tile, margin + clip * tile
                picture[top : top + large.shape[0], left : left + large.shape[1]] = large
        pictures.append(picture)
    rest = max(1, round(VIDEO_REST * frame_rate))
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libx264", rate=frame_rate, options={"crf": "18"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in (pictures + [pictures[-1]] * rest) * VIDEO_ROUNDS:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file


def require_rerun() -> None:
    """Raise ImportError, with what to install, unless Rerun is there."""
    require_package("rerun-sdk", extra="viz", import_name="rerun")


def show_in_rerun(sample: Sample, shown: Shown) -> None:
    """Open the viewer: the shown clips as strips over k, and the latents as a map of three components."""
    import rerun as rr
    from lerobot.utils.rerun_visualization import init_rerun

    init_rerun(session_name="lawm-inspect")
    entities: dict[tuple[str, ...], Tensor] = {(title,): frames for title, frames in shown.strips.items()}
    entities |= {("transfer", title): frames for title, frames in shown.transfer.items()}
    for path, frames in entities.items():
        for clip, strip in enumerate((frames.clamp(0, 1) * 255).to(torch.uint8)):
            for k, frame in enumerate(strip.permute(0, 2, 3, 1).numpy()):  # (T,h,w,C)
                rr.set_time("k", sequence=k)
                rr.log([f"clip {clip}", *path], rr.Image(frame))
    points, _ = sample.latent_map(3)  # (N*H,3)
    names = sorted(set(sample.tasks))
    classes = np.repeat([names.index(task) for task in sample.tasks], sample.inferred.shape[1])
    annotations = [rr.AnnotationInfo(id=index, label=name) for index, name in enumerate(names)]
    rr.log("latents", rr.AnnotationContext(annotations), static=True)
    rr.log("latents", rr.Points3D(points, class_ids=classes, radii=0.02), static=True)
