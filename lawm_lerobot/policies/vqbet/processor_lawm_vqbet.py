"""Pre- and post-processing of ``lawm_vqbet``: VQ-BeT's own."""

from lerobot.policies.vqbet.processor_vqbet import make_vqbet_pre_post_processors

from lawm_lerobot.policies.common.processing import staged

make_lawm_vqbet_pre_post_processors = staged(make_vqbet_pre_post_processors)
