"""`lerobot-eval`, after the environment has been asked whether it reports success at all."""

from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.scripts import lerobot_eval
from lerobot.utils.import_utils import register_third_party_plugins

from lawm_lerobot.envs.success import require_success_reported


@parser.wrap()
def require_success(cfg: EvalPipelineConfig) -> None:
    require_success_reported(cfg.env)


def main() -> None:
    """Evaluate as `lerobot-eval` does; ValueError if LeRobot would count every episode as a success."""
    register_third_party_plugins()
    require_success()
    lerobot_eval.main()
