"""Processes that do not outlive the one that started them."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process, without any clean-up, as soon as the process that started it by multiprocessing is gone.

    A killed parent cannot end its children, which would go on writing where the next run starts.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that multiprocessing has started has a parent to watch"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
