"""Configuration shared by the vision-language-action policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from draccus.utils import ParsingError

from lawm_lerobot.policies.common.configuration import EMPTY_CAMERA, LawmConfig


@dataclass
class VLAConfig(LawmConfig):
    """The fields and rules of VLAs, mixed into a VLA's config: ``class LawmPI0FastConfig(VLAConfig, PI0FastConfig)``.

    In pretraining the VLA itself learns at its own ``optimizer_lr``, since it usually starts from published
    weights; world model and inverse dynamics learn at ``pretraining_lr``.
    """

    needs_state: ClassVar[bool] = True
    package_extra: ClassVar[str | None] = "vla"
    # Flags that convert the numbers of a particular robot, which pretraining has none of.
    robot_conversions: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pretraining:
            return
        for name in self.robot_conversions:
            if getattr(self, name):
                raise ParsingError(
                    f"{name} converts a robot's actions, and pretraining has none: give --policy.{name}=true "
                    "when finetuning (--policy.stage=finetune)."
                )

    def chunk_overrides(self) -> dict[str, Any]:
        horizon = self.latent_action.horizon
        return {"chunk_size": horizon, "n_action_steps": horizon}

    def set_dataset_feature_metadata(self, features: dict[str, dict]) -> None:
        super().set_dataset_feature_metadata(features)
        # The policies' constructors add their empty cameras to the config they are given, which in pretraining is
        # a view of this one.
        view = self.wrapped_config()
        view.validate_features()
        given = self.input_features or {}
        self.input_features = {
            key: ft for key, ft in view.input_features.items() if key in given or key.startswith(EMPTY_CAMERA)
        }


@dataclass
class FlowVLAConfig(VLAConfig):
    """The rules of VLAs whose chunk ends a flow: ``class LawmPI0Config(FlowVLAConfig, PI0Config)``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretraining and self.latent_action.dim > self.max_action_dim:
            raise ParsingError(
                f"latent_action.dim is {self.latent_action.dim}, expected at most max_action_dim = "
                f"{self.max_action_dim}, which latents are padded to: lower --policy.latent_action.dim."
            )
