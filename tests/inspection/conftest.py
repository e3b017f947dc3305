"""Four checkpoints with four fates, and a report on each."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.inspecting import TASKS, inspect
from helpers.training import pretrain
from torch import Tensor, nn

from lawm_lerobot.inspection.sample import whole_clips
from lawm_lerobot.method.inverse_dynamics import random_shift
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import (
    load_pretraining_checkpoint,
    open_clips,
    preprocessed_batches,
)

STEPS = 120


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspect")


@pytest.fixture(scope="session")
def video(root: Path) -> Path:
    return make_dataset(root / "video", lengths=(20,) * 10, tasks=TASKS)


@pytest.fixture(scope="session")
def fresh(root: Path, video: Path) -> Path:
    """A real checkpoint whose networks have hardly left their random start."""
    return pretrain(video, root / "fresh_run", steps=1).checkpoint()


def learn(policy: LawmPolicy, frames: Tensor, shared_shift: bool) -> LawmPolicy:
    """World model and inverse dynamics alone, on clips (N,T,C,h,w); the wrapped policy stays as it is.

    ``shared_shift`` lets the world model's targets be shifted as the inverse dynamics' input is.
    """
    policy = copy.deepcopy(policy)
    module = policy.pretraining.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    torch.manual_seed(0)
    for _ in range(STEPS):
        clip = frames[torch.randint(len(frames), (16,))]
        valid = torch.ones(clip.shape[0], clip.shape[1] - 1, dtype=torch.bool)
        if shared_shift:
            module.inverse_dynamics.random_shift = 0
            shifted = random_shift(clip, 4)
            latents = module.infer_latents(shifted, valid)
            clip = torch.cat([clip[:, :1], shifted[:, 1:]], 1)
        else:
            latents = module.infer_latents(clip, valid)
        loss = module.world_model(clip, latents + 0.1 * torch.randn_like(latents), valid).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.eval()


@pytest.fixture(scope="session")
def checkpoints(root: Path, fresh: Path, video: Path) -> dict[str, Path]:
    """By verdict."""
    policy, preprocessor = load_pretraining_checkpoint(fresh)
    dataset = open_clips(policy.config, "test/video", video)
    starts, _ = whole_clips(dataset.meta, policy.config)
    batches = preprocessed_batches(dataset, starts.tolist(), preprocessor)
    frames = torch.cat([policy.clip(batch).frames for batch in batches])

    healthy = learn(policy, frames, shared_shift=False)
    collapsed, ignored = copy.deepcopy(healthy), copy.deepcopy(healthy)
    nn.init.zeros_(collapsed.pretraining.inverse_dynamics.head[1].weight)
    nn.init.zeros_(ignored.pretraining.world_model.latent_in[0].weight)
    policies = {
        "healthy": healthy,
        "collapsed": collapsed,
        "ignored": ignored,
        "codes the augmentation": learn(policy, frames, shared_shift=True),
    }
    for name, trained in policies.items():
        shutil.copytree(fresh, root / name)
        trained.save_pretrained(root / name)
    return {name: root / name for name in policies}


@pytest.fixture(scope="session")
def reports(checkpoints: dict[str, Path], video: Path, root: Path) -> dict[str, Path]:
    directories = {name: root / f"report of {name}" for name in checkpoints}
    for name, checkpoint in checkpoints.items():
        inspect(checkpoint, video, directories[name], "--clips=64")
    return directories
