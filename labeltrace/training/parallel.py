"""One model over several processes: DDP, or FSDP2 with the aligned model as one group.

FSDP2 gathers parameters in hooks of the modules that it shards. A captured graph calls no
submodules, so hooks of theirs would not run; those of the aligned module itself do. Sharded as a
whole, it has all parameters while the graph reads them, and gradients are reduced behind it.
Parameters, gradients and the optimizer's state are sharded in between.
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


def spread(
    aligned: nn.Module, average: ModelEmaV3 | None, processes: Processes, engine: Engine
) -> nn.Module:
    """The module to call in training, whose gradients are averaged over all processes."""
    if processes.count == 1:
        return aligned
    if engine == "ddp":
        devices = [processes.device] if processes.device.type == "cuda" else None
        return DistributedDataParallel(aligned, device_ids=devices)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for module in (aligned, average.module) if average else (aligned,):
        fully_shard(module, mesh=mesh)
    return aligned


def for_part(network: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """The context of one part of a batch: gradients are averaged behind the last part alone."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(is_last)
    if isinstance(network, DistributedDataParallel) and not is_last:
        return network.no_sync()
    return nullcontext()


def settle(module: nn.Module, processes: Processes) -> None:
    """Give back gathered parameters, and average the running statistics of batch norms."""
    if isinstance(module, FSDPModule):
        module.reshard()
    if processes.count > 1:
        distribute_bn(module, processes.count, reduce=True)


def whole(state: Any) -> Any:
    """A state with whole tensors on the CPU; all processes must call this together."""
    gathered = tree_map_only(DTensor, lambda shard: shard.full_tensor(), state)
    return tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), gathered)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of whole tensors into an optimizer, whose parameters may be sharded."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    of_parameters = {
        number: {key: _shard_like(parameters[number], value) for key, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": of_parameters})


def _shard_like(parameter: Tensor, value: Any) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if value.shape != parameter.shape:
        raise TrainingError(
            f"the optimizer keeps a tensor of shape {tuple(value.shape)} for a parameter of shape "
            f"{tuple(parameter.shape)}, which FSDP2 cannot shard; take AdamW, or DDP"
        )
    value = value.to(parameter.device)
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(value, mesh, placements, src_data_rank=None)
