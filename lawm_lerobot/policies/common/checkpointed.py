"""The checkpoints of a ``lawm_*`` policy, as LeRobot asks the policy for them: loading, saving, adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lerobot.configs import PreTrainedConfig
from torch import Tensor

from lawm_lerobot.checkpoints.reading import load_weights
from lawm_lerobot.checkpoints.transfer import Reinitialise, Rule
from lawm_lerobot.files import read_json, write_json
from lawm_lerobot.hub.errors import hub_errors
from lawm_lerobot.policies.common.compat import is_main_process, is_sharded
from lawm_lerobot.policies.common.configuration import FINETUNE, LawmConfig
from lawm_lerobot.policies.common.loading import (
    HUB_OPTIONS,
    Source,
    decide,
    fresh_modules,
    load_strictly,
    require_saved,
    start_from,
    warn_of_going_on,
)

TRANSFER_REPORT = "transfer_report.json"
#: A checkpoint's file of what only going on with co-training needs.
COTRAINING_FILE = "cotraining.safetensors"

if TYPE_CHECKING:
    from lerobot.policies.pretrained import PreTrainedPolicy as _Mixin
else:
    _Mixin = object


class CheckpointedPolicy(_Mixin):
    """The half of `LawmPolicy` that speaks of checkpoints, mixed in front of a LeRobot policy.

    Args:
        transfer_report: The report on the tensors of the transfer that the policy came from, if it did.
    """

    config: LawmConfig
    transfer_report: dict[str, Any] | None = None
    _fresh_modules: frozenset[str] = frozenset()

    # --- what a policy's own wrapper adds -------------------------------------------------------------

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        """List the rules for what does not carry over unchanged from a checkpoint of another stage.

        ``source`` is the config that the checkpoint's network was built from: in pretraining a
        `LawmConfig.wrapped_config`, of a base the plain config. This policy's is ``self.config.wrapped_config()``.
        """
        raise NotImplementedError

    def base_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a plain checkpoint's tensors to the names of today, as the wrapped type's own loader does."""
        return weights

    def take_statistics(self, stats: dict[str, dict[str, Any]]) -> None:
        """Go on pretraining on a dataset of other statistics, by which images are normalised."""
        raise NotImplementedError

    def start_finetuning(self, source: Source | None, stats: dict[str, Any] | None, meta: Any) -> None:
        """Prepare a training of the ``finetune`` stage, with the weights of the checkpoint `source` in place."""
        raise NotImplementedError

    # --- loading and saving ---------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        allow_pretraining: bool = False,
        revision: str | None = None,
        strict: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Load a policy as LeRobot's `from_pretrained` does, aware of the two stages.

        The wrapped policy's own is not used: pi0's returns a policy with random weights where a file does not fit.

        Args:
            pretrained_name_or_path: The directory or the Hub id of the checkpoint.
            config: A config of the stage that is wanted: one of ``finetune`` on a pretraining checkpoint transfers its
                weights. It is changed in place, see `decide`.
            allow_pretraining: Load a pretraining checkpoint although no dataset says that this is for training; for
                looking into it, never for control.
            revision: The revision of the Hub repository.
            strict: Taken because LeRobot's `from_pretrained` has it; loading is always strict.
            kwargs: Further options of LeRobot's `from_pretrained`, and arguments of the constructor.

        Raises:
            PretrainingCheckpointError: If a pretraining checkpoint is loaded for control.
            ValueError: If the checkpoint is of another type, does not fit or is damaged.
            HubError: If the Hub does not hand it out.
        """
        hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        source = Source(str(pretrained_name_or_path), revision, hub_options)
        training = kwargs.get("dataset_meta") is not None
        config, built_from = decide(
            source, cls, config, training=training, allow_pretraining=allow_pretraining
        )
        with hub_errors(f"Loading {source.path}", "--policy.path"):
            policy = cls(config, load_base=False, **kwargs)
        if built_from is None:
            load_strictly(policy, source.weights_file())
            policy.transfer_report = read_json(Path(source.path) / TRANSFER_REPORT)
        else:
            policy.take_over(load_weights(source.weights_file()), built_from, source.name)
        policy.to(config.device)
        policy.eval()
        stats = kwargs.get("dataset_stats")
        if config.pretraining and stats is not None:
            policy.take_statistics(stats)
        if config.pretraining and training:
            warn_of_going_on(source, config, kwargs["dataset_meta"])
        elif training:
            policy.start_finetuning(source, stats, kwargs["dataset_meta"])
        return policy

    def take_over(self, weights: dict[str, Tensor], built_from: PreTrainedConfig, name: str) -> None:
        """Start from the weights of another stage's network, and remember the report on every tensor."""
        rules = [
            Reinitialise("pretraining.*", "world model and inverse dynamics serve pretraining only"),
            *self.transfer_rules(built_from),
        ]
        report = start_from(self, weights, rules, name)
        self.transfer_report = report.to_dict()
        self._fresh_modules = fresh_modules(self, report)

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        # LeRobot 0.6.1 hands over gathered weights; later versions gather them themselves and know no such argument.
        super()._save_pretrained(save_directory, **({} if state_dict is None else {"state_dict": state_dict}))
        if not is_main_process():
            return
        if self.transfer_report is not None:
            write_json(save_directory / TRANSFER_REPORT, self.transfer_report, indent=2)
        if state_dict is not None or not is_sharded(self):
            require_saved(save_directory, self.state_dict() if state_dict is None else state_dict)

    # --- adapters (--peft) ----------------------------------------------------------------------------

    def _validate_peft_config(self, peft_config: Any) -> None:
        if self.config.pretraining:
            raise ValueError(
                "Adapters (--peft) are for finetuning, because in pretraining the world model and the output layer "
                f"learn from scratch: leave out --peft, or pass --policy.stage={FINETUNE}."
            )
        super()._validate_peft_config(peft_config)

    def _build_peft_config(self, cli_overrides: dict[str, Any]) -> Any:
        """LeRobot's config of adapters, with all that transfer left fresh trained and saved in full.

        An adapter's checkpoint holds the adapters only; loading it repeats the transfer, which draws other random
        numbers for those modules.
        """
        peft_config = super()._build_peft_config(cli_overrides)
        if self._fresh_modules:
            peft_config.modules_to_save = sorted(self._fresh_modules.union(peft_config.modules_to_save or []))
        return peft_config
