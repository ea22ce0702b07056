"""Hot loops of the collector. A file here knows arrays only: numpy and `core.jit`, nothing else of the product."""
