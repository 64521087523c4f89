"""Cards of the models we can read, and how to tap them."""
