"""Checkpoints of adapters (``lerobot-train --peft``): they hold what was trained, and name the rest."""

from __future__ import annotations

import copy
from pathlib import Path

from lerobot.policies import get_policy_class

from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.policy import LawmPolicy


def load_whole_policy(config: LawmConfig) -> LawmPolicy:
    """Load the policy at ``config.pretrained_path``, adapters merged into the weights that they were trained on.

    Args:
        config: The config of the checkpoint, which stays as it is.

    Raises:
        FileNotFoundError: If the adapters' base is not on this machine.
    """
    config = copy.deepcopy(config)
    path, revision = str(config.pretrained_path), config.pretrained_revision
    policy_class = get_policy_class(config.type)
    if not config.use_peft:
        return policy_class.from_pretrained(path, config=config, revision=revision)

    from peft import PeftConfig, PeftModel

    adapters = PeftConfig.from_pretrained(path, revision=revision)
    base = str(adapters.base_model_name_or_path)
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise FileNotFoundError(
            f"{path} holds adapters to {base}, which is not there: put that checkpoint back, or change "
            "base_model_name_or_path in adapter_config.json."
        )
    policy = policy_class.from_pretrained(base, config=config, revision=adapters.revision)
    adapted = PeftModel.from_pretrained(policy, path, config=adapters, revision=revision)
    config.use_peft = False
    return adapted.merge_and_unload()
