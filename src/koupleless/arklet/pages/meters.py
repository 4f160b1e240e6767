"""The component ``metrics`` of ``/actuator/health``: keys of the original, made for a Java process, values of this one.

Sizes are bytes, -1 where this process has no such figure; the sizes of the machine are mebibytes, as in the original.
"""

from __future__ import annotations

import datetime as dt
import gc
import os
import sys
import threading
from typing import Any, Final

_UNKNOWN: Final = -1
_MIB: Final = 1 << 20


def meters() -> dict[str, Any]:
    """Measure now."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - the import takes 15 ms, once, of a request

    process, memory = psutil.Process(), psutil.virtual_memory()
    resident = process.memory_info().rss
    young, old = gc.get_stats()[0], gc.get_stats()[-1]
    threads = threading.enumerate()
    modules = len(sys.modules)
    return {
        "timestamp": dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        "metaspaceMetrics": _size(_UNKNOWN),
        "noHeapMetrics": _size(_UNKNOWN),
        "heapMetrics": {**_size(resident), "max": memory.total},
        "gcmetrics": {
            "fgcCount": old["collections"],
            "fgcTime": _UNKNOWN,
            "ygcCount": young["collections"],
            "ygcTime": _UNKNOWN,
        },
        "systemMetrics": {
            "systemLoadAverage": os.getloadavg()[0],
            "processCpuLoad": process.cpu_percent() / 100,
            "systemCpuLoad": psutil.cpu_percent() / 100,
            "freePhysicalMemorySize": memory.available // _MIB,
            "totalPhysicalMemorySize": memory.total // _MIB,
        },
        "threadMetrics": {
            "threadCount": len(threads),
            "daemonThreadCount": sum(thread.daemon for thread in threads),
            "peakThreadCount": _UNKNOWN,
            "totalStartedThreadCount": _UNKNOWN,
        },
        "classLoadingMetrics": {
            "totalLoadedClassCount": modules,
            "loadedClassCount": modules,
            "unloadedClassCount": 0,
        },
    }


def _size(used: int) -> dict[str, int]:
    return {"init": _UNKNOWN, "used": used, "committed": used, "max": _UNKNOWN}
