# The one list of instantiated CUDA kernels. Every combination of a call's lists is one kernel of operation `op`, found at
# run time in that operation's table (src/cuda/dispatch.h):
#
#   pagedkv_kernels(op DTYPES f16 bf16 HEAD_DIMS 64 128
#                   [FORMATS same:same int8:int4 ...]  keys:values; left out: one kernel takes every format at run time
#                   [VARIANTS 0 1 ...]                 numbers whose meaning is the operation's; left out: 0
#                   [ARCH 90])                         least compute capability; 90 is compiled for sm_90a only; left out: 80

