"""Memory that a training step frees is there for the next one without page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch")

# Page faults of filling an array of 64 MiB that was freed and is allocated again, once the heap has settled: the first
# few times an aligned array does not fit where its predecessor of the same size lay.
FAULTS = """
import resource, sys, torch
from lewm.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    run = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other allocators")
def test_freed_memory_is_used_again_without_page_faults():
    kept, given_back = faults("keep"), faults("as it is")
    assert kept < 100
    assert given_back > 10 * max(kept, 3)  # otherwise the setting does nothing that the default does not
