"""matopt: matrix optimizers, the Muon family. ``matopt.torch`` has them for PyTorch."""
