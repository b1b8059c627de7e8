"""What can be read of accelerators and processors; one module for each source. Imports neither torch nor CUDA."""
