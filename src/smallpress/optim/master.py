"""Mixed precision with one owner: fp32 weights that the optimizer moves, and a copy that the passes compute in."""

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smallpress.model.transformer import Transformer
from smallpress.optim.adamw8 import AdamW8

Choice = Literal["adamw", "adamw8"]

STATE_KEYS = ("step", "exp_avg", "exp_avg_sq", "exp_avg_scales", "exp_avg_sq_scales")


class MasterWeights:
    """`model` computes in `dtype`; `master` holds what it was rounded from, in fp32 the same memory. AdamW (Loshchilov
    and Hutter 2019), by torch, or with moments in 8 bits but for those of embeddings.

    Gradients are added up in fp32, over as many backward passes as come before `step`, and leave the computing copy as
    soon as they are whole, so no second set of them exists. Matrices decay, norms and biases do not.
    """

    def __init__(
        self,
        model: Transformer,
        dtype: torch.dtype,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        optimizer: Choice = "adamw",
        take: bool = False,
    ):
        """`take`: the model given becomes the computing copy, where else it is copied. What of it is no parameter (the
        frozen weights under low-rank adapters) keeps its dtype and has no master."""
        self.dtype = dtype
        self.model = model if take else copy.deepcopy(model)
        self.master = {name: self._split(parameter) for name, parameter in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:  # a router's selection bias does not
                self._collect(parameter, self.master[name])
        self.optimizer: torch.optim.Optimizer
        if optimizer == "adamw8":
            self.optimizer = AdamW8(self._groups(weight_decay, apart=True), lr=0.0, betas=betas, eps=eps)
        else:
            groups = self._groups(weight_decay, apart=False)
            self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)

    def _split(self, parameter: nn.Parameter) -> nn.Parameter:
        """The fp32 master of a parameter, which itself is then of the computing dtype; a router's selection bias, which
        no gradient moves, stays fp32."""
        master = parameter.detach().float()
        parameter.data = master.to(self.dtype if parameter.requires_grad else torch.float32)
        return nn.Parameter(master)

    def _collect(self, parameter: nn.Parameter, master: nn.Parameter) -> None:
        parameter.register_post_accumulate_grad_hook(Collect(master))

    def _groups(self, weight_decay: float, apart: bool) -> list[dict[str, Any]]:
        """Matrices, then norms and biases; with `apart` embeddings are a group of their own, whose moments are fp32."""
        embeddings = {
            f"{name}.weight"
            for name, module in self.model.named_modules()
            if apart and isinstance(module, nn.Embedding)
        }
        inner = [(name, p) for name, p in self.master.items() if name not in embeddings]
        groups: list[dict[str, Any]] = [
            {"params": [p for _, p in inner if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for _, p in inner if p.ndim < 2], "weight_decay": 0.0},
        ]
        if apart:
            params = [self.master[name] for name in sorted(embeddings)]
            groups.append({"params": params, "weight_decay": weight_decay, "moments": "float32"})
        return [group for group in groups if group["params"]]

    def grad_norm(self) -> float:
        """The length of the whole gradient added up so far; NaN or infinity where any part is."""
        grads = [p.grad for p in self.master.values() if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))) if grads else 0.0

    def step(self, lr: float, max_norm: float) -> None:
        """One AdamW step on the gradient, scaled down to `max_norm` where it is longer; then forget it."""
        norm = self.grad_norm()
        assert math.isfinite(norm), f"a step on a gradient of length {norm}"
        if norm > max_norm:
            torch._foreach_mul_([p.grad for p in self.master.values() if p.grad is not None], max_norm / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.forget_gradient()
        self.publish()

    def forget_gradient(self) -> None:
        for parameter in self.master.values():
            parameter.grad = None

    def end_step(self, n_done: int) -> None:
        """What is due after step `n_done`, taken or skipped: nothing, where no other process has weights to match."""

    def settle(self) -> None:
        """Before the weights are written down: nothing, where they are the only ones."""

    def part(self, name: str, whole: Tensor) -> Tensor:
        """What this process keeps of a weight: all of it, where it is the only one."""
        return whole

    def rows(self, name: str) -> tuple[int, int]:
        """The first row of a weight that this process keeps, and of how many."""
        return 0, len(self.master[name])

    @torch.no_grad()
    def publish(self) -> None:
        """Round the master weights into the computing copy, where that is one."""
        for name, parameter in self.model.named_parameters():
            if parameter.dtype != torch.float32:
                parameter.copy_(self.master[name])

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Everything a resume needs, by name: weights, both moments, the step count."""
        for name, parameter in self.master.items():
            yield f"weights/{name}", parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                yield f"adamw/{key}/{name}", value

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave; bit for bit."""
        for name, parameter in self.master.items():
            parameter.copy_(tensors[f"weights/{name}"])
            state = {key: tensors[at].clone() for key in STATE_KEYS if (at := f"adamw/{key}/{name}") in tensors}
            self.optimizer.state.pop(parameter, None)  # of steps that `tensors` has not taken
            if state and isinstance(self.optimizer, AdamW8):
                self.optimizer.set_state(parameter, state)
            elif state:
                self.optimizer.state[parameter] = state
        self.forget_gradient()
        self.publish()


class Collect:
    """Moves a gradient of the computing copy to its master, where it adds up in fp32."""

    def __init__(self, master: nn.Parameter):
        self.master = master

    def __call__(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        if self.master.grad is None:
            self.master.grad = parameter.grad.float()
        else:
            self.master.grad += parameter.grad
        parameter.grad = None
