"""Convolutions: which is used where is decided in `jaxviz.ops.conv`."""
