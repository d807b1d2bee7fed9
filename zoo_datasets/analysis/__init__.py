"""A zoo → numbers, tables and pictures about its networks: the analyses of published papers.

Each folder here is one analysis; its `run.py` has two functions, `arguments(parser)` and
`run(options) -> Results`; `python -m zoo_datasets analyze NAME PATH` runs it. Results lie in a
folder of their own, never in the sealed zoo. Needs `pip install "weightzoo[bench]"`.
"""

from __future__ import annotations

# Name on the command line, which is the folder's → what it answers.
ANALYSES = {
    "backdoors": "can weights tell that a network has a backdoor, which its loss does not? (MLDS' fourth data set)",
    "dynamics": "Morse graphs of training: where do weights go, from where? (Eslami et al. 2021)",
    "machines": "do weights tell what data networks learned, and a small change of it? (Clemens 2021)",
    "nws": "settings read from a few consecutive weights: meta-classifiers, baselines, controls (Eilertsen et al. 2020)",
    "representation": "can weights tell that classes were rare, or that a mark went with one, beside clean tests?",
    "trajectories": "paths of training in weight space (Schürholt & Borth 2020)",
}
# Those that take several zoos, as one population.
POOLED = ("backdoors", "nws")
