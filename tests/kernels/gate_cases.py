"""Inputs for the gate kernels, the truth about them in float64, and plain PyTorch's distance to it.

The plain form shares no code with the reference: it is torch's own norms, one after the other.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from normattn import kernels

EPS, GATE_EPS = 1e-5, 1e-3
#: Plain · odd · one channel · one image, 49 pixels · 1x1 maps · channels over pixels · sixteens
SHAPES = [
    (2, 3, 4, 6),
    (3, 5, 9, 7),
    (4, 1, 3, 5),
    (1, 5, 7, 7),
    (6, 5, 1, 1),
    (2, 130, 2, 3),
    (2, 32, 16, 16),
]
ORDERS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
VECTORS = ("weight", "bias", "scale", "shift")


@dataclass(frozen=True)
class Case:
    """All of a kernel's call but the numbers."""

    shape: tuple[int, int, int, int] = (2, 5, 7, 7)
    over: str = "channel"
    order: str = "NCHW"
    dtype: torch.dtype = torch.float32
    norm: bool = False
    gate: bool = True
    residual: bool = False
    relu: bool = False
    fixed: bool = False
    mean: float = 0.0

    def __str__(self):
        parts = [self.over, self.order, str(self.dtype)[6:], "x".join(map(str, self.shape))]
        flags = ("norm", "gate", "residual", "relu", "fixed")
        parts += [name for name in flags if getattr(self, name)]
        return "-".join(parts) + (f"-mean{self.mean:g}" if self.mean else "")


EVERYTHING = {"norm": True, "gate": True, "residual": True, "relu": True}
#: Every op, with and without its optional parts.
FORMS = [
    Case(over="channel"),
    Case(over="pixel"),
    Case(over="instance"),
    Case(over="channel", fixed=True),
    Case(over="pixel", fixed=True),
    Case(**EVERYTHING),
    Case(**EVERYTHING, fixed=True),
    Case(norm=True, gate=False, residual=True, relu=True),
    Case(norm=True, gate=False, residual=True, fixed=True),
    Case(norm=True, gate=True, relu=True),
]


def draw(case, seed=0):
    """Return what goes into a kernel, all random: maps in the case's type, vectors in float32.

    Of a fixed form weight, bias, scale and shift are p, q, slope and offset.
    """
    random = torch.Generator().manual_seed(seed)
    _, channels, height, width = case.shape
    length = height * width if case.over == "pixel" else channels

    def make_map(mean=0.0):
        values = torch.randn(case.shape, generator=random) + mean
        return values.to(case.dtype, memory_format=ORDERS[case.order])

    def make_vector(mean=0.0):
        dtype = torch.float64 if case.dtype == torch.float64 else torch.float32
        return (torch.randn(length, generator=random) + mean).to(dtype)

    inputs = {"dy": make_map(), "z": make_map(case.mean)}
    inputs["residual"] = make_map() if case.residual else None
    for name in VECTORS:
        there = case.norm if name in ("weight", "bias") else case.gate
        inputs[name] = make_vector() if there else None
    inputs["center"] = make_vector(case.mean) if case.fixed else None
    if case.norm:
        inputs["weight"][:1] = 0.0
    if case.relu:
        # Next to a ReLU's corner rounding decides which way the gradient goes.
        corner = 0.1 if case.dtype.itemsize == 2 else 1e-4
        argument = truth(replace(case, relu=False), inputs)["out"]
        inputs["dy"][argument.abs() < corner] = 0.0
    return inputs


def plain(case, inputs):
    """Return output and gradients as modules give them: a norm, and the gate's own norm of that."""
    leaves = {k: t.detach().clone().requires_grad_() for k, t in inputs.items() if t is not None}
    center, dy = leaves.pop("center", None), leaves.pop("dy").detach()
    z, first_eps = leaves["z"], 0.0 if case.fixed else EPS
    running = None if center is None else center.detach()
    x = z
    if case.norm:
        x = normalise(z, case.over, first_eps, running, leaves["weight"], leaves["bias"])
    y = x
    if case.gate:
        if case.norm and not case.fixed:
            n = normalise(x, case.over, GATE_EPS)
        else:
            n = normalise(z, case.over, first_eps, running)
        scale, shift = (spread(leaves[name], case) for name in ("scale", "shift"))
        y = (x * torch.sigmoid(scale * n + shift)).to(z.dtype)
    y = y + leaves["residual"] if case.residual else y
    out = torch.relu(y) if case.relu else y
    grads = torch.autograd.grad(out, list(leaves.values()), dy)
    named = {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {"out": out.detach()} | named


def truth(case, inputs):
    """Return the plain form's results in float64."""
    exact = {name: None if t is None else t.double() for name, t in inputs.items()}
    return plain(replace(case, dtype=torch.float64), exact)


def normalise(x, over, eps, running=None, weight=None, bias=None):
    """Return torch's norm of ``x``, with its own mean and variance or with a given mean and 1."""
    if over == "instance":
        return torch.group_norm(x, x.shape[1], weight, bias, eps)
    rows = x.reshape(-1, x.shape[2] * x.shape[3]) if over == "pixel" else x
    var = None if running is None else torch.ones_like(running)
    training = running is None
    return F.batch_norm(rows, running, var, weight, bias, training, 0.0, eps).reshape(x.shape)


def spread(vector, case):
    return vector.view(1, 1, *case.shape[2:]) if case.over == "pixel" else vector.view(1, -1, 1, 1)


def call(provider, case, inputs):
    """Return the same results from the four functions of ``provider``."""
    weight, bias, scale, shift = (inputs[name] for name in VECTORS)
    dy, z, residual = inputs["dy"], inputs["z"], inputs["residual"]
    common = {"over": case.over, "relu": case.relu}
    if case.fixed:
        common |= {"center": inputs["center"], "p": weight, "q": bias}
        common |= {"slope": scale, "offset": shift}
        out = provider.forward_fixed(z, residual=residual, **common)
        back = provider.backward_fixed
    else:
        common |= {"weight": weight, "bias": bias, "scale": scale, "shift": shift}
        common |= {"eps": EPS, "gate_eps": GATE_EPS}
        out, mean, var = provider.forward(z, residual=residual, **common)
        common |= {"mean": mean, "var": var}
        back = provider.backward
    seen = out if case.residual and case.relu else None
    grads = back(dy, z, seen, residual=case.residual, **common)
    names = ("dz", "dresidual", *(f"d{name}" for name in VECTORS))
    found = {name: grad for name, grad in zip(names, grads, strict=True) if grad is not None}
    return {"out": out} | found


def poisoned(provider, case, inputs):
    """Return what `call` does where all fresh memory is full of NaN until it is written."""
    torch.use_deterministic_algorithms(True)  # fill_uninitialized_memory is on by default
    try:
        assert torch.empty(3).isnan().all()
        return call(provider, case, inputs)
    finally:
        torch.use_deterministic_algorithms(False)


def check(provider, case, seeds=3, slack=4):
    """Refuse an error beyond twice that of plain PyTorch and beyond ``slack`` units.

    A unit is what no program can keep: one rounding of the result, and what it does to the result
    to round the inputs anew. Of all three errors the largest over some draws counts.
    """
    if case.over == "instance" and case.shape[2:] == (1, 1):
        slack *= 4  # what flows through x̂ cancels, in the GPU's kernels but for its rounding
    allowed, errors = {}, {}
    for seed in range(seeds):
        inputs = draw(case, seed)
        exact, theirs, ours = (
            truth(case, inputs),
            plain(case, inputs),
            poisoned(provider, case, inputs),
        )
        jitter = truth(case, jittered(inputs, seed))
        assert ours.keys() == exact.keys()
        for name, value in exact.items():
            assert ours[name].shape == value.shape, name
            assert ours[name].dtype == theirs[name].dtype, name
            unit = torch.finfo(ours[name].dtype).eps * value.abs().max().item()
            bounds = (distance(theirs[name], value), unit, distance(jitter[name], value))
            allowed[name] = list(map(max, allowed.get(name, bounds), bounds))
            errors[name] = max(errors.get(name, 0.0), distance(ours[name], value))
    for name, (plain_error, unit, jitter) in allowed.items():
        bound = max(2 * plain_error, slack * (unit + jitter))
        assert errors[name] <= bound, f"{case}: {name} is wrong by {errors[name]}, not {bound}"


def jittered(inputs, seed):
    """Return the inputs in float64, moved by up to half a step of float32 each."""
    random = torch.Generator().manual_seed(seed)

    def move(t):
        noise = 2 * torch.rand(t.shape, generator=random, dtype=torch.float64) - 1
        return t.double() * (1 + noise * 2**-24)

    return {name: None if t is None else move(t) for name, t in inputs.items()}


def distance(found, exact):
    """Return the largest difference; infinite where something was not written."""
    error = (found.double() - exact.double()).abs().max().item()
    return error if error == error else float("inf")


def as_op(case, seed=0):
    """Return the op that a case is of, as a function of what it is differentiated in, and that."""
    inputs = draw(case, seed)
    names = [name for name in ("z", "residual", *VECTORS) if inputs[name] is not None]
    leaves = [inputs[name].requires_grad_() for name in names]

    def op(*tensors):
        given = dict(zip(names, tensors, strict=True))
        z, weight, bias, scale, shift = (given.get(name) for name in ("z", *VECTORS))
        rest = {"residual": given.get("residual"), "relu": case.relu}
        center = inputs["center"]
        if case.norm and case.fixed:
            gate = {"slope": scale, "offset": shift}
            return kernels.block_tail_fixed(z, center, weight, bias, **gate, **rest)
        if case.norm:
            gate = {"scale": scale, "shift": shift, "gate_eps": GATE_EPS}
            return kernels.block_tail(z, weight, bias, eps=EPS, **gate, **rest)[0]
        if case.fixed:
            return kernels.norm_gate_fixed(z, center, scale, shift, over=case.over)
        return kernels.norm_gate(z, scale, shift, over=case.over, eps=EPS)[0]

    return op, leaves


def run(op, leaves, dy):
    """Return the output of ``op`` and its gradients."""
    out = op(*leaves)
    return out, torch.autograd.grad(out, leaves, dy)
