"""Measure how much memory this process may still take."""

from __future__ import annotations

import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # in a container: the container's own group


def free_memory() -> int:
    """Return the free memory in bytes: the least of the machine's, the container's and the shell limit's."""
    import psutil  # noqa: PLC0415 - only needed to save a model in the background

    limits = [int(psutil.virtual_memory().available)]
    for maximum_file, usage_file in (("memory.max", "memory.current"), *_CGROUP_1):
        try:
            limits.append(int((_CGROUP / maximum_file).read_text()) - int((_CGROUP / usage_file).read_text()))
        except (OSError, ValueError):  # another system, or "max": no limit
            continue
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        limits.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(limits))


_CGROUP_1 = (("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),)
