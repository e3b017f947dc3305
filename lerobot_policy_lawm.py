"""The module LeRobot imports to find this plugin.

LeRobot looks for installed distributions whose name starts with ``lerobot_policy_`` and imports a module of exactly
that name; what the imports below register is then a valid ``--policy.type`` or ``--env.type`` of its commands. An
error raised here is only logged by LeRobot, so nothing else belongs in this file.
"""

import lawm_lerobot.envs
import lawm_lerobot.policies  # noqa: F401
