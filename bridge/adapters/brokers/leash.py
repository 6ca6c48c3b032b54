"""Run a program that dies when the process that wanted it dies, however that happens.

Run by path, never imported: `python -I -S leash.py PARENT_PID PROGRAM [ARGUMENT…]`. On Linux the kernel is asked to
send SIGKILL to this process when the thread that started it ends; then PROGRAM takes this process over, pid and all.
A wrapper, and not `preexec_fn`, because code between fork and exec can hang a process that has threads.
On other systems there is no such leash: a parent killed with SIGKILL leaves its broker running.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the leash was on
            sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606  # the arguments come from our own adapter, and no shell reads them


if __name__ == "__main__":
    main()
