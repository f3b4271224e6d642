# The one list of instantiated CUDA kernels. Every combination of a call's lists is one kernel of operation `op`, found at
# run time in that operation's table (src/cuda/dispatch.h):
#
#   pagedkv_kernels(op DTYPES f16 bf16 HEAD_DIMS 64 128
#                   [FORMATS same:same int8:int4 ...]  keys:values; left out: one kernel takes every format at run time
#                   [VARIANTS 0 1 ...]                 numbers whose meaning is the operation's; left out: 0
#                   [DIMS_PER_FILE n]                  head_dims that are compiled together: a file takes 3 to 4 s before it
#                                                      comes to its first kernel; left out: 1
#                   [PART name]                        for a second call with the same dtypes and head_dims
#                   [ARCH 90])                         least compute capability; 90 is compiled for sm_90a only; left out: 80

# Variant 1: for few tokens.
pagedkv_kernels(write_kv DTYPES f16 bf16 HEAD_DIMS 64 96 128 192 256 576 DIMS_PER_FILE 3)
pagedkv_kernels(write_kv DTYPES f16 bf16 HEAD_DIMS 128 256 DIMS_PER_FILE 2 VARIANTS 1 PART _few)
pagedkv_kernels(flatten_kv DTYPES f16 bf16 HEAD_DIMS 64 96 128 192 256 576 DIMS_PER_FILE 6)

# Variant: rows (queries of heads) that a warp works on at a time.
set(decode_mixed same:int8 same:int4 int8:same int8:int4 int4:same int4:int8)
pagedkv_kernels(decode DTYPES f16 bf16 HEAD_DIMS 64 128 DIMS_PER_FILE 2 FORMATS same:same int8:int8 int4:int4 VARIANTS 8 16)
pagedkv_kernels(decode DTYPES f16 bf16 HEAD_DIMS 64 128 DIMS_PER_FILE 2 FORMATS int8:int8 int4:int4 VARIANTS 4 PART _packed)
pagedkv_kernels(decode DTYPES f16 bf16 HEAD_DIMS 96 192 256 576 DIMS_PER_FILE 4 FORMATS same:same int8:int8 int4:int4 VARIANTS 8)
pagedkv_kernels(decode DTYPES f16 bf16 HEAD_DIMS 64 96 128 192 256 DIMS_PER_FILE 3 FORMATS ${decode_mixed} VARIANTS 8 PART _mixed)
