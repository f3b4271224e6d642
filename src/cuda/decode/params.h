#pragma once
// What the decode kernels get: DecodeArgs with everything precomputed that the host can.

#include <cstdint>

#include "pagedkv/core/context_parallel.h"
#include "pagedkv/core/rope.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::decode {

/// Bytes of the parts of a (layer, head) region, from the start of a block.
struct Region {
  std::int64_t layer_offset;
  std::int64_t head_data_bytes;
  std::int64_t v_data_shift;  ///< from K data to V data
  std::int64_t param_offset;  ///< from the start of the layer
  std::int64_t head_param_bytes;
  std::int64_t v_param_shift;
  std::int64_t block_bytes;
};

/// What finding work takes, and making the new tokens' rows.
struct WorkParams {
  BlockTable table;
  Region region;
  int block_shift;        ///< log2 of block_len
  int split_shift;        ///< log2 of the tokens of a split
  int short_split_shift;  ///< the same for sequences of at most short_len tokens
  int short_len;
  int long_len;  ///< longer ones, up to long_end, have splits of kLongSplit tokens
  int long_end;
  // Expected times, on which CTAs share the work out.
  int token_cost;  ///< of a token
  int item_cost;   ///< of a work item besides its tokens
  int unit_cost;   ///< of a change of queries
  int batch;
  const std::int32_t* cu_q;
  const std::int32_t* cu_k;
  const std::uint8_t* finished;
  int kv_heads;
  int group;  ///< q heads per kv head
  int window;
  int max_k_len;  ///< for which the workspace has room
  core::Ownership own;
  const void* new_rows[2];  ///< the new tokens' k and v, if they are to be written; else null
  const void* new_bias[2];
  TokenStrides new_strides;
  const std::int32_t* readonly_blocks;
};

/// Results of splits in the workspace. Row r belongs to query r / q_heads and head r % q_heads.
struct Partials {
  float* o;    ///< [max_total_q * q_heads][splits][v_dim], channels in lane order (output.cuh)
  float2* ml;  ///< [max_total_q * q_heads][splits + runs] maximum (log2 units) and sum; of splits, then of runs
  std::uint64_t* counters;  ///< [max_total_q * q_heads][1 + runs], used of the first row of a tile (arrival.cuh)
  int splits;               ///< that a row has room for
  int runs;                 ///< most_runs()
};

/// What writing results takes.
struct OutputParams {
  core::FastDivmod group_div;
  int q_heads;
  void* o;
  TokenStrides o_strides;
  bool o_is_f32;
  float* lse;
  const float* sinks;  ///< null on all ranks but the first
  Partials partials;
};

/// Most tiles that a warp brings into L2 (read_on.cuh).
struct ReadOnTiles {
  int waiting;  ///< while the kernels before this one run
  int after;    ///< when they have ended
};

struct Params : WorkParams, OutputParams {
  bool next_early;  ///< starts_next_early()
  bool read_ahead;  ///< lengths, block table and stored tokens may be read before the wait
  ReadOnTiles read_on;
  std::uint32_t v_channel_bytes;  ///< rows that are key and value both: where in a row the value starts
  const std::uint32_t* tree_mask;
  const void* q;
  TokenStrides q_strides;
  float scale_log2;      ///< softmax_scale * log2(e)
  float softcap_log2;    ///< softcap * log2(e), 0 for none
  int log_n_length;      ///< queries behind this position are scaled, 0 for none
  float inverse_log2_n;  ///< 1 / log2(log_n_length)
  bool prepare_q;        ///< q gets q_bias and q_rope_dim channels of RoPE
  const void* q_bias;
  int q_rope_dim;
  core::RopeTable rope;
};

}  // namespace pagedkv::cuda::impl::decode
