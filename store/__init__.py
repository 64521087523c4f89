"""What is kept: recipes, shards, the catalog, lazy views. No model and no Prefect is known here."""
