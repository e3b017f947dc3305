"""The policy that a finetuned policy trains along in co-training: the same network, with latents for actions.

It is built by the wrapped policy's own constructor for a chunk of latents, and then given the finetuned policy's very
parameters wherever those do not depend on what an action is. What takes or gives actions, and the positions in their
chunk, it has for itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from lawm_lerobot.checkpoints.transfer import InterpolateRows, OtherActions, Reinitialise, rule_for
from lawm_lerobot.policies.common.configuration import FINETUNE, PRETRAIN, LawmConfig
from lawm_lerobot.policies.common.loading import drop_backbone_weights

if TYPE_CHECKING:
    from lawm_lerobot.policies.common.policy import LawmPolicy


def pretraining_view(config: LawmConfig) -> LawmConfig:
    """The config of a pretraining on what the finetuned policy observes."""
    view = copy.copy(config)
    view.stage = PRETRAIN
    view.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (config.latent_action.dim,))}
    return view


def make_latent_twin(policy: LawmPolicy) -> tuple[LawmPolicy, dict[str, nn.Parameter]]:
    """Make the twin of a finetuned policy, and name the parameters that it does not share."""
    pretraining = pretraining_view(policy.config)
    config = copy.copy(pretraining.wrapped_config())
    config.stage = FINETUNE  # The wrapped network alone, without world model and inverse dynamics.
    drop_backbone_weights(config)
    if hasattr(config, "load_vlm_weights"):
        config.load_vlm_weights = False
    twin = type(policy)(config, load_base=False).to(policy.config.device)
    return twin, _share(twin, policy, pretraining)


def _share(twin: nn.Module, policy: LawmPolicy, pretraining: LawmConfig) -> dict[str, nn.Parameter]:
    rules = policy.transfer_rules(pretraining.wrapped_config())
    theirs: dict[str, Tensor] = {
        **dict(policy.named_parameters(remove_duplicate=False)),
        **dict(policy.named_buffers(remove_duplicate=False)),
    }
    own: dict[str, nn.Parameter] = {}
    for prefix, module in twin.named_modules(remove_duplicate=False):
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                name = f"{prefix}.{key}" if prefix else key
                shared = theirs.get(name)
                parameter = isinstance(tensor, nn.Parameter)
                # A parameter for the robot's state is shared, a constant that is made anew belongs to its network.
                apart = (OtherActions, InterpolateRows) if parameter else (Reinitialise, InterpolateRows)
                if tensor is None:
                    continue
                if (
                    shared is not None
                    and shared.shape == tensor.shape
                    and not isinstance(rule_for(name, rules), apart)
                ):
                    tensors[key] = shared
                elif parameter:
                    own[name] = tensor
    return own


class OwnParameters(nn.ParameterList):
    """The parameters of a twin that the policy does not share, held by the policy so that they are trained with it.

    They are no part of its state: a checkpoint keeps them in a file of their own, and its weights are those of the
    policy alone.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters.values())

    def state_dict(self, *args: object, destination: dict | None = None, **kwargs: object) -> dict:  # type: ignore[override]
        return {} if destination is None else destination
