"""One submission's own world: new namespaces, empty file systems, no privileges, limits on everything.

`spawn` starts the world's first process, *init*. When init ends, the kernel kills every process of the world
and its file systems vanish, so nothing a submission starts can outlive it.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NUMBER = {"x86_64": 56, "aarch64": 220}
_NEW = (
    0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)  # mount uts ipc user pid net
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522


def spawn(body: Callable[[], None], machine: str) -> int:
    """Start `body`, which must not return, as init of new namespaces; return its process id. Raises OSError.

    The same as os.fork, but clone makes the namespaces with the process: the caller is then the parent of
    init itself and knows, when it has waited for it, that the whole world is gone.
    """
    call = ctypes.PyDLL(None, use_errno=True).syscall  # PyDLL keeps the interpreter lock, as os.fork does
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = call(_CLONE_NUMBER[machine], ctypes.c_long(_NEW | signal.SIGCHLD), None, None, None, None)
    if pid == 0:
        try:
            ctypes.pythonapi.PyOS_AfterFork_Child()
            body()
        finally:
            os._exit(99)
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, f"no new namespaces: {os.strerror(error)}")
    return pid


def enclose(limits: dict[str, Any], hidden: list[str]) -> None:
    """Turn this process, init of fresh namespaces, into one that can reach nothing. Raises OSError.

    `hidden` names further folders to cover with empty ones.
    """
    if os.getpid() != 1:
        raise OSError("not the first process of a PID namespace")
    user, group = os.geteuid(), os.getegid()
    prctl(PR_SET_DUMPABLE, 1)  # /proc/self is writable to its own user only while dumpable
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/oom_score_adj", "1000")  # when the machine runs out of memory, students go first
    prctl(PR_SET_DUMPABLE, 0)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    for folder in ("/tmp", "/dev/shm"):
        _mount(
            "tmpfs",
            folder,
            "tmpfs",
            _MS_NOSUID | _MS_NODEV,
            f"mode=700,nr_inodes=4096,size={limits['tmpfs_mb']}m",
        )
    for folder in ("/proc", *hidden):
        _mount(
            "tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | 1, "mode=500,nr_inodes=2,size=4k"
        )
    os.chdir("/tmp")
    bound(limits)
    resource.setrlimit(resource.RLIMIT_NPROC, (limits["processes"], limits["processes"]))
    _drop_capabilities()


def bound(limits: dict[str, Any]) -> None:
    """Set the limits of one process, which its children inherit."""
    for kind, value in {
        resource.RLIMIT_DATA: limits["data_bytes"],
        resource.RLIMIT_AS: limits["address_bytes"],
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["tmpfs_mb"] << 20,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
    }.items():
        resource.setrlimit(kind, (value, value))


def prctl(option: int, value: int) -> None:
    """Call prctl(option, value). Raises OSError."""
    if _libc.prctl(option, *(ctypes.c_ulong(number) for number in (value, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    encoded = [text and text.encode() for text in (source, target, kind, options)]
    if _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]):
        raise OSError(
            ctypes.get_errno(), f"mount {kind or 'flags'} on {target}: {os.strerror(ctypes.get_errno())}"
        )


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _drop_capabilities() -> None:
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0):
            break  # past the last one this kernel knows
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
