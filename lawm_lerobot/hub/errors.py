"""Failures of the Hub, each in one sentence that names the flag to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


class HubError(OSError):
    """Something could not be loaded from the Hub or published there."""


@contextlib.contextmanager
def hub_errors(what: str, flag: str, otherwise: str = "") -> Iterator[None]:
    """Turn the client's errors, of many lines and classes, into one `HubError` of one sentence.

    Args:
        what: The attempt, as the sentence begins: "Pushing to user/x".
        flag: The option that names the repository.
        otherwise: The end of the sentence: what is safe, and how to try again.

    Raises:
        HubError: Instead of the client's errors. Others pass.
    """
    try:
        yield
    except (httpx.HTTPError, OSError, EntryNotFoundError, HFValidationError) as error:
        cause = _hub_error(error)
        if cause is None:
            raise
        found, remedy = _explain(cause, flag)
        end = f"; {otherwise}" if otherwise else ""
        # Without the client's error above it, which says the same in twenty lines of its insides.
        raise HubError(f"{what} failed ({found}): {remedy}{end}.") from None


def _hub_error(error: BaseException | None) -> Exception | None:
    """The client's error that explains most; None if it was something else.

    The client says of a broken connection that the file is not in its cache, and LeRobot of any answer that the
    file is not there: the reason is one further down.
    """
    if isinstance(error, FileNotFoundError):
        below = _hub_error(error.__cause__ or error.__context__)
        return below or (error if isinstance(error, LocalEntryNotFoundError) else None)
    ours = (
        httpx.HTTPError,
        OfflineModeIsEnabled,
        EntryNotFoundError,
        LocalTokenNotFoundError,
        HFValidationError,
    )
    return error if isinstance(error, ours) else None


def _explain(error: Exception, flag: str) -> tuple[str, str]:
    """Two parts of the sentence: the finding, and the remedy."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set", "unset it"
    if isinstance(error, LocalTokenNotFoundError):
        return "no token was found", "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, HFValidationError):
        return _one_line(error).rstrip("."), f"expected user/name, change {flag}"
    if isinstance(error, RevisionNotFoundError):
        option = "base_revision" if flag == "--policy.base_path" else "pretrained_revision"
        return "there is no such revision", f"change --policy.{option} (or revision=)"
    if isinstance(error, GatedRepoError):
        return "access to it must be asked for", "ask on its page, or log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository that your token may see", f"change {flag}, or log in with `hf auth login`"
    if isinstance(error, EntryNotFoundError):
        return f"the repository lacks a file: {_one_line(error)}", f"change {flag}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = " ".join((error.server_message or error.response.reason_phrase).split())
        found = f"the Hub answered {status}, {said}"
        if status in (401, 403):
            return found, f"log in with a token that may do this (`hf auth login`), or change {flag}"
        if status == 429 or status >= 500:
            return found, "try again later"
        return found, f"change {flag}"
    reason = _one_line(error) or type(error).__name__
    return f"no connection to {constants.ENDPOINT}, {reason}", "check the network and try again"


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else ""
