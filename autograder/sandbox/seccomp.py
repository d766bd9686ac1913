"""The system calls that student code may not make, as a Linux seccomp filter (a classic BPF program).

Everything that reaches other processes, namespaces, mounts, the kernel's rarely tested parts, the network,
or memory that no limit counts is refused. Calls newer than this list are refused as "not implemented", so
that a new kernel opens no new door.
"""

import ctypes
import errno
import platform
import struct

# Numbers on (x86_64, aarch64); None where an architecture lacks the call. From 424 on they are the same.
_REFUSED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, None),
    "personality": (135, 92), "modify_ldt": (154, None), "uselib": (134, None), "_sysctl": (156, None),
    "sysfs": (139, None), "ustat": (136, None), "iopl": (172, None), "ioperm": (173, None),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "quotactl": (179, 60),
    "quotactl_fd": (443, 443),    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),     "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "vhangup": (153, 58),
    "lookup_dcookie": (212, 18), "nfsservctl": (180, 42), "vmsplice": (278, 75), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "mbind": (237, 235), "set_mempolicy": (238, 237),
    # Memory that belongs to no process, so that no limit and no watch would count it.
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
}  # fmt: skip
# As if the program did not exist, which every caller must expect.
_ABSENT = {"execve": (59, 221), "execveat": (322, 281)}
_CLONE, _SOCKET, _SOCKETPAIR = (56, 220), (41, 198), (53, 199)
_CLONE3, _NEWEST = 435, 456
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_AF_UNIX = 1

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little endian
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38


def program(machine: str) -> bytes:
    """Return the filter for "x86_64" or "aarch64" as an array of struct sock_filter. Raises KeyError."""
    column, architecture = _ARCHITECTURES[machine]
    code: list[bytes] = []

    def add(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        code.append(struct.pack("=HBBI", operation, if_true, if_false, value))

    def refuse(number: int | None, error: int) -> None:
        if number is not None:
            add(_EQUAL, number, 0, 1)
            add(_RETURN, _ERRNO | error)

    add(_LOAD, _ARCHITECTURE)
    add(_EQUAL, architecture, 1, 0)
    add(_RETURN, _KILL)
    add(_LOAD, _NUMBER)
    # Calls newer than the list; on x86_64 this covers the x32 numbers, which start at 0x40000000.
    add(_AT_LEAST, _NEWEST + 1, 0, 1)
    add(_RETURN, _ERRNO | errno.ENOSYS)
    # glibc falls back to clone, whose flags a filter can read.
    refuse(_CLONE3, errno.ENOSYS)
    for numbers in _REFUSED.values():
        refuse(numbers[column], errno.EPERM)
    for numbers in _ABSENT.values():
        refuse(numbers[column], errno.ENOENT)
    for numbers, test, value, refused_if in (
        (_CLONE, _ANY_BIT, _NEW_NAMESPACES, True),
        (_SOCKET, _EQUAL, _AF_UNIX, False),
        (_SOCKETPAIR, _EQUAL, _AF_UNIX, False),
    ):
        add(_EQUAL, numbers[column], 0, 4)
        add(_LOAD, _FIRST_ARGUMENT)
        add(test, value, *((0, 1) if refused_if else (1, 0)))
        add(_RETURN, _ERRNO | errno.EPERM)
        add(_RETURN, _ALLOW)
    add(_RETURN, _ALLOW)
    return b"".join(code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(code: bytes) -> None:
    """Put the filter on this process and all it will ever start. There is no way back. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    filled = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) or libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(filled)
    ):
        raise OSError(ctypes.get_errno(), "seccomp filter refused")


def machine() -> str:
    """Return the name of this machine's architecture. Raises OSError when there is no filter for it."""
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if name not in _ARCHITECTURES:
        raise OSError(
            f"no seccomp filter for the architecture {name!r}, only for {', '.join(_ARCHITECTURES)}"
        )
    return name
