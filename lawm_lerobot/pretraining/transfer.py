"""Weights from a pretraining checkpoint into a finetuning policy, tensor by tensor and loudly.

Every tensor of the target is kept, adapted (by what its rows mean) or re-initialised, for a reason that is
written down; every tensor of the source that is left behind has a reason too. Anything else is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

KEPT = "kept"
ADAPTED = "adapted"
REINITIALISED = "reinitialised"
DROPPED = "dropped"


@dataclass(frozen=True)
class Reinitialise:
    """Take the fresh policy's tensor, even where the shapes agree: its meaning has changed."""

    pattern: str
    reason: str

    def __call__(self, source: Tensor | None, target: Tensor) -> tuple[Tensor, str, str]:
        return target, REINITIALISED, self.reason


@dataclass(frozen=True)
class KeepIfPresent:
    """Keep the tensor if the pretraining policy has it; without it, start fresh; unneeded, drop it."""

    pattern: str
    reason: str

    def __call__(self, source: Tensor | None, target: Tensor) -> tuple[Tensor, str, str] | None:
        if source is None:
            return target, REINITIALISED, self.reason
        return (source, KEPT, "") if source.shape == target.shape else None


@dataclass(frozen=True)
class InterpolateRows:
    """A table (positions, D) of learned positions, stretched linearly to another number of positions."""

    pattern: str
    reason: str

    def __call__(self, source: Tensor | None, target: Tensor) -> tuple[Tensor, str, str] | None:
        if source is None or source.shape[1:] != target.shape[1:]:
            return None
        if source.shape == target.shape:
            return source, KEPT, ""
        rows = F.interpolate(
            source.T[None], size=target.shape[0], mode="linear", align_corners=source.shape[0] > 1
        )  # (1,D,positions)
        return rows[0].T.contiguous(), ADAPTED, self.reason


@dataclass(frozen=True)
class MatchRows:
    """A table (rows, D) whose rows have names: a row goes where the same name stands in the target."""

    pattern: str
    source_rows: Sequence[str]
    target_rows: Sequence[str]

    def __call__(self, source: Tensor | None, target: Tensor) -> tuple[Tensor, str, str] | None:
        if source is None or source.shape[0] != len(self.source_rows):
            return None
        if list(self.source_rows) == list(self.target_rows):
            return source, KEPT, ""
        rows = target.clone()
        kept = [name for name in self.target_rows if name in self.source_rows]
        for name in kept:
            rows[self.target_rows.index(name)] = source[self.source_rows.index(name)]
        fresh = [name for name in self.target_rows if name not in kept]
        reason = f"rows kept: {', '.join(kept) or 'none'}; fresh: {', '.join(fresh) or 'none'}"
        return rows, ADAPTED, reason


Rule = Reinitialise | KeepIfPresent | InterpolateRows | MatchRows


@dataclass
class TensorReport:
    """What happened to one tensor; shapes are None where the source or the target has no such tensor."""

    name: str
    status: str
    reason: str
    source_shape: list[int] | None
    target_shape: list[int] | None


@dataclass
class TransferReport:
    """Written beside the weights as ``transfer_report.json``."""

    source: str
    tensors: list[TensorReport] = field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(t.status == status for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        summary = {s: self.count(s) for s in (KEPT, ADAPTED, REINITIALISED, DROPPED)}
        return {"source": self.source, "summary": summary, "tensors": [asdict(t) for t in self.tensors]}

    def lines(self) -> Iterable[str]:
        """The report for a log: a summary, then each tensor that was not simply kept, world model in sum."""
        yield (
            f"Transfer from {self.source}: {self.count(KEPT)} tensors kept, {self.count(ADAPTED)} adapted, "
            f"{self.count(REINITIALISED)} re-initialised, {self.count(DROPPED)} left behind."
        )
        groups: dict[tuple[str, str], list[str]] = {}
        for tensor in self.tensors:
            if tensor.status != KEPT:
                groups.setdefault((tensor.status, tensor.reason), []).append(tensor.name)
        for (status, reason), names in groups.items():
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            yield f"  {status}: {shown} ({reason})"


def transfer_tensors(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], rules: Sequence[Rule], source_name: str
) -> tuple[dict[str, Tensor], TransferReport]:
    """Work out the finetuning policy's state from a pretraining checkpoint's.

    Args:
        source: The checkpoint's tensors.
        target: The freshly initialised policy's state, which the result has the names and shapes of.
        rules: What does not carry over unchanged. The first rule whose pattern fits a name applies.
        source_name: For the report.

    Returns:
        The state to load with ``strict=True``, and the report.

    Raises:
        ValueError: If a tensor fits neither its counterpart nor a rule.
    """
    state: dict[str, Tensor] = {}
    report = TransferReport(source_name)
    misfits: list[str] = []

    def rule_for(name: str) -> Rule | None:
        return next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None)

    for name, fresh in target.items():
        given, rule = source.get(name), rule_for(name)
        outcome: tuple[Tensor, str, str] | None = None
        if rule is not None:
            outcome = rule(given, fresh)
        elif given is not None and given.shape == fresh.shape:
            outcome = given, KEPT, ""
        if outcome is None:
            shape = "missing" if given is None else f"of shape {tuple(given.shape)}"
            misfits.append(f"{name} is {shape} in the checkpoint and {tuple(fresh.shape)} in the policy")
            continue
        tensor, status, reason = outcome
        state[name] = tensor.to(fresh.dtype)
        report.tensors.append(
            TensorReport(
                name, status, reason, list(given.shape) if given is not None else None, list(fresh.shape)
            )
        )
    for name, given in source.items():
        if name in target:
            continue
        rule = rule_for(name)
        if rule is None or isinstance(rule, (InterpolateRows, MatchRows)):
            misfits.append(f"{name} of shape {tuple(given.shape)} has no place in the policy")
        else:
            report.tensors.append(TensorReport(name, DROPPED, rule.reason, list(given.shape), None))
    if misfits:
        more = f", and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ValueError(
            f"The pretraining checkpoint {source_name} does not fit this policy: {'; '.join(misfits[:3])}"
            f"{more}. Finetune with the architecture flags (--policy.*) that it was pretrained with."
        )
    return state, report
