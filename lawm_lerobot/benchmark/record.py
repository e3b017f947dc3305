"""The benchmark's recording stage: scripted experts, in one or more parts, as one LeRobotDataset.

    record '{"repo_id": ..., "fps": 80, "with_actions": false, "with_state": true, "parts": [{...}]}' <folder>

A part is the arguments of `record_expert_episodes`. The same as examples/make_metaworld_dataset.py, for parts that
differ (demonstrations under one camera and a corpus under another, say).
"""

import json
import sys
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from lawm_lerobot.envs.recording import record_expert_episodes, write_dataset


def main() -> None:
    spec, root = json.loads(sys.argv[1]), Path(sys.argv[2])
    episodes = chain.from_iterable(record_expert_episodes(**part) for part in spec["parts"])
    write_dataset(
        tqdm(episodes, unit="episode"),
        repo_id=spec["repo_id"],
        root=root,
        fps=spec["fps"],
        with_actions=spec["with_actions"],
        with_state=spec["with_state"],
        video=False,  # exact pictures, and somewhat quicker to read than video
    )
