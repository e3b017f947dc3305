"""Saving and publishing as LeRobot 0.6.1 asks for them, and as the version after it does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lerobot.common import train_utils
from lerobot.policies.pretrained import PreTrainedPolicy
from safetensors.torch import load_file, save_file
from torch import nn

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.common.checkpointed import CheckpointedPolicy
from lawm_lerobot.policies.common.compat import is_main_process, is_sharded, publish_by_policy


class Saved(CheckpointedPolicy, PreTrainedPolicy):
    """The checkpoints of this plugin on a single weight."""

    name = "saved"
    config_class = LawmActConfig

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.tensor([3.0]))
        self.transfer_report = {"kept": ["weight"]}

    get_optim_params = reset = forward = predict_action_chunk = select_action = None  # type: ignore[assignment]


def without_gathered_weights(self: PreTrainedPolicy, save_directory: Path) -> None:
    LawmActConfig()._save_pretrained(save_directory)
    save_file(self.state_dict(), save_directory / "model.safetensors")


def with_gathered_weights(self: PreTrainedPolicy, save_directory: Path, state_dict: Any = None) -> None:
    LawmActConfig()._save_pretrained(save_directory)
    save_file(self.state_dict() if state_dict is None else state_dict, save_directory / "model.safetensors")


def test_checkpoints_are_saved_whether_or_not_lerobot_hands_over_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreTrainedPolicy, "_save_pretrained", without_gathered_weights)
    Saved()._save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["weight"].tolist() == [3.0]
    assert '"kept"' in (tmp_path / "transfer_report.json").read_text()
    monkeypatch.setattr(PreTrainedPolicy, "_save_pretrained", with_gathered_weights)
    Saved()._save_pretrained(tmp_path, state_dict={"weight": torch.tensor([4.0])})
    assert load_file(tmp_path / "model.safetensors")["weight"].tolist() == [4.0]


def test_policies_of_this_plugin_publish_themselves_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        train_utils,
        "publish_trained_model",
        lambda *args, **kwargs: calls.append(("LeRobot", args[1].name, kwargs["peft_model"])),
        raising=False,
    )
    publish_by_policy()
    publish_by_policy()  # once is enough
    ours, other = (
        LawmActConfig(repo_id="somebody/ours", private=True),
        SimpleNamespace(repo_id="somebody/other"),
    )

    def push(cfg: Any, **kwargs: Any) -> None:
        calls.append(("policy", cfg, kwargs))

    def processor(name: str) -> Any:
        return SimpleNamespace(push_to_hub=lambda repo_id, private: calls.append((name, repo_id, private)))

    policy = SimpleNamespace(config=ours, push_model_to_hub=push)
    processors = processor("pre"), processor("post")
    train_utils.publish_trained_model("cfg", policy, *processors, "meta")
    plain = SimpleNamespace(config=other, name="act")
    train_utils.publish_trained_model("cfg", plain, *processors, "meta", peft_model="adapters")
    assert calls == [
        ("policy", "cfg", {"peft_model": None, "dataset_meta": "meta"}),
        ("pre", "somebody/ours", True),
        ("post", "somebody/ours", True),
        ("LeRobot", "act", "adapters"),
    ]


def test_one_process_writes_and_has_all_weights() -> None:
    assert is_main_process()
    assert not is_sharded(Saved())
