"""What `gpu.py` measured → its table and sentences, Markdown. Needs no PyTorch."""

from __future__ import annotations

from typing import Any

GAIN = 1.1  # a width that is not faster by this factor no longer gains


def best(entry: dict[str, Any]) -> dict[str, Any] | None:
    done = [o for o in entry.get("ours", []) if "steps_per_s" in o and o["graphs"]]
    return max(done, key=lambda o: o["steps_per_s"], default=None)


def enough(entry: dict[str, Any]) -> int | None:
    """The width from which the rate no longer gains: the least whose rate no wider one beats by `GAIN`."""
    done = [o for o in entry.get("ours", []) if "steps_per_s" in o and o["graphs"]]
    for o in done:
        if all(other["steps_per_s"] < GAIN * o["steps_per_s"] for other in done if other["models"] > o["models"]):
            return int(o["models"])
    return None


def _ratio(mine: float | None, theirs: Any) -> str:
    value = theirs.get("steps_per_s") if isinstance(theirs, dict) else None
    return f"{mine / value:,.0f}×" if mine and value else "–"


def table(result: dict[str, Any]) -> str:
    """Markdown: a row for each workload, and the sentences under it."""
    a = result.get("about")
    if not a:
        return ""
    lines = [
        "| network, batch | steps/s | TFLOP/s (of products) | models side by side | MB a model | over 1 process | over processes | at 16: over `vmap`, over no graphs |",
        "|---|---|---|---|---|---|---|---|",
    ] * bool(result.get("rates"))
    for e in result.get("rates", []):
        top = best(e)
        if top is None:
            continue
        few = {o["graphs"]: o["steps_per_s"] for o in e["ours"] if o["models"] == 16 and "steps_per_s" in o}
        at16 = f"{_ratio(few.get(True), e.get('vmap_16'))}, {_ratio(few.get(True), {'steps_per_s': few.get(False)})}"
        memory = f"{top['bytes_per_model'] / 1e6:.2f}" if "bytes_per_model" in top else "–"
        lines.append(
            f"| {e['what']}, {e['batch']} | {top['steps_per_s']:,.0f} | {top['flops'] / 1e12:.1f} ({top['flops'] / a['product_flops']:.0%}) "
            f"| {enough(e):,} | {memory} | {_ratio(top['steps_per_s'], e.get('one_process'))} "
            f"| {_ratio(top['steps_per_s'], e.get('processes'))} | {at16} |"
        )
    lines += [""] * bool(lines)
    lines += [
        f"{a['device']}, driver {a['driver']}, CUDA {a['cuda']}, torch {a['torch']}, {a['cores']} cores, {a['day']}, commit "
        f"{a['commit']}: float32 products {a['product_flops'] / 1e12:.1f} TFLOP/s, copies {a['copy_bytes_per_s'] / 1e12:.2f} TB/s. "
        "Steps of all models per second by the clock, host work included, one run each (`python benchmarks/gpu.py`); "
        "*side by side* is the width from which no wider cohort is 1.1 times as fast, *processes* are one per core, all on the GPU.",
    ]
    for e in result.get("draws", []):
        plain, *_ = e["steps_per_s"].values()
        if len(e["steps_per_s"]) < 2:
            continue
        ways = [
            f"{e['steps_per_s'][w] / plain:.0%} drawn by the {w}" for w in ("device", "host") if w in e["steps_per_s"]
        ]
        lines += [
            "",
            f"{e['what']}, {e['models']:,} models, with {e['drawn']}: {', '.join(ways)}, of the rate without (medians of three rounds; the host once).",
        ]
    if "tests" in result:
        lines += ["", f"Tests on the device: {result['tests']['summary']}."]
    if b := result.get("build"):
        text = f"{b['models']:,} small CNNs on digits at 28×28, {b['epochs']} epochs, 3 snapshots with evaluation: {b['seconds']:.0f} s in one process"
        if "native_seconds" in b:
            text += f", {b['native_seconds']:.0f} s with the native engine on {b['cores']} cores"
        lines += ["", text + "."]
    return "\n".join(lines) + "\n"
