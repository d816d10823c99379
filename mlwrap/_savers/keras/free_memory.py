"""How much memory may this process still take?"""

from __future__ import annotations

import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # as a container sees its own


def free_memory() -> int:
    """Bytes that are free: on the machine, in the container, and of what a limit of the shell's leaves."""
    import psutil  # noqa: PLC0415 - a run that saves no model in the background does without

    found = [int(psutil.virtual_memory().available)]
    for most, used in (("memory.max", "memory.current"), *_CGROUP_1):
        try:
            found.append(int((_CGROUP / most).read_text()) - int((_CGROUP / used).read_text()))
        except (OSError, ValueError):  # another system, or "max": no limit
            continue
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        found.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(found))


_CGROUP_1 = (("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),)
