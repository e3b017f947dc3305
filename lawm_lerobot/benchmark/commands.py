"""The commands of a benchmark: what is run, on which inputs, and where it writes."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

# Where the commands are: module and function. `lerobot-train` reads pictures more quickly; the last three have no command
# of their own.
PROGRAMS = {
    "lerobot-train": "lawm_lerobot.benchmark.reading:train",
    "lerobot-eval": "lawm_lerobot.benchmark.evaluation:main",
    "lawm-label-actions": "lawm_lerobot.scripts.lawm_label_actions:main",
    "lawm-inspect": "lawm_lerobot.scripts.lawm_inspect:main",
    "record": "lawm_lerobot.benchmark.record:main",
    "imitation-error": "lawm_lerobot.benchmark.imitation:main",
    "blind-replay": "lawm_lerobot.benchmark.replay:main",
}
OUT = "{out}"  # in the arguments of a command: the folder it writes


@cache
def _versions() -> tuple[str, str]:
    return version("lerobot"), version("lerobot_policy_lawm")


@dataclass(frozen=True, eq=False)
class Command:
    """A command that a user could type in the benchmark's output directory.

    Its name ends in a hash of its program, its arguments (which hold the names of its inputs) and the versions it runs
    with: a command whose inputs change gets another name, and one of the same name never runs twice.

    Args:
        kind: The purpose: record, pretrain, label, finetune, evaluate, imitation or look.
        title: The part of the name that a person reads; a function of the arguments.
        program: The program, one of `PROGRAMS`.
        arguments: The arguments, with `OUT` for the folder that the command writes.
        inputs: The commands whose output it reads.
        seconds: The estimated duration.
    """

    kind: str
    title: str
    program: str
    arguments: tuple[str, ...]
    inputs: tuple["Command", ...] = ()
    seconds: float = 0.0

    @cached_property
    def name(self) -> str:
        content = [self.program, self.arguments, *_versions()]
        title = self.title.replace("/", "-")  # of a task that is named by its suite
        return f"{self.kind}-{title}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]}"

    @property
    def directory(self) -> Path:
        """Folder of the command, relative to the benchmark's output directory, where a restart finds its output."""
        return Path("stages") / self.name

    @property
    def out(self) -> Path:
        return self.directory / "out"

    @property
    def checkpoint(self) -> Path:
        """Last checkpoint of a training command."""
        return self.out / "checkpoints" / "last" / "pretrained_model"

    def with_inputs(self) -> Iterator["Command"]:
        """The commands that this one needs, directly or not, and then itself."""
        for source in self.inputs:
            yield from source.with_inputs()
        yield self

    def typed(self) -> list[str]:
        """The program and its arguments, as they are typed."""
        return [self.program, *(argument.replace(OUT, str(self.out)) for argument in self.arguments)]
