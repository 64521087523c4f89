"""What is kept: recipes, shards, the catalog, lazy views. No model and no Prefect is known here."""

from store.catalog import Latents, Listed, Store, Usage
from store.digest import canonical, digest, short
from store.errors import Damaged, Missing, NewerFormat, NotAStore, NotWritable, StoreError, StoreFull
from store.manifests import manifest_change
from store.opening import open_store as open  # `store.open("runs/store")`
from store.recipe import Recipe, explain_change
from store.results import Result
from store.rows import Row
from store.verify import Problem, Report
from store.writer import Conflict, Writer

__all__ = [
    "Conflict",
    "Damaged",
    "Latents",
    "Listed",
    "Missing",
    "NewerFormat",
    "NotAStore",
    "NotWritable",
    "Problem",
    "Recipe",
    "Report",
    "Result",
    "Row",
    "Store",
    "StoreError",
    "StoreFull",
    "Usage",
    "Writer",
    "canonical",
    "digest",
    "explain_change",
    "manifest_change",
    "open",
    "short",
]
