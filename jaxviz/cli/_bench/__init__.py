"""`jaxviz bench`."""
