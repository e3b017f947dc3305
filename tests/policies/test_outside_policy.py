"""A policy wrapped from outside the package goes through the suite of the package's own, by CONTRIBUTING's recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import helpers.outside_vqbet.configuration_lawm_vqbet as configuration
import pytest
from helpers.tiny_policies import Tiny
from test_every_policy import *  # noqa: F403
from test_every_policy import Kind, make_kind

del test_page_says_what_the_type_can_do  # noqa: F821  not a type of the page's

KEYPOINTS = (
    "ResNet's last map of an image of 32 pixels has a single one, of which the keypoints are always the same"
)


def make_vqbet(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return [
        "--policy.crop_shape=null",
        "--policy.use_group_norm=true",
        "--policy.pretrained_backbone_weights=null",
        "--policy.spatial_softmax_num_keypoints=4",
        "--policy.n_vqvae_training_steps=1",
        "--policy.vqvae_embedding_dim=8",
        "--policy.vqvae_enc_hidden_dim=8",
        "--policy.gpt_block_size=40",
        "--policy.gpt_input_dim=16",
        "--policy.gpt_output_dim=16",
        "--policy.gpt_hidden_dim=16",
        "--policy.gpt_n_layer=1",
        "--policy.gpt_n_head=2",
    ]


TINY_VQBET = Tiny(
    make_vqbet,
    chunk=("--policy.action_chunk_size=3", "--policy.n_action_pred_token=2"),
    cameras=("front",),
    without_gradient={
        "vqbet.rgb_encoder.backbone.*": KEYPOINTS,
        "vqbet.rgb_encoder.pool.*": KEYPOINTS,
        "vqbet.action_head.vqvae_model.*": "trained before the rest, and frozen then",
    },
)


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    with make_kind("vqbet", TINY_VQBET, tmp_path_factory.mktemp("vqbet")) as made:
        yield made


def test_wrapper_has_at_most_a_hundred_lines() -> None:
    files = Path(configuration.__file__).parent.glob("*.py")
    assert sum(len(file.read_text().splitlines()) for file in files) <= 100
