"""Labels of a mixture whose sources do not agree in them: some without actions, some of another robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lawm_lerobot.files import write_json
from lawm_lerobot.importing.segments import ImportSettingsError
from lawm_lerobot.labels.configuration import EMBODIMENT, LABELS_PATH

ACTION = "action"


@dataclass
class PooledLabels:
    """The label features of a result, and the contribution of each source to them.

    Where all sources have the same labels, the result has those. Where their actions differ, or some have none,
    `action` is as wide as the widest, filled up with zeros, and `labels.embodiment` says in every frame whose it
    is, or -1: LeRobot cannot leave a value out. Sources whose actions agree in dimension and names are one
    embodiment.

    Args:
        features: LeRobot features of the result.
        embodiments: Title of the first source, dimension and names of every embodiment; empty if not pooled.
        number: Embodiment of each source.
    """

    features: dict[str, dict]
    embodiments: list[dict[str, Any]]
    number: list[int]

    @classmethod
    def of(cls, titles: Sequence[str], features: Sequence[dict[str, dict]]) -> PooledLabels:
        """Pool the label features of sources, which may differ in `action` only: a missing state has no stand-in."""
        if not features:
            return cls({}, [], [])
        others = [{key: ft for key, ft in each.items() if key != ACTION} for each in features]
        for title, other in zip(titles, others, strict=True):
            if other != others[0]:
                raise ImportSettingsError(
                    f"A state can only be kept when every source has the same one, but {titles[0]} gives "
                    f"{_shapes(others[0])} and {title} gives {_shapes(other)}: drop keep_state, or import that "
                    "source by itself."
                )
        if all(each == features[0] for each in features):
            return cls(features[0], [], [-1] * len(features))
        embodiments: list[dict[str, Any]] = []
        number = []
        for title, each in zip(titles, features, strict=True):
            if ACTION not in each:
                number.append(-1)
                continue
            kind = {"dim": int(each[ACTION]["shape"][0]), "names": each[ACTION]["names"]}
            known = [{key: found[key] for key in kind} for found in embodiments]
            if kind not in known:
                embodiments.append({"source": title, **kind})
                known.append(kind)
            number.append(known.index(kind))
        widest = max(embodiment["dim"] for embodiment in embodiments)
        pooled = {
            **others[0],
            ACTION: {"dtype": "float32", "shape": (widest,), "names": [f"action_{i}" for i in range(widest)]},
            EMBODIMENT: {"dtype": "int64", "shape": (1,), "names": None},
        }
        return cls(pooled, embodiments, number)

    def fill(self, source: int, labels: Mapping[str, np.ndarray], frames: int) -> dict[str, np.ndarray]:
        """The labels of an episode of a source, with all of `features`."""
        if not self.embodiments:
            return dict(labels)
        action = np.zeros((frames, self.features[ACTION]["shape"][0]), np.float32)
        if ACTION in labels:
            action[:, : labels[ACTION].shape[1]] = labels[ACTION]
        return {**labels, ACTION: action, EMBODIMENT: np.full(frames, self.number[source])}

    def write(self, root: Path) -> None:
        """Write the sidecar with names and dimensions, if the labels are pooled."""
        if self.embodiments:
            write_json(root / LABELS_PATH, {"embodiments": self.embodiments}, indent=2)


def _shapes(features: dict[str, dict]) -> str:
    return ", ".join(f"{key} {list(value['shape'])}" for key, value in features.items()) or "none"
