"""Bridges to other libraries, one file each. They use this package's interfaces without changing them."""
