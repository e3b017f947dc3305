"""Pre- and post-processing of ``lawm_multi_task_dit``: multi-task DiT's own."""

from lerobot.policies.multi_task_dit.processor_multi_task_dit import make_multi_task_dit_pre_post_processors

from lawm_lerobot.policies.common.processing import staged

make_lawm_multi_task_dit_pre_post_processors = staged(make_multi_task_dit_pre_post_processors)
