"""The processes of a training, started by torchrun: each computes some microbatches of every batch, rank zero writes.

A batch is cut into `train.gradient_accumulation_steps` microbatches. Random draws belong to a clip's position in the
batch, and gradients are summed, so neither the number of microbatches nor that of processes changes the result but for
rounding. Gradients are reduced once per step, in buckets; unlike with DistributedDataParallel a microbatch may be
smaller than another, or empty, without padding.
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
from aumcli.utils.threads import available_cpus

BUCKET_BYTES = 25 * 2**20  # gradients are reduced in buckets of this size
TIMEOUT = timedelta(minutes=30)  # the longest wait: one process reads a corpus while the others are ready
RESTARTS = 3
STOP_SECONDS = 120  # after a signal, to finish the step and save
EXIT_FILE = "AUM_EXIT_FILE"  # path of the file with the exit code of all processes


class ProcessGroup:
    """The processes that train together; of one process alone, every method returns at once."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, which all have to pass parameters in the same order."""
        if self.size == 1:
            return
        grads = [x.grad if x.grad is not None else torch.zeros_like(x) for x in parameters]
        buckets: list[list[Tensor]] = [[]]
        for grad in grads:
            if sum(x.nbytes for x in buckets[-1]) + grad.nbytes > BUCKET_BYTES and buckets[-1]:
                buckets.append([])
            buckets[-1].append(grad)
        flat = [torch.cat([x.flatten() for x in bucket]) for bucket in buckets]
        for work in [dist.all_reduce(x, async_op=True) for x in flat]:
            work.wait()
        for bucket, x in zip(buckets, flat):
            for grad, total in zip(bucket, x.split([each.numel() for each in bucket])):
                grad.copy_(total.view_as(grad))
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
        """The value of every process, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The process group that torchrun started this process in, or this process alone."""
    if rank_and_world_size()[1] == 1:
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL gathers objects by way of the current one
    # torchrun's store survives a restart: under the old keys the processes would find the addresses of dead ones
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    except (ValueError, dist.DistError) as error:
        raise AumError(f"the processes of the training can't connect: {str(error).splitlines()[0]}", fix=FIX) from error
    store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )
    yield ProcessGroup(rank, size)
    dist.destroy_process_group()  # not after an error: that would wait for processes that don't come


def local_device(name: str) -> str:
    """The GPU with the local rank of this process, where "cuda" names none; cuBLAS is set to be deterministic."""
    if name.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first GPU is opened
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and os.environ.get("LOCAL_RANK") else name


def launch_id() -> str | None:
    """Identifies the torchrun call that started this process, also across its restarts; None: there is none."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {socket.gethostname()} {os.getppid()}"


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run `aum ARGUMENTS` by torchrun in several processes of this machine, restarted up to RESTARTS times.

    Args:
        devices: number of processes: of GPUs, or on a CPU, whose cores they share.
        arguments: of the command line, without --devices.

    Returns:
        The exit code.

    Raises:
        AumError: there are too few cores, or processes died again and again.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = available_cpus()
    if devices > 2 * cores and not torch.cuda.is_available():
        raise AumError(f"--devices {devices} on {cores} cores without a GPU", fix=f"choose at most {cores}")
    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # the processes report their errors themselves
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
def report_error_once() -> Iterator[None]:
    """Among the processes of `launch`, the first that fails reports its error and stores the exit code of all.

    torchrun restarts them nevertheless, since it knows nothing of the error; then they end at once.
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
    except RuntimeError:  # of a reduction in which another process is missing
        if path.exists():
            sys.exit(1)
        raise
