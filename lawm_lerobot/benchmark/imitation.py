"""The benchmark's imitation error: a finetuning run's error on demonstrations it never saw, checkpoint by checkpoint.

LeRobot's own ``eval_loss`` would not do: it is in units of each run's training statistics, which differ between arms
that train on different data, and it holds out episodes of the training dataset.
"""

import argparse
import json
from pathlib import Path

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION
from tqdm import tqdm

import lawm_lerobot.policies  # noqa: F401  registers the types for LeRobot's parser
from lawm_lerobot.benchmark.reading import read_by_column

TOLERANCE_S = 1e-4  # LeRobot's own default


@torch.no_grad()
def imitation_error(
    checkpoint: Path,
    repo_id: str,
    root: Path,
    device: str,
    batch_size: int = 32,
    tolerance_s: float = TOLERANCE_S,
) -> float:
    """Mean |a - a'| over the demonstrations' frames, the actions of a chunk and their dimensions, in action units."""
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.device, config.pretrained_path = device, checkpoint
    policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config).eval()
    preprocess, postprocess = make_pre_post_processors(
        config, str(checkpoint), preprocessor_overrides={"device_processor": {"device": device}}
    )
    deltas = resolve_delta_timestamps(config, LeRobotDatasetMetadata(repo_id, root=root))
    dataset = LeRobotDataset(repo_id, root=root, delta_timestamps=deltas, tolerance_s=tolerance_s)
    total, count = 0.0, 0
    for batch in torch.utils.data.DataLoader(dataset, batch_size=batch_size):
        truth, valid = batch[ACTION], ~batch[f"{ACTION}_is_pad"]  # (B,H,A), (B,H)
        policy.reset()
        actions = postprocess(policy.predict_action_chunk(preprocess(batch))).cpu()  # (B,H,A)
        length = actions.shape[1]  # some policies output fewer actions than they are trained on
        error = (actions - truth[:, :length]).abs()[valid[:, :length]]
        total, count = total + error.sum().item(), count + error.numel()
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser("imitation-error")
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--repo_id", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tolerance_s", type=float, default=TOLERANCE_S)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    read_by_column()
    folders = {int(path.name): path for path in args.checkpoints.iterdir() if path.name.isdigit()}
    steps = sorted(folders)
    errors = [
        imitation_error(
            folders[step] / "pretrained_model",
            args.repo_id,
            args.root,
            args.device,
            tolerance_s=args.tolerance_s,
        )
        for step in tqdm(steps, unit="checkpoint")
    ]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"steps": steps, "errors": errors}) + "\n")
