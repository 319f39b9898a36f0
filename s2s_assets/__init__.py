"""What is made: one module a layer of assets, bound together in `definitions`."""
