"""Break the package on purpose (`make faults`): a target makes seeded faults of one kind and judges them."""
