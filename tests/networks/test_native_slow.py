"""What takes minutes: distance to float64 over many seeds, and the kernels under sanitizers."""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from zoo_datasets.networks import kernels

if kernels.missing():
    pytest.skip(f"no native engine: {kernels.missing()}", allow_module_level=True)

import native_cases as cases

from zoo_builder.engines.contract import ADAM
from zoo_builder.engines.native import NativeBackend

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS, STEPS = 24, 200


@pytest.mark.parametrize("preset", ["small-cnn", "mlp"])
def test_distance_to_float64_is_no_worse_than_eagers(preset):
    torch = pytest.importorskip("torch")
    from zoo_datasets.networks.modules import Network

    torch.set_num_threads(1)
    ours, eagers = [], []
    for seed in range(SEEDS):
        job = cases.job(preset, (1, 28, 28), activation="tanh", kind=ADAM, n_models=1, seed=seed)
        w = cases.window(job, [16] * STEPS, lr=1e-3, seed=seed)
        backend = NativeBackend(job)
        backend.advance(w)

        def trained(dtype, job=job, w=w) -> np.ndarray:
            network = Network(job.architecture).load_vector(job.initial[0]).to(dtype)
            optimizer = torch.optim.Adam(network.parameters(), 1e-3)
            for t in range(STEPS):
                part = slice(16 * t, 16 * t + 16)
                optimizer.zero_grad()
                logits = network(torch.from_numpy(job.pool[w.rows[0, part]]).to(dtype))
                torch.nn.functional.cross_entropy(
                    logits, torch.from_numpy(w.targets[0, part].astype(np.int64))
                ).backward()
                optimizer.step()
            return np.concatenate([p.detach().numpy().ravel() for p in network.parameters()]).astype(np.float64)

        exact = trained(torch.float64)
        ours.append(np.linalg.norm(backend.state()["weights"][0] - exact) / np.linalg.norm(exact))
        eagers.append(np.linalg.norm(trained(torch.float32) - exact) / np.linalg.norm(exact))
    logs = np.log(ours) - np.log(eagers)
    # One-sided: the mean log ratio may not lie three standard errors above 0 (a factor of 1).
    assert logs.mean() < 3 * logs.std(ddof=1) / np.sqrt(SEEDS), (np.median(ours), np.median(eagers))


SANITIZED = textwrap.dedent("""
    import importlib.util, os, sys
    spec = importlib.util.spec_from_file_location("zoo_datasets.networks._kernels", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[spec.name] = module
    import numpy as np
    import native_cases as cases
    from zoo_builder.engines.contract import ADAM, RMSPROP, SGD
    from zoo_datasets.networks.augmentation import Augmentation
    from zoo_builder.engines.native import NativeBackend
    normed = [{"conv": 5, "kernel": 3, "padding": 1}, "batch_norm", "activation", {"max_pool": 3, "stride": 2}, "dropout",
              {"conv": 13, "kernel": 4, "stride": 3, "padding": 2}, "activation", {"avg_pool": 2, "stride": 1}, "flatten",
              {"linear": 9}, "activation", {"linear": "classes"}]
    moved = Augmentation(shift=1, crop=2, flip=True, noise=(0.1, 0.2), fill=(-0.5, 0.25))
    nets = [("small-cnn", (1, 28, 28), None), ("small-cnn-gap", (1, 28, 28), None), ("mlp", (1, 7, 5), None),
            (normed, (2, 15, 13), moved), ([{"conv": 2, "kernel": 1, "stride": 3}, "global_avg_pool", {"linear": "classes"}], (3, 8, 8), None)]
    for path in sys.argv[2].split(","):
        os.environ["WEIGHTZOO_NATIVE_PATH"] = path
        for layers, shape, augmentation in nets:
            for activation, kind in (("relu", SGD), ("gelu", ADAM), ("elu", RMSPROP)):
                job = cases.job(layers, shape, activation=activation, kind=kind, dropout=0.3, augmentation=augmentation)
                backend = NativeBackend(job)
                backend.advance(cases.window(job, [17, 8, 3]))
                backend.logits(job.pool)
                backend.logits(job.pool, np.zeros((2, 9), np.int32))
    assert cases.try_plans(module, sys.argv[2].split(","), rounds=2000)["sound"] == 500
    print("clean")
""")


@pytest.mark.skipif(platform.system() != "Linux", reason="the sanitizers are preloaded as on Linux")
def test_kernels_are_clean_under_address_and_undefined_behavior_sanitizers(tmp_path):
    cmake, compiler = shutil.which("cmake"), shutil.which(os.environ.get("CXX", "g++"))
    if not cmake or not compiler:
        pytest.skip("cmake and g++ are needed")
    # The C++ library too: what the kernels throw must be known to the sanitizer when it starts.
    names = ("libasan.so", "libstdc++.so.6")
    searches = [subprocess.run([compiler, f"-print-file-name={n}"], capture_output=True, text=True) for n in names]
    runtime = [done.stdout.strip() for done in searches]
    if not all(map(os.path.isabs, runtime)):
        pytest.skip("no libasan beside the compiler")
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
    configure = [cmake, "-S", ROOT, "-B", tmp_path, f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=None",
                 f"-DCMAKE_CXX_FLAGS={flags}", "-DWEIGHTZOO_OPTIMIZATION=-O1"]  # fmt: skip
    if shutil.which("ninja"):
        configure.append("-GNinja")
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run([cmake, "--build", tmp_path], check=True, capture_output=True)
    (library,) = tmp_path.glob("_kernels*.so")
    paths = {kernels._kernels.paths()[0], "plain"}
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, library, ",".join(sorted(paths))], capture_output=True, text=True,
        # The interpreter itself leaks by design; its pymalloc would hide overruns of arrays.
        env={**os.environ, "LD_PRELOAD": " ".join(runtime), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc",
             "PYTHONPATH": f"{ROOT / 'tests' / 'networks'}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert done.stdout == "clean\n", done.stderr[-3000:]


ARM = ("aarch64-linux-gnu-g++", "qemu-aarch64")


@pytest.mark.skipif(not all(map(shutil.which, ARM)), reason=f"needs {' and '.join(ARM)} (Debian: qemu-user)")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with the builds for x86")
def test_an_arm_build_gives_the_same_bits(tmp_path):
    """Twelve steps of three models by the plain build, on an emulated ARM CPU and here; and by AVX2 here."""
    native = ROOT / "zoo_datasets" / "networks" / "native"
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wno-psabi", f"-I{native}"]
    rest = [
        str(native / "random.cpp"),
        str(native / "dispatch.cpp"),
        str(ROOT / "tests" / "networks" / "native_driver.cpp"),
    ]

    def compiled(compiler: str, name: str, *options: str) -> str:
        subprocess.run([compiler, *flags, *options, "-o", str(tmp_path / name)], check=True, timeout=500)
        return str(tmp_path / name)

    def printed(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout

    a_path = {name: str(native / f"{name}.cpp") for name in ("engine", "scoring", "augment")}
    arm = compiled(ARM[0], "arm", "-static", "-DWZ_PATH=plain", *a_path.values(), *rest)
    paths = {"plain": [], "avx2": ["-mavx2", "-mfma"], "avx512": []}  # the last only to link
    objects = [
        compiled("g++", f"{name}-{path}.o", "-c", f"-DWZ_PATH={path}", *more, file)
        for path, more in paths.items()
        for name, file in a_path.items()
    ]
    here = compiled("g++", "here", "-DWZ_X86", *objects, *rest)
    assert len({printed(ARM[1], arm), printed(here, "plain"), printed(here, "avx2")}) == 1
