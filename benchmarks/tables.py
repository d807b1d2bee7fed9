"""Result files → the README's benchmark section: numbers are generated, never typed.

python benchmarks/tables.py        # rewrites the sections in README.md and docs/gpu.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpu_table

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
GPU = HERE.parent / "docs" / "gpu.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"


def section() -> str:
    """The section's Markdown, from what `benchmarks/results/` holds."""
    return "\n".join(t for t in (_engines(), _gpu(), _build(), _accuracy(), _loading()) if t)


def _result(name: str) -> Any:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _engines() -> str:
    r = _result("engines")
    if r is None:
        return ""
    rows = [
        "| training, one core | steps/CPU-s | GFLOP/s | vs eager | vs best eager | vs DataLoader | of one-core sgemm |",
        "|---|---|---|---|---|---|---|",
    ]
    for t in r["training"]:
        rate, flops = t["steps_per_cpu_s"]["native"], t["gflop_per_cpu_s"]["native"]
        ratios = [
            _ratio(t[f"native_over_{k}"]) for k in ("eager", "best_eager", "dataloader") if f"native_over_{k}" in t
        ]
        ratios += ["–"] * (3 - len(ratios))
        rows.append(
            f"| {t['what']}, batch {t['batch']} | {rate:,.0f} | {flops:.0f} | {' | '.join(ratios)} | {t['share_of_sgemm']:.0%} ({t['best_share_of_sgemm']:.0%}) |"
        )
    n = r["training"][0]["n_rounds"]
    evaluation = "; ".join(
        f"{e['workload']} {e['cpu_ms_per_model']['native']:.0f} ms a model (eager {e['cpu_ms_per_model']['eager']:.0f})"
        for e in r["evaluation"]
    )
    return (
        "\n".join(rows)
        + f"\n\n`python benchmarks/engines.py`: {r['engine']} ({r['path']}) against torch {r['torch']}, "
        f"{r['cpu']}; medians [least, most] of n = {n} interleaved rounds, process CPU time, one thread each, Adam, cohorts "
        f"of 16, on a shared machine; of sgemm: {r['training'][0]['n_shares']} windows of 0.2 s that take turns with it, in parentheses the fastest window of either. Evaluation of 10,000 images: {evaluation}. {_bounds()}{_widths(r['widths'])}\n"
    )


def gpu() -> str:
    """The tables of `docs/gpu.md`, one for each device that was measured."""
    return "\n".join(str(gpu_table.table(_result(name))) for name in ("gpu", "gpu-h100", "gpu-draws"))


def _gpu() -> str:
    """A sentence on what ran on a GPU, and when."""
    r = _result("gpu")
    w1 = next(e for e in r["rates"] if e["workload"] == "W1")
    few = {o["graphs"]: o["steps_per_s"] for o in w1["ours"] if o["models"] == 16}
    top = gpu_table.best(w1)["steps_per_s"]
    return (
        f"**On a GPU** ({r['about']['device']}, {r['about']['day']}, one run): {top:,.0f} training steps a second of the "
        f"{w1['what']}, batch {w1['batch']}: {top / w1['one_process']['steps_per_s']:,.0f} times one process with one model, "
        f"{top / w1['processes']['steps_per_s']:,.0f} times {w1['processes']['models']} processes; with 16 models "
        f"{few[True] / w1['vmap_16']['steps_per_s']:.0f} times `vmap`. [`docs/gpu.md`](docs/gpu.md), `python benchmarks/gpu.py`\n"
    )


def _bounds() -> str:
    """How near the convolutions of the small CNNs come to what one core can multiply and add."""
    r = _result("bounds")
    if r is None:
        return ""
    parts = []
    for x in r["found"]:
        step, alone, sgemm = (x[f"{k}_gflops"] / x["peak_gflops"] for k in ("native", "alone", "sgemm"))
        parts.append(f"{x['workload']} {step:.0%}, its convolutions alone {alone:.0%}, sgemm {sgemm:.0%}")
    return f"Undisturbed, of the multiply-adds of one core: {'; '.join(parts)} (`python benchmarks/bounds.py`). "


def _widths(found: list[dict[str, Any]]) -> str:
    """What the rule that leaves wide networks to PyTorch costs, on networks it was not fitted on."""
    unseen = [w for w in found if w["group"] == "held out"]
    wrong = [w for w in unseen if (w["native_over_best_eager"] < 1) == (w["rule_takes"] == "native")]
    cost = max((max(w["native_over_best_eager"], 1 / w["native_over_best_eager"]) for w in wrong), default=1.0)
    return (
        f"Wide networks are left to PyTorch by a rule (`kernels.slower`) that takes the faster engine on "
        f"{len(unseen) - len(wrong)} of {len(unseen)} networks it was not fitted on"
        + (f", and is at most {cost:.2f} times slower on the others." if wrong else ".")
    )


def _ratio(value: dict[str, float]) -> str:
    return f"{value['median']:.1f}× [{value['least']:.1f}, {value['most']:.1f}]"


def _build() -> str:
    r = _result("build")
    if r is None:
        return ""
    some = "" if r["plain_models"] == r["models"] else f", the loop's time from {r['plain_models']} of them"
    changes = "".join(f" --set '{c}'" for c in r["changes"])
    plain = f" --plain {r['plain_models']}" if some else ""
    return (
        f"**A whole build.** {r['models']} CNNs of `grids/mnist.yaml` in cohorts of {r['models'] / r['cohorts']:.0f}, {r['epochs']} epochs, a "
        f"snapshot and its evaluation after each: {r['cpu_s']:.0f} CPU-s by {r['engine']['name']}, "
        f"{r['plain_loop_cpu_s']:.0f} CPU-s by a plain loop (one model at a time, `DataLoader`, batch 32{some}), "
        f"**{r['ratio']:.1f}×**; with `evaluation: {r['evaluation']}` {r['cpu_thinned_s']:.0f} CPU-s, "
        f"**{r['ratio_thinned']:.1f}×**; mean test accuracy of what both trained {r['test_accuracy']:.3f} and "
        f"{r['plain_loop_test_accuracy']:.3f} (paired difference ± {r['difference_standard_error']:.3f}). "
        f"`python benchmarks/build.py --models {r['models']} --epochs {r['epochs']}{plain}{changes}`\n"
    )


def _accuracy() -> str:
    r = _result("accuracy")
    if r is None:
        return ""
    names = [k for k in r if isinstance(r[k], dict) and k != "paired_difference"]
    text = ", ".join(f"{k} {r[k]['mean']:.4f} ± {r[k]['standard_error']:.4f}" for k in names)
    d = r["paired_difference"]
    return (
        f"**As good as eager.** Test accuracy on MNIST after {r['epochs']} epochs, {r['seeds']} seeds (mean ± standard "
        f"error): {text}; paired difference {d['mean']:+.5f} ± {d['standard_error']:.5f}. `python benchmarks/accuracy.py`\n"
    )


def _loading() -> str:
    r = _result("loading")
    if r is None:
        return ""
    rows = ["| reading weights, random batches of 64 | rows/s | of `np.memmap` |", "|---|---|---|"]
    rows += [
        f"| {x['what']} | {x['rows_per_s']:,} | {x['ratio']:.2f} |" for x in r["reading"] if x["against"] == "np.memmap"
    ]
    o = r["opening"]
    return (
        "\n".join(rows)
        + f"\n\n`python benchmarks/loading.py`: P = 2,464, medians of {r['rounds']['reading']} rounds, page "
        f"cache warm; {r['against_pt_folder']['times_a_pt_folder']:,} times a folder of one `.pt` per model. Opening a zoo of "
        f"{o['rows']:,} snapshots takes {o['open_s']:.3f} s and {o['open_MB']:.0f} MB, a two-predicate select "
        f"{o['select_s'] * 1000:.0f} ms.\n"
    )


def main() -> None:
    for page, text in ((README, section()), (GPU, gpu())):
        before, rest = page.read_text().split(BEGIN)
        page.write_text(before + BEGIN + text + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
