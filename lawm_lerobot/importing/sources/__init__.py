"""Places that videos come from. One module and one class per kind of source; importing this package registers them all."""

from lawm_lerobot.importing.sources.base import VideoSource
from lawm_lerobot.importing.sources.bridge_v2 import BridgeV2Source
from lawm_lerobot.importing.sources.ego4d import Ego4DSource
from lawm_lerobot.importing.sources.epic_kitchens import EpicKitchensSource
from lawm_lerobot.importing.sources.folder import FolderSource
from lawm_lerobot.importing.sources.lerobot_dataset import LeRobotSource
from lawm_lerobot.importing.sources.something_something_v2 import SomethingSomethingV2Source

__all__ = [
    "BridgeV2Source",
    "Ego4DSource",
    "EpicKitchensSource",
    "FolderSource",
    "LeRobotSource",
    "SomethingSomethingV2Source",
    "VideoSource",
]
