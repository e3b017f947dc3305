"""An inspection in the Rerun viewer, which LeRobot's users have for their robots."""

from __future__ import annotations

import numpy as np
import torch
from lerobot.utils.import_utils import require_package
from torch import Tensor

from lawm_lerobot.inspection.sample import Sample
from lawm_lerobot.inspection.shown import Shown


def require_rerun() -> None:
    """Raises ImportError, with what to install, unless Rerun is there."""
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
