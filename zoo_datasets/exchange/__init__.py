"""Zoos ↔ the formats of others: `export FORMAT` and `import FORMAT`, a module each.

A module has `write(zoo, out)`, which gives the number of models in a new folder, and `read(folder, out, name)`,
which gives the manifest of the new zoo. Both leave everything or nothing.
"""

# Format → (what it is, the module that knows it); imported when it is asked for.
FORMATS = {
    "nws": ("the files of Neural Weight Space (Eilertsen et al. 2020)", "zoo_datasets.exchange.nws"),
}
