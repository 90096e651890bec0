"""Weight files: find, download, read and check them."""
