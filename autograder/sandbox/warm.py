"""Makes forks of the warm server cheap: a submission costs two and each probe one, most of its price."""

import ctypes
import gc

_HUGE = 2 << 20
_MADV_COLLAPSE = 25  # Linux 6.1


def settle() -> None:
    """Arrange memory so that a fork copies little.

    Objects go where the garbage collector does not look: a collection in a child would touch, and so copy,
    every page of the server. Memory goes into 2 MB pages: a fork copies one entry for each, not five hundred.
    On Linux before 6.1 it stays as it is.
    """
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    with open("/proc/self/maps") as file:
        areas = [line.split() for line in file]
    for area, access, *_, name in (area for area in areas if len(area) == 5 or area[-1] == "[heap]"):
        if access.startswith("rw") and name in ("0", "[heap]"):
            start, end = (int(address, 16) for address in area.split("-"))
            for page in range(-(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE, _HUGE):
                libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(_HUGE), _MADV_COLLAPSE)
