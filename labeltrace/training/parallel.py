"""One model over several processes: DDP, or FSDP2 with the aligned model as one group.

FSDP2 gathers parameters in forward hooks of the modules it shards. A captured graph calls no
submodules, so their hooks would not run; the hooks of the aligned module do. Sharded as one group,
all parameters are available while the graph reads them, and gradients are reduced afterwards.
Between forward passes, parameters, gradients and the optimizer's state are sharded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from timm.utils import ModelEmaV3, distribute_bn
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from labeltrace.errors import TrainingError
from labeltrace.training.distributed import Processes

Engine = Literal["ddp", "fsdp2"]


def wrap_parallel(
    aligned: nn.Module, average: ModelEmaV3 | None, processes: Processes, engine: Engine
) -> nn.Module:
    """The module to call in training; its gradients are averaged over all processes."""
    if processes.count == 1:
        return aligned
    if engine == "ddp":
        devices = [processes.device] if processes.device.type == "cuda" else None
        return DistributedDataParallel(aligned, device_ids=devices)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for module in (aligned, average.module) if average else (aligned,):
        fully_shard(module, mesh=mesh)
    return aligned


def gradient_sync_context(network: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """The context of a micro-batch: gradients are averaged over processes after the last one."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(is_last)
    if isinstance(network, DistributedDataParallel) and not is_last:
        return network.no_sync()
    return nullcontext()


def synchronize(module: nn.Module, processes: Processes) -> None:
    """Free gathered parameters, and average the running statistics of batch norms."""
    if isinstance(module, FSDPModule):
        module.reshard()
    if processes.count > 1:
        distribute_bn(module, processes.count, reduce=True)


def gather(state: Any) -> Any:
    """A state with complete tensors on the CPU; all processes must call this together."""
    complete = tree_map_only(DTensor, lambda shard: shard.full_tensor(), state)
    return tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), complete)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of complete tensors into an optimizer, whose parameters may be sharded."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    per_parameter = {
        number: {key: _shard_like(parameters[number], value) for key, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": per_parameter})


def _shard_like(parameter: Tensor, value: Any) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if value.shape != parameter.shape:
        raise TrainingError(
            f"the optimizer keeps a tensor of shape {tuple(value.shape)} for a parameter of shape "
            f"{tuple(parameter.shape)}, which FSDP2 cannot shard; use AdamW, or --engine ddp"
        )
    value = value.to(parameter.device)
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(value, mesh, placements, src_data_rank=None)
