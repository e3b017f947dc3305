"""A policy of somebody else, wrapped outside the package by CONTRIBUTING's recipe, goes the way of the package's own.

The trio is found by LeRobot in a package that is not this one, and the plain type is none of LeRobot's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import helpers.outside_mlp.configuration_lawm_mlp as configuration
import pytest
from helpers.tiny_policies import Tiny
from test_every_policy import (
    Kind,
    base,
    corpus,
    demonstrations,
    exported,
    finetuned,
    make_kind,
    pretrained,
    test_every_parameter_of_the_policy_gets_a_gradient,
    test_export_acts_the_same_in_stock_lerobot,
    test_finetuned_policy_is_as_large_as_the_plain_one,
    test_finetuning_begins_from_the_pretraining,
    test_lerobot_finds_the_trio,
    test_pretraining_checkpoint_is_refused_for_control,
    test_pretraining_trains_and_resumes,
)

__all__ = [
    "base",
    "corpus",
    "demonstrations",
    "exported",
    "finetuned",
    "pretrained",
    "test_every_parameter_of_the_policy_gets_a_gradient",
    "test_export_acts_the_same_in_stock_lerobot",
    "test_finetuned_policy_is_as_large_as_the_plain_one",
    "test_finetuning_begins_from_the_pretraining",
    "test_lerobot_finds_the_trio",
    "test_pretraining_checkpoint_is_refused_for_control",
    "test_pretraining_trains_and_resumes",
]


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    tiny = Tiny(lambda directory, monkeypatch: [], chunk=("--policy.chunk_size=7",))
    with make_kind("mlp", tiny, tmp_path_factory.mktemp("mlp")) as made:
        yield made


def test_wrapper_has_at_most_a_hundred_lines() -> None:
    files = Path(configuration.__file__).parent.glob("*_lawm_mlp.py")
    assert 0 < sum(len(file.read_text().splitlines()) for file in files) <= 100
