"""Zoo id → where its bytes are: a folder of this machine, or the Hub; fetched, and published.

`locate` finds a zoo; `zoo_datasets.hub.download`, `.publish` and `.croissant` are modules of their own.
"""

from zoo_datasets.format.paths import ZOO_ID
from zoo_datasets.hub.lookup import REMOTE, default_cache, locate
from zoo_datasets.reading.location import LocalFolder, Location

__all__ = ["REMOTE", "ZOO_ID", "LocalFolder", "Location", "default_cache", "locate"]
