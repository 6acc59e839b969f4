"""Bridges to other libraries, one file each. They use the interfaces of this package and change none."""
