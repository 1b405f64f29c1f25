"""No core files: they would hold every token that is in memory.

The limit alone does not do: a kernel that pipes cores to a program (``|`` in core_pattern) heeds it not (core(5)). A process
that is not dumpable leaves none in either case, and other processes of its user can neither trace it nor read its memory.
"""

import ctypes
import os
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def forbid() -> None:
    """For this process, and for good.

    Raises:
        OSError: the kernel would not have it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
