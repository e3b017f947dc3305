"""The frame of every command: one way of parsing, what went wrong in one sentence, and one set of exit codes.

    0    done
    1    could not be done: a sentence on stderr says what was found, what was expected, which flag to change
    2    wrong usage: a flag that does not exist, or a value that it does not take
    130  interrupted by the user

Light on purpose: worker processes of a command import its main module again when they start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import draccus
from draccus.utils import DecodingError, ParsingError

from lawm_lerobot.policy_flags import PolicyFlags, gathered

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
#: Exceptions whose text is the sentence for the user. Anything else is a defect and keeps its traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)


class UsageError(ValueError):
    """Flags that parse one by one and do not go together, or a flag that is missing."""


def run_command[Config](
    config_class: type[Config],
    run: Callable[[Config], Any],
    *,
    user_errors: tuple[type[Exception], ...] = USER_ERRORS,
    interrupted: str = "interrupted, nothing was written",
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run a command, and return the exit code.

    Args:
        config_class: The dataclass of the flags, of which one may be a `PolicyFlags`.
        run: The command. A result of False means that it could not be done and has said why.
        user_errors: Exceptions that are told to the user in their own words.
        interrupted: What to say after Ctrl-C: what became of the work.
        argv: The flags; None takes those of the process.
    """
    try:
        config = parse(config_class, argv)
    except (DecodingError, ParsingError) as error:
        return _fail(str(error), WRONG_USAGE)
    except FileNotFoundError as error:
        return _fail(f"There is no file {error.filename}: change --config_path.", WRONG_USAGE)
    try:
        return FAILED if run(config) is False else 0
    except (UsageError, DecodingError, ParsingError) as error:
        return _fail(str(error), WRONG_USAGE)
    except user_errors as error:
        return _fail(str(error), FAILED)
    except KeyboardInterrupt:
        return _fail(interrupted, INTERRUPTED)


def parse[Config](config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """The flags as ``config_class``.

    Raises:
        DecodingError | ParsingError: If a value does not fit its flag.
        FileNotFoundError: If there is no file ``--config_path``.
        SystemExit: With 0 after ``--help``, with 2 where a flag does not exist.
    """
    flags = list(sys.argv[1:] if argv is None else argv)
    with gathered(flags) if _takes_policy(config_class) else nullcontext(flags) as args:
        return draccus.parse(config_class, args=args)


def _takes_policy(config_class: type[Any]) -> bool:
    # The class, or its name where annotations are not evaluated.
    return any(one.type in (PolicyFlags, PolicyFlags.__name__) for one in fields(config_class))


def _fail(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code
