"""Weights from one stage's checkpoint into another stage's policy, tensor by tensor and loudly.

Every tensor of the target is kept, adapted (by what its parts mean) or re-initialised, for a reason that is
written down; every tensor of the source that is left behind has a reason too. Anything else is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
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
    """A table ([1,] positions, D) of learned positions, stretched linearly to another number of them."""

    pattern: str
    reason: str

    def __call__(self, source: Tensor | None, target: Tensor) -> tuple[Tensor, str, str] | None:
        if source is None or source.ndim != target.ndim or source.shape[-1] != target.shape[-1]:
            return None
        if source.shape == target.shape:
            return source, KEPT, ""
        columns = source.reshape(1, *source.shape[-2:]).mT  # (1,D,positions)
        stretched = F.interpolate(
            columns, size=target.shape[-2], mode="linear", align_corners=source.shape[-2] > 1
        )
        return stretched.mT.reshape(target.shape), ADAPTED, self.reason


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


@dataclass(frozen=True)
class MatchColumns:
    """A matrix (D, columns) whose input columns come in named blocks: a block goes where it means the same.

    Args:
        pattern: Of the names of such matrices.
        source_blocks: {name: width}, in order.
        target_blocks: Likewise.
        origins: {target block: source block}; the other blocks start fresh. Blocks that start from one and the
            same share it in equal parts, so that their sum is as large as it was.
    """

    pattern: str
    source_blocks: Mapping[str, int]
    target_blocks: Mapping[str, int]
    origins: Mapping[str, str]

    def __call__(self, source: Tensor | None, target: Tensor) -> tuple[Tensor, str, str] | None:
        if source is None or source.shape != (target.shape[0], sum(self.source_blocks.values())):
            return None
        given = dict(zip(self.source_blocks, source.split(list(self.source_blocks.values()), 1), strict=True))
        fresh = dict(zip(self.target_blocks, target.split(list(self.target_blocks.values()), 1), strict=True))
        # {target block: (D, width)}
        kept = {name: given[self.origins[name]] for name in fresh if self.origins.get(name) in given}
        if any(block.shape != fresh[name].shape for name, block in kept.items()):
            return None
        if list(kept) == list(fresh) == list(given) and all(self.origins[name] == name for name in kept):
            return source, KEPT, ""
        sharing = Counter(self.origins[name] for name in kept)
        columns = [kept[n] / sharing[self.origins[n]] if n in kept else fresh[n] for n in fresh]
        new = [name for name in fresh if name not in kept]
        reason = f"columns kept: {', '.join(kept) or 'none'}; fresh: {', '.join(new) or 'none'}"
        return torch.cat(columns, dim=1), ADAPTED, reason


@dataclass(frozen=True)
class StartFrom:
    """Modules that start from one of another name: an encoder per camera, say, from the only one there was.

    Args:
        pattern: Of the names of such modules' tensors, in the source and in the target.
        origins: {prefix in the target: prefix in the source}.
        reason: Why a module of the source that nothing starts from is left behind.
    """

    pattern: str
    origins: Mapping[str, str]
    reason: str

    def origin(self, name: str) -> str:
        """The tensor of the source that the target's ``name`` starts from."""
        for prefix, origin in self.origins.items():
            if name.startswith(prefix):
                return origin + name.removeprefix(prefix)
        return name

    def __call__(self, source: Tensor | None, target: Tensor) -> tuple[Tensor, str, str] | None:
        return (source, KEPT, "") if source is not None and source.shape == target.shape else None


Rule = Reinitialise | KeepIfPresent | InterpolateRows | MatchRows | MatchColumns | StartFrom


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
    """Work out a policy's state from a checkpoint of another stage.

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
    moved: set[str] = set()

    def rule_for(name: str) -> Rule | None:
        return next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None)

    for name, fresh in target.items():
        rule = rule_for(name)
        origin = rule.origin(name) if isinstance(rule, StartFrom) else name
        given = source.get(origin)
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
        if origin != name and status == KEPT:
            status, reason = ADAPTED, f"starts from {origin}"
            moved.add(origin)
        state[name] = tensor.to(fresh.dtype)
        report.tensors.append(
            TensorReport(
                name, status, reason, list(given.shape) if given is not None else None, list(fresh.shape)
            )
        )
    for name, given in source.items():
        if name in target or name in moved:
            continue
        rule = rule_for(name)
        if rule is None or isinstance(rule, (InterpolateRows, MatchRows, MatchColumns)):
            misfits.append(f"{name} of shape {tuple(given.shape)} has no place in the policy")
        else:
            report.tensors.append(TensorReport(name, DROPPED, rule.reason, list(given.shape), None))
    if misfits:
        more = f", and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ValueError(
            f"The checkpoint {source_name} does not fit this policy: {'; '.join(misfits[:3])}{more}. Pass the "
            "architecture flags (--policy.*) that it was trained with."
        )
    return state, report
