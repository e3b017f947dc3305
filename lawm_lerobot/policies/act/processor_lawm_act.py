"""Pre- and post-processing of ``lawm_act``: ACT's own."""

from lerobot.policies.act.processor_act import make_act_pre_post_processors

from lawm_lerobot.policies.common.processing import staged

make_lawm_act_pre_post_processors = staged(make_act_pre_post_processors)
