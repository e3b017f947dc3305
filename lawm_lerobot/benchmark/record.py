"""The benchmark's recording command: scripted experts, in one or more parts, as one LeRobotDataset.

    record '{"repo_id": ..., "fps": 80, "with_actions": false, "with_state": true, "parts": [{...}]}' <folder>

A part holds fields of the simulator's `ExpertRecording`. The same as examples/make_metaworld_dataset.py, for parts that
differ (demonstrations under one camera and a corpus under another, say).
"""

import json
import sys
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from lawm_lerobot.benchmark.simulators import SIMULATORS
from lawm_lerobot.envs.recording import record_expert_episodes, write_dataset


def main() -> None:
    spec, root = json.loads(sys.argv[1]), Path(sys.argv[2])
    simulator = SIMULATORS[spec.pop("simulator", "metaworld")]
    parts = [simulator.recording(part) for part in spec.pop("parts")]
    episodes = chain.from_iterable(map(record_expert_episodes, parts))
    # Not video: exact pictures, and quicker to read, see reading.py.
    write_dataset(tqdm(episodes, unit="episode"), parts[0].robot, root=root, video=False, **spec)
