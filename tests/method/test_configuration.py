"""The configuration of world models and inverse dynamics: flags, files, sizes, refusals."""

import json
from dataclasses import dataclass, field

import draccus
import pytest
import torch
from draccus.utils import ParsingError
from helpers.moving_squares import MODELS

from lawm_lerobot.method.configuration import (
    INVERSE_DYNAMICS_SIZES,
    RECURRENT_SIZES,
    RSSM_SIZES,
    InverseDynamicsConfig,
    RecurrentConfig,
    RSSMConfig,
    WorldModelConfig,
)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        *((RSSMConfig, size) for size in RSSM_SIZES if size != "test"),
        *((RecurrentConfig, size) for size in RECURRENT_SIZES if size != "test"),
        *((InverseDynamicsConfig, size) for size in INVERSE_DYNAMICS_SIZES if size != "test"),
    ],
)
def test_sizes_are_named_by_their_parameters(config, size):
    with torch.device("meta"):
        built = config(size=size)
        model = built.build(8, 64) if config is InverseDynamicsConfig else built.build(8, 8)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == pytest.approx(1e6 * int(size.removesuffix("m")), rel=0.1)


@dataclass
class Holder:
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig.default)
    idm: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)


def test_flags_reach_the_default_world_model_and_the_other_ones():
    assert draccus.parse(Holder, args=[]).world_model == WorldModelConfig.default()
    held = draccus.parse(Holder, args=["--world_model.size=test", "--idm.context=2"])
    assert held.world_model == type(WorldModelConfig.default())(size="test")
    assert held.idm == InverseDynamicsConfig(context=2)
    for name in MODELS:
        held = draccus.parse(Holder, args=[f"--world_model.type={name}", "--world_model.size=test"])
        assert held.world_model == WorldModelConfig.get_choice_class(name)(size="test")


@pytest.mark.parametrize("name", MODELS)
def test_configuration_survives_a_file(name, tmp_path):
    choice = WorldModelConfig.get_choice_class(name)
    config = choice(size="test", image_size=32, camera="observation.images.top")
    held = Holder(config, InverseDynamicsConfig(size="test"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(draccus.encode(held)))
    assert json.loads(path.read_text())["world_model"]["type"] == name
    assert draccus.parse(Holder, path, args=[]) == held
    changed = draccus.parse(Holder, path, args=["--world_model.image_size=64"]).world_model
    assert type(changed) is type(config) and (changed.size, changed.image_size) == ("test", 64)


@pytest.mark.parametrize(
    ("make", "found", "flag"),
    [
        (lambda: RSSMConfig(size="7b"), "'7b'", "--policy.world_model.size"),
        (lambda: RecurrentConfig(size="12m"), "'12m'", "--policy.world_model.size"),
        (lambda: RSSMConfig(image_size=100), "100", "--policy.world_model.image_size"),
        (lambda: RSSMConfig(open_loop_weight=-1), "-1", "--policy.world_model.open_loop_weight"),
        (lambda: RSSMConfig(decoded_frames=1), "1", "--policy.world_model.decoded_frames"),
        (lambda: RSSMConfig(unimix=0.0), "0.0", "--policy.world_model.unimix"),
        (lambda: RecurrentConfig(loss_weight=float("nan")), "nan", "--policy.world_model.loss_weight"),
        (lambda: InverseDynamicsConfig(size="2b"), "'2b'", "--policy.idm.size"),
        (lambda: InverseDynamicsConfig(random_shift=-1), "-1", "--policy.idm.random_shift"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(make, found, flag):
    with pytest.raises(ParsingError) as error:
        make()
    message = str(error.value)
    assert found in message and f"`{flag}`" in message
    assert message.endswith(".") and ". " not in message and "\n" not in message
