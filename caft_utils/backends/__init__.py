"""Other engines and tools behind this package's own interfaces; one file each."""
