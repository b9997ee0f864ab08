"""The allocator and the garbage collector, set as measured (ARCHITECTURE.md, "The hot path").

Large frames come and go all the time. glibc would map and unmap each of them, a page fault per 4 KiB; kept in
the heap they cost nothing after the first: 2 to 4 times the throughput at 1 MB frames. Other C libraries are
left alone.
"""

from __future__ import annotations

import ctypes
import gc

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3

_MIB = 1 << 20
_SETTINGS = ((M_MMAP_THRESHOLD, 32 * _MIB), (M_TRIM_THRESHOLD, 512 * _MIB), (M_TOP_PAD, 16 * _MIB))
GC_THRESHOLDS = (50_000, 20, 100)


def tune_memory() -> bool:
    """Keep freed frames in the heap; True where there is a glibc to ask. Call once, before serving."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  musl has a mallopt that does nothing
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    taken = [mallopt(option, value) == 1 for option, value in _SETTINGS]
    return all(taken)


def tune_collector() -> None:
    """After loading: what lives now lives on and need not be looked at again; collect the rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
