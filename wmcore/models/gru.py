"""The GRU layer with a backward pass of its own. Shapes: B trials, T steps, D inputs, H units.

Cho et al. 2014 (arXiv:1406.1078), in torch's form: r = s(W_ir u + b_ir + W_hr h + b_hr), z = s(W_iz u + b_iz + W_hz h
+ b_hz), q = W_hn h + b_hn, n = tanh(W_in u + b_in + r q), h' = (1 - z) n + z h.

On a CPU, torch's own layer spends much of small batches on the bookkeeping of autograd, and adds to the weights'
gradients at every step. Here a step is a few operations into buffers, and each gradient is one product over all steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def gru(layer: nn.GRU, u: Tensor, h: Tensor) -> Tensor:
    """(B, T, H) states of a layer (one layer, one direction, batch first) for (B, T, D) inputs from (B, H) states.

    Not for autocast: inputs and weights must be of one type, which is that of the states. The backward pass needs the
    states that it gives, so that torch forbids changing them in place: clone them first.

    Raises:
        RuntimeError: inputs and weights are of different types.
    """
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    return _GRU.apply(u.transpose(0, 1), h, *weights).transpose(0, 1)  # pyright: ignore[reportOptionalMemberAccess]


class _GRU(torch.autograd.Function):
    """Time first: inputs (T, B, D), states (T, B, H)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        steps, size = u.shape[:2]
        units = h.shape[1]
        from_input = torch.addmm(b_ih, u.flatten(0, 1), w_ih.t()).view(steps, size, 3 * units)
        gates = u.new_empty(steps, size, 4 * units)  # r, z, q, n
        states = u.new_empty(steps + 1, size, units)
        states[0] = h
        from_state, transposed = u.new_empty(size, 3 * units), w_hh.t()
        q_new = from_state[:, 2 * units :]
        rz, r, z, q, n = _blocks(gates, units, (0, 2), (0, 1), (1, 2), (2, 3), (3, 4))
        rz_input, n_input = _blocks(from_input, units, (0, 2), (2, 3))
        h_at = states.unbind(0)
        for t in range(steps):
            torch.addmm(b_hh, h_at[t], transposed, out=from_state)
            torch.add(rz_input[t], from_state[:, : 2 * units], out=rz[t]).sigmoid_()
            q[t].copy_(q_new)
            torch.addcmul(n_input[t], r[t], q_new, out=n[t]).tanh_()
            torch.lerp(n[t], h_at[t], z[t], out=h_at[t + 1])
        ctx.save_for_backward(u, gates, states, w_ih, w_hh)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        u, gates, states, w_ih, w_hh = ctx.saved_tensors
        (grad,) = grad_outputs
        steps, _, units = grad.shape
        slopes = torch.empty_like(gates)  # of the loss, by what r, z, q and n are functions of
        r, z, q, n = _blocks(gates, units, *((i, i + 1) for i in range(4)))
        dr, dz, dq, dn, drzq = _blocks(slopes, units, *((i, i + 1) for i in range(4)), (0, 3))
        h_at, grad_at = states.unbind(0), grad.unbind(0)
        dh, kept = torch.zeros_like(states[0]), torch.empty_like(states[0])
        new = torch.empty_like(kept)
        for t in range(steps - 1, -1, -1):
            dh += grad_at[t]
            torch.mul(dh, z[t], out=kept)  # dh z
            torch.sub(dh, kept, out=new)  # dh (1 - z)
            torch.sub(h_at[t], n[t], out=dz[t]).mul_(new).mul_(z[t])  # (h - n) dh (1 - z) z
            torch.addcmul(new, new * n[t], n[t], value=-1, out=dn[t])  # dh (1 - z) (1 - n^2)
            torch.mul(dn[t], r[t], out=dq[t])
            torch.addcmul(dq[t], dq[t], r[t], value=-1, out=dr[t]).mul_(q[t])  # dn q r (1 - r)
            torch.addmm(kept, drzq[t], w_hh, out=dh)
        flat = slopes.flatten(0, 1)
        du = None
        if ctx.needs_input_grad[0]:
            du = (flat[:, : 2 * units] @ w_ih[: 2 * units]).addmm_(flat[:, 3 * units :], w_ih[2 * units :]).view_as(u)
        # The wide matrix on the right: with few inputs this takes a third of the time of the transposed product.
        dw_ih = _without_q((u.flatten(0, 1).t() @ flat).t(), units)
        dw_hh = (states[:-1].flatten(0, 1).t() @ flat[:, : 3 * units]).t()
        total = flat.sum(0)
        return du, dh, dw_ih, dw_hh, _without_q(total, units), total[: 3 * units]


def _blocks(value: Tensor, units: int, *bounds: tuple[int, int]) -> list[tuple[Tensor, ...]]:
    """For each pair: T views of (B, ...) on so many blocks of units."""
    return [value[..., start * units : stop * units].unbind(0) for start, stop in bounds]


def _without_q(value: Tensor, units: int) -> Tensor:
    """Rows r, z and n of r, z, q and n."""
    return torch.cat([value[: 2 * units], value[3 * units :]])
