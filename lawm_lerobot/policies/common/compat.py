"""LeRobot 0.6.1 and the version after it, where they differ for this plugin: who publishes a trained policy.

0.6.1 asks the policy itself, by `push_model_to_hub`, in the main process. The next version calls a function of its own,
`publish_trained_model`, in every process; its commits would hold the paths of this machine and LeRobot's own card.
"""

import sys
from typing import Any

import torch.distributed as dist
from lerobot.common import train_utils
from torch import nn
from torch.distributed.tensor import DTensor

from lawm_lerobot.policies.common.configuration import LawmConfig


def is_main_process() -> bool:
    """True in the one process that writes and uploads."""
    return not dist.is_initialized() or dist.get_rank() == 0


def is_sharded(policy: nn.Module) -> bool:
    """True if no process has all of the weights."""
    return any(isinstance(parameter, DTensor) for parameter in policy.parameters())


def publish_by_policy() -> None:
    """Make the next LeRobot ask the policies of this plugin to publish themselves, as 0.6.1 does."""
    lerobots = getattr(train_utils, "publish_trained_model", None)
    if lerobots is None or hasattr(lerobots, "for_others"):
        return

    def publish(
        cfg: Any,
        model: Any,
        preprocessor: Any,
        postprocessor: Any,
        dataset_meta: Any,
        *,
        peft_model: Any = None,
    ) -> None:
        if not isinstance(model.config, LawmConfig):
            return lerobots(cfg, model, preprocessor, postprocessor, dataset_meta, peft_model=peft_model)
        model.push_model_to_hub(cfg, peft_model=peft_model, dataset_meta=dataset_meta)
        for processor in (preprocessor, postprocessor):
            processor.push_to_hub(model.config.repo_id, private=model.config.private)
        if dist.is_initialized():
            dist.barrier()

    publish.for_others = lerobots  # type: ignore[attr-defined]
    # The training command imports the function by name, and is `__main__` if it is run as a file or by `-m`.
    for name in ("lerobot.common.train_utils", "lerobot.scripts.lerobot_train", "__main__"):
        module = sys.modules.get(name)
        if getattr(module, "publish_trained_model", None) is lerobots:
            module.publish_trained_model = publish  # type: ignore[union-attr]
