"""AdamW whose moments take 2 bytes a parameter instead of 8.

Each moment is kept in 8 bits, 256 values to a scale (lowbit/dynamic_map.py), read, moved and used in fp32 in one pass.
As in the paper (arXiv 2110.02861) tensors of few values and embeddings keep fp32: the one because nothing is gained,
the other because their gradients are the most uneven. `moments` says it for each parameter group.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from smallpress.lowbit.dynamic_map import dynamic_map
from smallpress.lowbit.native_core import native_core
from smallpress.optim.adamw_step import FIRST, SECOND, AdamWStep, State, new_state, plain_step, state_shapes
from smallpress.run.errors import UserError

Moments = Literal["float32", "bfloat16", "8bit"]

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "8bit": torch.uint8}

MIN_8BIT_SIZE = 4096
"""Values a tensor must have to be kept in 8 bits."""


class AdamW8(Optimizer):
    """Groups take the options of torch's AdamW, and `moments`: "8bit", "bfloat16" or "float32"; a tensor of fewer
    values than `min_8bit_size` has fp32 where its group has 8 bits.

    Parameters are fp32. On a CPU the native core takes the step, all tensors spread over `n_threads` (None: torch's
    number); the result does not depend on how many they are. Elsewhere, and with `plain`, torch does.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        moments: Moments = "8bit",
        min_8bit_size: int = MIN_8BIT_SIZE,
        n_threads: int | None = None,
        plain: bool = False,
    ):
        """Raises UserError where an option is out of its range or a parameter is not dense fp32."""
        self.n_threads = n_threads
        self._core = None if plain else native_core()
        self._maps = None
        if self._core is not None:
            self._maps = [self._core.DynamicMap(dynamic_map(signed).numpy(), signed) for signed in (True, False)]
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"moments": moments, "min_8bit_size": min_8bit_size})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _check_options(group)
        for parameter in group["params"]:
            if parameter.dtype != torch.float32 or not parameter.is_contiguous():
                kind = "" if parameter.is_contiguous() else "non-contiguous "
                what = f"AdamW8 moves contiguous fp32 parameters, not {kind}{parameter.dtype} {list(parameter.shape)}"
                raise UserError(what, "keep fp32 master weights (optim.master) beside what computes")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on every parameter that has a gradient; the closure's loss, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for count, parameters in self._by_step(group).items():
                step = AdamWStep.at(count, group["lr"], group["betas"], group["eps"], group["weight_decay"])
                self._move(step, parameters)
        return loss

    def state_bytes(self) -> int:
        """Bytes of all moments and their scales."""
        return sum(
            t.numel() * t.element_size() for state in self.state.values() for k, t in state.items() if k != "step"
        )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, bit for bit. Raises UserError where it is of other tensors or moments."""
        super().load_state_dict(dict(state_dict))
        for group in self.param_groups:
            _check_options(group)
            for parameter in group["params"]:
                if parameter in self.state:
                    self.state[parameter] = self._checked(self.state[parameter], parameter, group)

    def set_state(self, parameter: Tensor, state: State) -> None:
        """Give one parameter the state of an earlier run; raises UserError as `load_state_dict`."""
        group = next(g for g in self.param_groups if any(parameter is p for p in g["params"]))
        self.state[parameter] = self._checked(state, parameter, group)

    @staticmethod
    def _checked(state: Mapping[str, Tensor], parameter: Tensor, group: Mapping[str, Any]) -> State:
        """A copy in the dtypes the state has here: torch has made all of it fp32, which loses nothing."""
        wanted = state_shapes(parameter, _dtype_of(parameter, group))
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found != {name: shape for name, (shape, _) in wanted.items()}:
            what = f"the optimizer's state has {_told(found)}, but {group['moments']} moments of "
            what += f"{list(parameter.shape)} call for "
            what += _told({name: shape for name, (shape, _) in wanted.items()})
            raise UserError(what, "resume with the model and the optimizer it was written under")
        return {name: state[name].to(dtype, copy=True) for name, (_, dtype) in wanted.items()}

    def _by_step(self, group: dict[str, Any]) -> dict[int, list[Tensor]]:
        """The parameters with a gradient, by the number of the step they are about to take."""
        found: dict[int, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                raise UserError("AdamW8 takes no sparse gradients", "make the embedding with sparse=False")
            if not self.state[parameter]:
                self.state[parameter] = new_state(parameter, _dtype_of(parameter, group))
            count = self.state[parameter]["step"]
            count += 1
            found[int(count)].append(parameter)
        return found

    def _move(self, step: AdamWStep, parameters: list[Tensor]) -> None:
        native = [p for p in parameters if self._core is not None and p.device.type == "cpu"]
        for parameter in parameters:
            if self._core is None or parameter.device.type != "cpu":
                assert parameter.grad is not None
                plain_step(step, parameter, parameter.grad, self.state[parameter])
        if native and self._core is not None and self._maps is not None:
            rows = [_row(parameter, self.state[parameter]) for parameter in native]
            options = {name: getattr(step, name) for name in AdamWStep.__slots__}
            self._core.adamw(self.n_threads or torch.get_num_threads(), *self._maps, rows, **options)


def _row(parameter: Tensor, state: State) -> tuple[Any, ...]:
    """What _native.adamw takes for one tensor; views, not copies."""
    assert parameter.grad is not None
    moments = (view for name in (FIRST, SECOND) for view in (_flat(state[name]), _scales(state, name)))
    return (_flat(parameter), _flat(parameter.grad.contiguous()), *moments)


def _flat(tensor: Tensor) -> Any:
    flat = tensor.detach().view(-1)
    return (flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat).numpy()


def _scales(state: State, name: str) -> Any:
    scales = state.get(f"{name}_scales")
    return None if scales is None else scales.numpy()


def _dtype_of(parameter: Tensor, group: Mapping[str, Any]) -> torch.dtype:
    is_small = group["moments"] == "8bit" and parameter.numel() < group["min_8bit_size"]
    return torch.float32 if is_small else DTYPES[group["moments"]]


def _check_options(group: dict[str, Any]) -> None:
    if group["moments"] not in DTYPES:
        raise UserError(f"there are no moments {group['moments']!r}", f"choose one of {', '.join(DTYPES)}")
    for name in ("lr", "eps", "weight_decay", "min_8bit_size"):
        if not group[name] >= 0:
            raise UserError(f"{name}={group[name]} is not a number from 0 upwards", f"give an {name} of 0 or more")
    if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
        raise UserError(f"betas={group['betas']} are not two numbers from 0 to below 1", "give two, such as 0.9, 0.95")


def _told(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
