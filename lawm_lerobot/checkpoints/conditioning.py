"""Transfer for networks that are conditioned on concatenated features: Diffusion Policy, multi-task DiT.

Their condition is a few features of their own and then, for every observation of the history, the state's numbers,
the features of each camera and perhaps something more. Other robots have other states and cameras; pictures stay
pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import cycle

from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE

from lawm_lerobot.checkpoints.transfer import MatchColumns, StartFrom


def match_cameras(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """{camera of the new policy: camera of the checkpoint to start from}: its namesake, else the other ones in turn.

    Where the checkpoint has no other one, all of them in turn: several cameras may start from the same.
    """
    source, target = list(source), list(target)
    others = [camera for camera in target if camera not in source]
    spare = [camera for camera in source if camera not in target] or source
    namesakes = {camera: camera for camera in target if camera in source}
    return namesakes | dict(zip(others, cycle(spare), strict=False))


def condition_blocks(
    config: PreTrainedConfig, first: Mapping[str, int], per_camera: int, last: Mapping[str, int]
) -> dict[str, int]:
    """List the parts of a condition in order, {name: width}.

    Args:
        config: The config of the network; its ``n_obs_steps`` observations end at the present, ``[0]``.
        first: The parts before the observations.
        per_camera: The number of features of one camera.
        last: The parts that each observation has after its state and cameras.
    """
    state = config.robot_state_feature
    observation = {
        OBS_STATE: state.shape[0] if state else 0,
        **dict.fromkeys(config.image_features, per_camera),
        **last,
    }
    steps = range(1 - config.n_obs_steps, 1)
    return {**first, **{f"{name}[{step}]": width for step in steps for name, width in observation.items()}}


def match_condition(
    pattern: str,
    source: PreTrainedConfig,
    target: PreTrainedConfig,
    blocks: Callable[[PreTrainedConfig], Mapping[str, int]],
) -> MatchColumns:
    """Keep what the columns of all features but those of a state have learned.

    ``pattern`` names the matrices that take the condition, ``blocks`` gives the `condition_blocks` of either config.
    """
    cameras = match_cameras(source.image_features, target.image_features)

    def origin(block: str) -> str:
        name, bracket, step = block.partition("[")
        return cameras.get(name, name) + bracket + step

    theirs, ours = blocks(source), blocks(target)
    lasting = [block for block in ours if not block.startswith((OBS_STATE, OBS_ENV_STATE))]
    return MatchColumns(pattern, theirs, ours, {block: origin(block) for block in lasting})


def match_encoders(
    source: PreTrainedConfig, target: PreTrainedConfig, shared: str, separate: str
) -> StartFrom:
    """Match image encoders, one for all cameras or one each (``use_separate_rgb_encoder_per_camera``), in either stage.

    ``shared`` is the name of the encoder that all cameras share, ``separate`` that of the list of one for each.
    """

    def prefixes(config: PreTrainedConfig) -> dict[str, str]:
        own = config.use_separate_rgb_encoder_per_camera
        return {
            camera: f"{separate}.{i}." if own else f"{shared}."
            for i, camera in enumerate(config.image_features)
        }

    theirs, ours = prefixes(source), prefixes(target)
    origins = {ours[camera]: theirs[origin] for camera, origin in match_cameras(theirs, ours).items()}
    return StartFrom(f"{shared}*", origins, "encodes a camera that nothing starts from")
