"""What is kept: recipes, shards, the catalog, lazy views. No model and no Prefect is known here."""

from store.catalog import Listed, Store, Usage
from store.contents import Latents
from store.digest import canonical, digest, short
from store.errors import Damaged, Missing, NewerFormat, NotAStore, NotWritable, StoreError, StoreFull
from store.manifests import manifest_change
from store.opening import open_store as open  # `store.open("runs/store")`
from store.portable import Imported
from store.recipe import Recipe, explain_change
from store.results import Result
from store.rows import Row
from store.show import Shown
from store.sweep import Swept
from store.training import Batch, Reader
from store.verify import Problem, Report
from store.writer import Conflict, Writer

__all__ = [
    "Batch",
    "Conflict",
    "Damaged",
    "Imported",
    "Latents",
    "Listed",
    "Missing",
    "NewerFormat",
    "NotAStore",
    "NotWritable",
    "Problem",
    "Reader",
    "Recipe",
    "Report",
    "Result",
    "Row",
    "Shown",
    "Store",
    "StoreError",
    "StoreFull",
    "Swept",
    "Usage",
    "Writer",
    "canonical",
    "digest",
    "explain_change",
    "manifest_change",
    "open",
    "short",
]
