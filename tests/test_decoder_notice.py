"""LeRobot's warning about its video decoder, shortened."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import pytest
from lerobot.utils.import_utils import get_safe_default_video_backend

from lawm_lerobot import decoder_notice


def test_torchcodec_that_does_not_load_is_said_once_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = importlib.import_module

    def without_ffmpeg(name: str, *args: Any) -> Any:
        if name == "torchcodec":
            raise RuntimeError("Could not load libtorchcodec.\n" + 90 * "Traceback\n")
        return load(name, *args)

    monkeypatch.setattr(importlib, "import_module", without_ffmpeg)
    monkeypatch.setattr(decoder_notice.DecoderNotice, "said", False)
    assert [get_safe_default_video_backend() for _ in range(2)] == ["pyav", "pyav"]
    assert caplog.messages == [decoder_notice.NOTICE]


def test_other_warnings_of_that_logger_stay(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        logging.getLogger(decoder_notice.LOGGER).warning("%s is missing", "this")
    assert caplog.messages == ["this is missing", "this is missing"]
