# The one list of instantiated CUDA kernels.
