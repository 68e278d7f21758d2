"""The processes of a training, started by torchrun: each computes some parts of every batch, the first one writes.

A batch is cut into `train.gradient_accumulation_steps`. Random draws belong to a clip's place in the batch, and gradients are added up, so it
makes no difference (but for rounding) how many parts there are and which process computed which. Gradients are summed
once per step, in pieces; unlike with DistributedDataParallel a part may be smaller than another, or empty, without
being padded.
"""

import logging
import os
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from aumcli.errors import AumError
from aumcli.utils.files import scratch_folder
from aumcli.utils.processes import FIX, rank_and_world_size

PIECE_BYTES = 25 * 2**20  # gradients go out in pieces of this size: as many at a time as the network takes
TIMEOUT = timedelta(minutes=30)  # for the slowest moment: one process reads a corpus while the others wait
RESTARTS = 3
STOP_SECONDS = 120  # after a signal, for the step and for saving
EXIT_FILE = "AUM_EXIT_FILE"  # names the file in which a process leaves the exit code of all


class ProcessGroup:
    """The processes that train together; alone, every method is free."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, in the same order everywhere."""
        if self.size == 1:
            return
        grads = [x.grad if x.grad is not None else torch.zeros_like(x) for x in parameters]
        pieces: list[list[Tensor]] = [[]]
        for grad in grads:
            if sum(x.nbytes for x in pieces[-1]) + grad.nbytes > PIECE_BYTES and pieces[-1]:
                pieces.append([])
            pieces[-1].append(grad)
        flat = [torch.cat([x.flatten() for x in piece]) for piece in pieces]
        for work in [dist.all_reduce(x, async_op=True) for x in flat]:
            work.wait()
        for piece, x in zip(pieces, flat):
            for grad, part in zip(piece, x.split([each.numel() for each in piece])):
                grad.copy_(part.view_as(grad))
        for parameter, grad in zip(parameters, grads):
            parameter.grad = grad

    def sum(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Sum each value over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The process_group that torchrun started this process in, or this process alone."""
    if rank_and_world_size()[1] == 1:
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL gathers objects by way of the current one
    # torchrun's store outlives a restart: under the old names the processes would find the addresses of those
    # that have died
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    except (ValueError, dist.DistError) as error:
        raise AumError(
            f"the processes of the training don't find each other: {str(error).splitlines()[0]}", fix=FIX
        ) from error
    store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )
    yield ProcessGroup(rank, size)
    dist.destroy_process_group()  # not after an error: that would wait for processes that don't come


def local_device(name: str) -> str:
    """The GPU of this process in its process_group, where "cuda" names none; and cuBLAS is told to be deterministic."""
    if name.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first GPU is opened
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and os.environ.get("LOCAL_RANK") else name


def launch_id() -> str | None:
    """Names what started this process in a process_group, the same when it is started again after a failure;
    None: it is alone.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {socket.gethostname()} {os.getppid()}"


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run `aum ARGUMENTS` by torchrun in so many processes of this machine,
    started again up to RESTARTS times where one dies.

    Args:
        devices: GPUs, or processes on a CPU, which share its cores.
        arguments: of the command line, without --devices.

    Returns:
        The exit code.

    Raises:
        AumError: there are too few cores, or processes died again and again.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices > 2 * cores and not torch.cuda.is_available():
        raise AumError(f"--devices {devices} on {cores} cores without a GPU", fix=f"choose at most {cores}")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes speak for themselves
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=RESTARTS,
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // devices)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(STOP_SECONDS))
    with scratch_folder() as folder:
        exit_file = folder / "code"
        os.environ[EXIT_FILE] = str(exit_file)
        code = 0
        try:
            elastic_launch(config, sys.executable)("-u", "-m", "aumcli", *arguments)
        except SignalException as stopped:
            code = 128 + stopped.sigval
        except ChildFailedError as error:
            if not exit_file.exists():
                raise AumError(
                    f"processes of the training died {RESTARTS + 1} times, the first of them with exit code "
                    f"{error.get_first_failure()[1].exitcode}",
                    fix="see what they said; go on with --resume",
                    exit_code=1,
                ) from error
        finally:
            del os.environ[EXIT_FILE]
        return int(exit_file.read_text()) if exit_file.exists() else code


@contextmanager
def errors_from_one_rank() -> Iterator[None]:
    """Among processes of `launch`, let the first that fails speak, and leave the exit code;
    the others end without a word.

    Processes started again because of that, which torchrun can't know, end at once.
    """
    if EXIT_FILE not in os.environ:
        yield
        return
    path = Path(os.environ[EXIT_FILE])
    if path.exists():
        sys.exit()
    try:
        yield
    except AumError as error:
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(str(error.exit_code))
        except FileExistsError:
            sys.exit(error.exit_code)
        raise
    except RuntimeError:  # of a sum that another process has left
        if path.exists():
            sys.exit(1)
        raise
