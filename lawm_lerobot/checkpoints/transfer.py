"""The transfer of weights from one stage's checkpoint into another stage's policy, tensor by tensor and loudly.

A rule is called with a tensor of the checkpoint, or None where it has none of that name, and the fresh policy's
tensor. It returns the tensor to use, of the fresh one's shape, or None if the two do not fit.

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

#: A tensor, one of the four words below, and the reason.
type Outcome = tuple[Tensor, str, str]

KEPT = "kept"
ADAPTED = "adapted"
REINITIALISED = "reinitialised"
DROPPED = "dropped"


@dataclass(frozen=True)
class Pattern:
    """The tensors that a rule is for.

    Args:
        pattern: A pattern of their names.
    """

    pattern: str


@dataclass(frozen=True)
class Reinitialise(Pattern):
    """Take the fresh policy's tensor, even where the shapes agree: its meaning has changed, for a reason to report."""

    reason: str

    def __call__(self, source: Tensor | None, target: Tensor) -> Outcome:
        """(...) or None, (...) -> (...) of the fresh tensor."""
        return target, REINITIALISED, self.reason


@dataclass(frozen=True)
class OtherActions(Reinitialise):
    """Re-initialise what takes or gives actions. Co-training has it twice: for latents, and for actions."""


@dataclass(frozen=True)
class KeepIfPresent(Pattern):
    """Keep the tensor if the pretraining policy has it; without it, start fresh; unneeded, drop it.

    Args:
        reason: The reason for the report, why only one of the two policies has such tensors.
    """

    reason: str

    def __call__(self, source: Tensor | None, target: Tensor) -> Outcome | None:
        """(...) or None, (...) -> (...) as it is in the checkpoint."""
        if source is None:
            return target, REINITIALISED, self.reason
        return (source, KEPT, "") if source.shape == target.shape else None


@dataclass(frozen=True)
class InterpolateRows(Pattern):
    """Stretch a table of learned positions linearly to another number of them, for a reason to report."""

    reason: str

    def __call__(self, source: Tensor | None, target: Tensor) -> Outcome | None:
        """([1,] source positions, D), ([1,] positions, D) -> ([1,] positions, D)."""
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
class MatchRows(Pattern):
    """Match the rows of a table by their names: a row goes where the same name stands in the target.

    Args:
        source_rows: The names of the checkpoint's rows, in order.
        target_rows: The names of the fresh policy's rows, in order.
    """

    source_rows: Sequence[str]
    target_rows: Sequence[str]

    def __call__(self, source: Tensor | None, target: Tensor) -> Outcome | None:
        """(source rows, D), (rows, D) -> (rows, D)."""
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
class MatchColumns(Pattern):
    """Match the input columns of a matrix, which come in named blocks: a block goes where it means the same.

    Args:
        source_blocks: The blocks of the checkpoint's matrix in order, {name: width}.
        target_blocks: The blocks of the fresh policy's matrix in order, {name: width}.
        origins: {target block: source block}; the other blocks start fresh. Blocks that start from one and the
            same share it in equal parts, so that their sum is as large as it was.
    """

    source_blocks: Mapping[str, int]
    target_blocks: Mapping[str, int]
    origins: Mapping[str, str]

    def __call__(self, source: Tensor | None, target: Tensor) -> Outcome | None:
        """(D, source columns), (D, columns) -> (D, columns)."""
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
class StartFrom(Pattern):
    """Start modules from one of another name: an encoder per camera, say, from the only one there was.

    Args:
        origins: {prefix in the target: prefix in the source}.
        reason: The reason why a module of the source that nothing starts from is left behind.
    """

    origins: Mapping[str, str]
    reason: str

    def origin(self, name: str) -> str:
        for prefix, origin in self.origins.items():
            if name.startswith(prefix):
                return origin + name.removeprefix(prefix)
        return name

    def __call__(self, source: Tensor | None, target: Tensor) -> Outcome | None:
        """(...), (...) -> (...) as it is in the checkpoint."""
        return (source, KEPT, "") if source is not None and source.shape == target.shape else None


Rule = Reinitialise | KeepIfPresent | InterpolateRows | MatchRows | MatchColumns | StartFrom


@dataclass
class TensorReport:
    """One tensor's fate in a transfer.

    Args:
        name: The name of the tensor.
        status: One of ``kept``, ``adapted``, ``reinitialised`` and ``dropped``.
        reason: The reason; empty if the tensor was kept.
        source_shape: The shape in the checkpoint; None if it has no such tensor.
        target_shape: The shape in the policy; None if it has no such tensor.
    """

    name: str
    status: str
    reason: str
    source_shape: list[int] | None
    target_shape: list[int] | None


@dataclass
class TransferReport:
    """The fate of every tensor, which is written beside the weights as ``transfer_report.json``.

    Args:
        source: The name of the checkpoint.
        tensors: The report on each tensor of the policy and of the checkpoint.
    """

    source: str
    tensors: list[TensorReport] = field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(t.status == status for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        summary = {s: self.count(s) for s in (KEPT, ADAPTED, REINITIALISED, DROPPED)}
        return {"source": self.source, "summary": summary, "tensors": [asdict(t) for t in self.tensors]}

    def lines(self) -> Iterable[str]:
        """Write the report for a log: a summary, then the tensors that were not simply kept, by their reason."""
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
    """Work out a policy's state, to load with ``strict=True``, and a report, from a checkpoint of another stage.

    Args:
        source: The checkpoint's tensors.
        target: The freshly initialised policy's state, which the result has the names and shapes of.
        rules: The rules for what does not carry over unchanged. The first whose pattern fits a name applies.
        source_name: The name of the checkpoint, for the report.

    Raises:
        ValueError: If a tensor fits neither its counterpart nor a rule.
    """
    state: dict[str, Tensor] = {}
    report = TransferReport(source_name)
    misfits: list[str] = []
    placed = set(target)
    for name, fresh in target.items():
        rule = rule_for(name, rules)
        origin = rule.origin(name) if isinstance(rule, StartFrom) else name
        given = source.get(origin)
        outcome = _transfer(given, fresh, rule)
        if outcome is None:
            shape = "missing" if given is None else f"of shape {tuple(given.shape)}"
            misfits.append(f"{name} is {shape} in the checkpoint and {tuple(fresh.shape)} in the policy")
            continue
        tensor, status, reason = outcome
        if origin != name and status == KEPT:
            status, reason = ADAPTED, f"starts from {origin}"
            placed.add(origin)
        state[name] = tensor.to(fresh.dtype)
        source_shape = None if given is None else list(given.shape)
        report.tensors.append(TensorReport(name, status, reason, source_shape, list(fresh.shape)))
    for name, given in source.items():
        if name in placed:
            continue
        rule = rule_for(name, rules)
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


def rule_for(name: str, rules: Sequence[Rule]) -> Rule | None:
    """Find the rule for a tensor of this name; None if it is to carry over unchanged."""
    return next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None)


def _transfer(given: Tensor | None, fresh: Tensor, rule: Rule | None) -> Outcome | None:
    """(...) or None, (...) -> (...) of the fresh tensor; without a rule the two must be alike."""
    if rule is not None:
        return rule(given, fresh)
    return (given, KEPT, "") if given is not None and given.shape == fresh.shape else None
