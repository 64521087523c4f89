"""What is known: data, models, metrics, decisions and reports. Neither the store nor Prefect is known here."""
