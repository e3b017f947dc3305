"""Import a large collection on a Slurm cluster: one task per shard, then one that merges.

    pip install datatrove
    python examples/slurm_import/import_on_slurm.py --config=configs/import/hands_mixture.yaml --root=/scratch/hands \
        --shards=64 --partition=cpu

Each Slurm task runs `lawm-import-videos` with its own `--shard.index`; a task that is killed or requeued goes on where
it was. datatrove is the library LeRobot itself uses for this. `--local` runs the same pipeline on this machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep


class ImportShard(PipelineStep):
    """The part of the import that this task's rank names."""

    name = "lawm-import-videos"
    type = "import"

    def __init__(self, flags: list[str]):
        super().__init__()
        self.flags = flags

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Import shard `rank` of `world_size`."""
        from lawm_lerobot.scripts.lawm_import_videos import main

        status = main([*self.flags, f"--shard.index={rank}", f"--shard.count={world_size}"])
        if status:
            raise RuntimeError(f"shard {rank} of {world_size} ended with status {status}")
        return data


class MergeShards(PipelineStep):
    """All parts into one dataset, by LeRobot's own aggregation."""

    name = "lawm-import-videos --merge"
    type = "merge"

    def __init__(self, flags: list[str], shards: int):
        super().__init__()
        self.flags, self.shards = flags, shards

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Merge; runs once, after every shard."""
        from lawm_lerobot.scripts.lawm_import_videos import main

        status = main([*self.flags, "--merge=true", f"--shard.count={self.shards}"])
        if status:
            raise RuntimeError(f"merging ended with status {status}")
        return data


def main() -> None:
    """Queue the shards and, after them, the merge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML of lawm-import-videos")
    parser.add_argument("--root", type=Path, required=True, help="folder of the result, on a shared disk")
    parser.add_argument("--logs", type=Path, help="folder of datatrove's logs; by default beside the result")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--cpus", type=int, default=8, help="cores per task, one worker each")
    parser.add_argument("--time", default="24:00:00")
    parser.add_argument("--partition", default="cpu")
    parser.add_argument("--local", action="store_true", help="run on this machine, one shard after the other")
    options = parser.parse_args()
    flags = [f"--config_path={options.config}", f"--root={options.root}", f"--workers={options.cpus}"]
    logs = options.logs or options.root.with_name(options.root.name + ".logs")
    shard, merge = [ImportShard(flags)], [MergeShards(flags, options.shards)]
    if options.local:
        LocalPipelineExecutor(shard, tasks=options.shards, logging_dir=str(logs / "shards")).run()
        LocalPipelineExecutor(merge, tasks=1, logging_dir=str(logs / "merge")).run()
        return
    common = {"time": options.time, "partition": options.partition}
    shards = SlurmPipelineExecutor(
        shard,
        tasks=options.shards,
        cpus_per_task=options.cpus,
        job_name="lawm-import",
        logging_dir=str(logs / "shards"),
        **common,
    )
    SlurmPipelineExecutor(
        merge,
        tasks=1,
        cpus_per_task=2,
        job_name="lawm-merge",
        logging_dir=str(logs / "merge"),
        depends=shards,
        **common,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
