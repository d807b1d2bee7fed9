"""Manifest and schemas → Croissant 1.1 metadata (`croissant.json`) of the Parquet tables.

Croissant is JSON-LD that says which files a dataset has and what their columns are, so that
tools which know nothing of us can find and read it (https://docs.mlcommons.org/croissant).
One file object per Parquet file with its SHA-256, and, as in the Hub's own metadata, one
file set of the repository and one record set per config, with one field per column.
Written by hand: `mlcroissant` would take an object for each of these, need pandas and rdflib
where a zoo is published, and save the context below; the tests hold our file to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from zoo_datasets.format import card, schema
from zoo_datasets.format.manifest import CONFIGS, Manifest

HUB = "https://huggingface.co/datasets"
PARQUET = "application/x-parquet"
# A repository has no checksum, and Croissant demands one; the Hub's own metadata points here.
NO_CHECKSUM = "https://github.com/mlcommons/croissant/issues/80"
# Croissant 1.1's own context: which short names mean what.
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "excludes": "cr:excludes",
    "isArray": "cr:isArray", "arrayShape": "cr:arrayShape", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath",
    "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "containedIn": "cr:containedIn", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex",
    "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
    "rai": "http://mlcommons.org/croissant/RAI/", "annotation": "cr:annotation", "value": "cr:value", "readLines": "cr:readLines",
    "sdVersion": "cr:sdVersion", "unArchive": "cr:unArchive",
}  # fmt: skip
TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "int64": "cr:Int64", "double": "cr:Float64", "float": "cr:Float32"}


def describe(manifest: Manifest, schemas: Mapping[str, pa.Schema], name: str | None = None) -> dict[str, Any]:
    """The metadata as JSON-LD; `name` is the id it is published under, `schemas` those of the tables by config."""
    zoo = name or manifest.zoo
    license = card.license_id(manifest)
    named = (
        card.license_of(manifest) if license in ("other", "unknown") else f"https://spdx.org/licenses/{license.upper()}"
    )
    repo = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The Git repository of the dataset.",
        "contentUrl": f"{HUB}/{zoo}",
        "encodingFormat": "git+https",
        "sha256": NO_CHECKSUM,
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": re.sub(r"[^\w-]+", "-", zoo),
        "description": f"{manifest.counts.n_models:,} trained neural networks with their weights, settings and metrics ({zoo}).",
        "url": f"{HUB}/{zoo}",
        "license": named,
        "citeAs": f"{zoo}: a population of trained neural networks. Hugging Face dataset, content {card.digest(manifest, 'models')[:23]}",
        "creator": {"@type": "sc:Organization", "name": zoo.split("/")[0]},
        "keywords": list(card.TAGS),
        "distribution": [repo, *(item for config in CONFIGS for item in _distribution(manifest, config))],
        "recordSet": [_records(config, schemas[config]) for config in CONFIGS],
    }


def _distribution(manifest: Manifest, config: str) -> list[dict[str, Any]]:
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": file.path,
            "name": file.path.removeprefix("data/").replace("/", "-"),
            "containedIn": {"@id": "repo"},
            "contentUrl": file.path,
            "contentSize": f"{file.bytes} B",
            "encodingFormat": PARQUET,
            "sha256": file.sha256,
        }
        for _, files, _ in manifest.tables(config)
        for file in files
    ]
    together = {
        "@type": "cr:FileSet",
        "@id": f"{config}-files",
        "containedIn": {"@id": "repo"},
        "encodingFormat": PARQUET,
        "includes": f"data/{config}/*.parquet",
    }
    return [*objects, together]


def _records(config: str, columns: pa.Schema) -> dict[str, Any]:
    about = {"models": "One row per trained network.", "snapshots": "One row per network and step."}
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "description": about[config],
        "key": [{"@id": f"{config}/model_id"}, *([{"@id": f"{config}/step"}] if config == "snapshots" else [])],
        "field": [_field(config, column) for column in columns],
    }


def _field(config: str, column: pa.Field) -> dict[str, Any]:
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{config}/{column.name}",
        "description": DOCS.get(column.name, "a setting of the training"),
        "source": {"fileSet": {"@id": f"{config}-files"}, "extract": {"column": column.name}},
    }
    kind = column.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        field |= {"isArray": True, "arrayShape": str(size)}
        kind = kind.value_type
    return field | {"dataType": TYPES[str(kind)]}


DOCS = {
    c.name: c.doc
    for c in (
        *schema.METRICS,
        *schema.ATTACK,
        *schema.MODEL_HEAD,
        *schema.MODEL_TAIL,
        *schema.SNAPSHOT_HEAD,
        *schema.SNAPSHOT_TAIL,
    )
} | {"weights": "the published weights as one flat vector; the manifest's layouts say where each tensor lies"}
