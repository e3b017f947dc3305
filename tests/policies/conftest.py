"""A small dataset with actions, and what one step of pretraining leaves of it, for all tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import Run, pretrain


@pytest.fixture(scope="session")
def short_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("short") / "dataset", lengths=(8, 8))


@pytest.fixture(scope="session")
def pretrained_once(short_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(short_dataset, tmp_path_factory.mktemp("pretrained") / "run", "--seed=3", steps=1)
