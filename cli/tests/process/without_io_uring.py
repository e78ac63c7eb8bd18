"""Runs a command whose system calls for io_uring are refused, as containers refuse them."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_NUMBER, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE_EPERM = 0x7FFF0000, 0x00050001
# The same number on every architecture.
IO_URING_SETUP = 425


def instruction(code, yes, no, value):
    return struct.pack("=HBBI", code, yes, no, value)


def main():
    rules = [
        instruction(LOAD_NUMBER, 0, 0, 0),
        instruction(EQUAL, 0, 1, IO_URING_SETUP),
        instruction(RETURN, 0, 0, REFUSE_EPERM),
        instruction(RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(rules))
    program = struct.pack("@HP", len(rules), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in [(PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)]:
        if libc.prctl(*call, 0, 0):
            sys.exit(f"prctl{call[:2]}: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[1], sys.argv[1:])


main()
