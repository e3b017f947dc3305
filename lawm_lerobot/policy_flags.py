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
        ParsingError: If a type is given, which is the checkpoint's own, or the file is no YAML.
        FileNotFoundError: If there is no such file.
    """
    overrides: list[str] = []
    kept, typed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for flag in _with_values(argv):
            name, equals, value = flag.partition("=")
            if name == f"--{CONFIG_ARG}" and equals:
                copy = Path(folder) / "config.yaml"
                overrides = _take_fields(Path(value), copy)
                kept.append(f"{name}={copy}")
            elif name.startswith(f"{FLAG}.") and name != f"{FLAG}.path":
                typed.append(f"--{flag.removeprefix(f'{FLAG}.')}")
            else:
                kept.append(flag)
        overrides += typed
        if any(one.startswith(f"--{draccus.CHOICE_TYPE_KEY}=") for one in overrides):
            raise ParsingError(f"{FLAG}.type is the checkpoint's own: give {FLAG}.path alone.")
        yield [*kept, f"{FLAG}.overrides={json.dumps(overrides)}"] if overrides else kept


def _with_values(argv: Sequence[str]) -> list[str]:
    """Write every ``--flag value`` as ``--flag=value``, as LeRobot's parser pairs them."""
    joined: list[str] = []
    for word in argv:
        if not word.startswith("--") and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _take_fields(file: Path, copy: Path) -> list[str]:
    """Copy a configuration file without the fields of its policy, which are returned as flags."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ParsingError(f"{file} cannot be read as YAML ({reason}): change --{CONFIG_ARG}.") from error
    taken: list[str] = []
    if isinstance(config, dict) and isinstance(config.get("policy"), dict):
        policy = config["policy"]
        config["policy"] = {"path": policy.pop("path", None)}
        taken.extend(_flatten(policy))
    copy.write_text(yaml.safe_dump(config), encoding="utf-8")
    return taken


def _flatten(fields: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"--{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}"
