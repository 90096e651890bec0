"""Attribution methods other than class activation maps, one file each."""
