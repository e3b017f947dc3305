"""Pre- and post-processing of ``lawm_pi0``: pi0's own."""

from lerobot.policies.pi0.processor_pi0 import make_pi0_pre_post_processors

from lawm_lerobot.policies.common.processing import staged

make_lawm_pi0_pre_post_processors = staged(make_pi0_pre_post_processors)
