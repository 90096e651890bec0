"""`jaxviz inspect`, one file for each group of commands."""
