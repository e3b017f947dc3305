"""One line in place of LeRobot's warning that torchcodec does not load, which quotes five tracebacks at every dataset."""

import logging

LOGGER = "lerobot.utils.import_utils"
_WARNING = "'torchcodec' is installed but cannot be loaded"
NOTICE = (
    "torchcodec cannot be loaded, so videos are decoded by PyAV, which takes about twice the processor time. Most often "
    "FFmpeg is missing: apt-get install ffmpeg, conda install ffmpeg or brew install ffmpeg. "
    "`python -c 'import torchcodec'` says more."
)


class DecoderNotice(logging.Filter):
    """Lets LeRobot's warning pass once in a process, shortened to `NOTICE`."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record if it is the warning; False for its second time."""
        if _WARNING not in record.getMessage():
            return True
        first, DecoderNotice.said = not DecoderNotice.said, True
        record.msg, record.args = NOTICE, None
        return first


def shorten_decoder_warning() -> None:
    """Put the filter in place; needs no LeRobot."""
    logging.getLogger(LOGGER).addFilter(DecoderNotice())
