"""What one unit of work is: introduces the store to the library, and both to Prefect."""
