"""How others train many small networks on a GPU: one after another, a process for each, or by `torch.func.vmap`.

All keep data and optimizer on the device and draw batches there, so that only the way of training differs.
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, stack_module_state, vmap
from workloads import LR, WORKLOADS, Workload, data_of

from zoo_datasets.networks.modules import Network

WARM_UP = 5
READY_S = 120.0


class Eager:
    """One model: `nn.Module`, fused Adam."""

    def __init__(self, w: Workload, device: str) -> None:
        pool, labels = data_of(w)
        self.network = Network(w.architecture).to(device)
        self.images, self.targets = torch.from_numpy(pool).to(device), torch.from_numpy(labels).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LR, fused=True)
        self.batch, self.device = w.batch, device

    def step(self) -> None:
        rows = torch.randint(len(self.images), (self.batch,), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.network(self.images[rows]), self.targets[rows]).backward()
        self.optimizer.step()


class Vmapped:
    """M models: gradients by `vmap`, and Adam on the stacked tensors."""

    def __init__(self, w: Workload, device: str, models: int) -> None:
        pool, labels = data_of(w)
        networks = [Network(w.architecture).to(device) for _ in range(models)]
        self.parameters, buffers = stack_module_state(networks)
        if buffers:
            raise NotImplementedError("vmap cannot change running statistics in place")
        self.images, self.targets = torch.from_numpy(pool).to(device), torch.from_numpy(labels).to(device)
        self.moments = [[torch.zeros_like(p) for p in self.parameters.values()] for _ in range(2)]
        self.batch, self.device, self.models, self.t = w.batch, device, models, 0
        network = networks[0]

        def loss(parameters: dict[str, torch.Tensor], images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(functional_call(network, parameters, (images,)), targets)

        self.gradients = vmap(grad(loss))

    def step(self) -> None:
        rows = torch.randint(len(self.images), (self.models, self.batch), device=self.device)
        found = self.gradients(self.parameters, self.images[rows], self.targets[rows])
        self.t += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters.values(), found.values(), *self.moments, strict=True):
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                step = (v / (1 - 0.999**self.t)).sqrt_().add_(1e-8)
                p.detach().addcdiv_(m, step, value=-LR / (1 - 0.9**self.t))


def _rate(peer: Eager | Vmapped, seconds: float, models: int) -> dict[str, Any]:
    for _ in range(WARM_UP):
        peer.step()
    _wait(peer.device)
    started, done = time.perf_counter(), 0
    while not done or time.perf_counter() - started < seconds:
        peer.step()
        done += 1
        if done % 16 == 0:
            _wait(peer.device)  # a queue that runs ahead would be counted as done
    _wait(peer.device)
    return {"models": models, "steps_per_s": done * models / (time.perf_counter() - started)}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def one(name: str, device: str, seconds: float) -> dict[str, Any]:
    """One process, one model."""
    return _rate(Eager(WORKLOADS[name], device), seconds, 1)


def vmapped(name: str, device: str, seconds: float, models: int = 16) -> dict[str, Any]:
    """16 models by vmap, without graphs."""
    return _rate(Vmapped(WORKLOADS[name], device, models), seconds, models)


class Processes:
    """So many processes, each with a model of its own on the same device; they live for all workloads."""

    def __init__(self, device: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.count = count
        self.pipes, self.running = [], []
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, device), daemon=True)
            process.start()
            self.pipes.append(here)
            self.running.append(process)

    def rate(self, name: str, seconds: float) -> dict[str, Any]:
        """Steps of all of them per second, while all of them run."""
        for pipe in self.pipes:
            pipe.send((name, seconds))
        for pipe in self.pipes:  # each has its model on the device
            if not pipe.poll(READY_S):
                return {"error": "a process did not start"}
            pipe.recv()
        for pipe in self.pipes:
            pipe.send("go")
        found = [pipe.recv() for pipe in self.pipes]
        if errors := [f for f in found if isinstance(f, str)]:
            return {"error": errors[0]}
        return {"models": self.count, "steps_per_s": sum(f["steps_per_s"] for f in found)}

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.running:
            process.join(READY_S)


def _serve(pipe: Any, device: str) -> None:
    torch.set_num_threads(1)
    while (asked := pipe.recv()) is not None:
        name, seconds = asked
        try:
            peer = Eager(WORKLOADS[name], device)
            peer.step()
            _wait(device)
            pipe.send("ready")
            pipe.recv()
            pipe.send(_rate(peer, seconds, 1))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}"[:300])
