"""Which device a process computes on; of several GPUs each process of a machine has its own."""

import os
import re
from collections.abc import Mapping

from mmmos import parallel
from mmmos.errors import UsageError

# Threads that decode for one GPU, at most: a worker that sees one GPU of many cannot tell how many share its cores.
DECODERS = 8

# Slurm has dealt out the GPUs itself where one of these is set.
_DEALT = ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_GPU_BIND")


def find_device(device: str) -> str:
    """The torch device that a name means in this process. Raises ``UsageError`` for an absent one.

    "auto" takes CUDA, then MPS, then the CPU. Of several CUDA devices "auto" and "cuda" are the one for this worker's
    ``parallel.slot``; "cuda:1" is that one everywhere.
    """
    if device == "cpu":
        return device
    import torch

    if device in ("auto", "cuda") and (gpus := own_gpus()):
        number = gpus[parallel.slot() % len(gpus)]
        return f"cuda:{number}" if number else "cuda"
    if device == "auto":
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"The device {device!r} cannot be used: {reason}. Try auto, cpu, cuda, cuda:1 or mps."
        ) from None
    return device


def processes(device: str) -> int:
    """How many processes compute on a device unless the user says otherwise: one for each GPU that it means."""
    return max(1, len(own_gpus())) if device in ("auto", "cuda") else 1


def decoders() -> int:
    """Threads that decode for one GPU: its share of the cores, ``DECODERS`` at most."""
    return min(DECODERS, max(1, parallel.cores() // max(1, len(own_gpus()))))


def own_gpus() -> list[int]:
    """The CUDA devices of this process by torch's numbers, which begin at 0 within CUDA_VISIBLE_DEVICES."""
    import torch

    return share(torch.cuda.device_count() if torch.cuda.is_available() else 0, os.environ)


def share(gpus: int, environment: Mapping[str, str]) -> list[int]:
    """Of as many GPUs as a process sees, those that are its own.

    They are all of them, but in a Slurm step whose tasks on a node all see the same ones: there each task has every
    n-th, unless there are fewer GPUs than tasks.
    """
    tasks = _tasks_here(environment)
    if tasks > gpus or any(name in environment for name in _DEALT):
        return list(range(gpus))
    return list(range(int(environment.get("SLURM_LOCALID", 0)), gpus, tasks))


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Tasks of this Slurm step on this node; 1 outside of a step.

    A batch script has SLURM_NTASKS_PER_NODE and SLURM_LOCALID as well, but is alone; only ``srun`` sets what is read
    here, as "2(x3),1" for four nodes.
    """
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        counts += [int(found[1])] * int(found[2] or 1) if found else []
    node = int(environment.get("SLURM_NODEID", 0))
    return counts[node] if node < len(counts) else 1
