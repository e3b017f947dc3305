"""``--policy.path`` and the flags beside it, read without LeRobot: ``--help`` need not wait for its import."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import draccus
import yaml
from draccus.utils import CONFIG_ARG, ParsingError

FLAG = "--policy"


@dataclass
class PolicyFlags:
    """The checkpoint that a command is given, as LeRobot's commands take it.

    Args:
        path: The directory of the checkpoint, or its Hub id.
        overrides: Any other ``--policy.<field>=<value>``, which changes that field of the checkpoint's config.
    """

    path: str | None = None
    overrides: list[str] = field(default_factory=list)


@contextmanager
def gathered(argv: Sequence[str]) -> Iterator[list[str]]:
    """Put every ``--policy.*`` but the path into ``--policy.overrides``, since only the checkpoint knows its fields.

    Those in the ``policy:`` section of a ``--config_path`` come first; draccus reads a copy of the file without them.

    Raises:
        ParsingError: If a type is given, which is the checkpoint's own.
        FileNotFoundError: If there is no such file.
    """
    overrides: list[str] = []
    kept, typed = [], []
    flags = iter(argv)
    with tempfile.TemporaryDirectory() as folder:
        for flag in flags:
            name, equals, value = flag.partition("=")
            if name == f"--{CONFIG_ARG}":
                file, copy = Path(value if equals else next(flags, "")), Path(folder) / "config.yaml"
                overrides = _take_fields(file, copy)
                kept.append(f"{name}={copy}")
            elif name.startswith(f"{FLAG}.") and name != f"{FLAG}.path":
                typed.append(f"--{name.removeprefix(f'{FLAG}.')}={value if equals else next(flags, '')}")
            else:
                kept.append(flag)
        overrides += typed
        if any(one.startswith(f"--{draccus.CHOICE_TYPE_KEY}=") for one in overrides):
            raise ParsingError(f"{FLAG}.type is the checkpoint's own: give {FLAG}.path alone.")
        yield [*kept, f"{FLAG}.overrides={json.dumps(overrides)}"] if overrides else kept


def _take_fields(file: Path, copy: Path) -> list[str]:
    """Copy a configuration file without the fields of its policy, which are returned as flags."""
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    taken: list[str] = []
    if isinstance(config, dict) and isinstance(config.get("policy"), dict):
        policy = config["policy"]
        config["policy"] = {name: policy.pop(name) for name in ("path",) if name in policy}
        taken.extend(_flatten(policy))
    copy.write_text(yaml.safe_dump(config), encoding="utf-8")
    return taken


def _flatten(fields: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"--{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}"
