"""A zoo ↔ the folder of Neural Weight Space (Eilertsen et al. 2020): one folder a model, headerless float64.

    0000/meta.csv             thirteen properties, one row
    0000/weights/001.bin …    a vector each, in the order of `views.to_nws`; the first the initialization
    0000/error.bin            rows of (step, error in % on train, validation, test, smoothed validation)
    0000/stat.bin             epochs, steps, passes over the training images, seconds
    train.csv …               by split: the properties, values of convolutions and of the rest, path, model_id

Weights go both ways bit for bit. Errors are percentages there and shares here, so the last bit of an
accuracy may differ.
"""

from zoo_datasets.exchange.nws.exporting import write
from zoo_datasets.exchange.nws.importing import read
from zoo_datasets.exchange.nws.properties import table

__all__ = ["read", "table", "write"]
