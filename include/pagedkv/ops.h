#pragma once
// Arguments of the operations. The same structs serve pagedkv::cpu and pagedkv::cuda; "backend memory" is host memory
// for the one and device memory for the other. Shapes are written outer to inner. Lengths and tables are int32.
//
// Positions: sequence b has q_len = cu_q[b+1]-cu_q[b] new tokens and k_len = cu_k[b+1]-cu_k[b] tokens in all; its new
// token i stands at position k_len - q_len + i. cu_q[b] is also the row of its first new token in q, k, v and o.
// Positions and k_len are below 2^31. With batch 0 an operation does nothing and its pointers may be null.
// q, k, v, o, x and y are 16-byte aligned.

#include <cstddef>
#include <cstdint>

#include "pagedkv/core/context_parallel.h"
#include "pagedkv/core/layout.h"
#include "pagedkv/core/rope.h"
#include "pagedkv/types.h"

namespace pagedkv {

// ---- block tables

/// Block table of a batch: which physical block holds each logical block of each sequence. Exactly one of `pointers`
/// and `indices` is set. Logical block j of sequence b is entry (cu_blocks ? cu_blocks[b] : b * row_stride) + j, and
/// holds the local tokens [j*block_len, (j+1)*block_len) of this context-parallel rank. Sequences may share blocks, but
/// no two may write the same row in one call.
struct BlockTable {
  char* const* pointers = nullptr;  ///< [entries] block addresses, 16-byte aligned; the array lies in backend memory
  const std::int32_t* indices = nullptr;  ///< [entries] block numbers in the slab; backend memory
  char* slab = nullptr;          ///< with indices: block i lies at slab + i * layout.block_bytes; 16-byte aligned
  std::int32_t slab_blocks = 0;  ///< with indices: blocks of the slab
  const std::int32_t* cu_blocks =
      nullptr;                  ///< [batch+1] first entry of each sequence; backend memory; null: rows of row_stride
  std::int32_t row_stride = 0;  ///< without cu_blocks: entries of one sequence's row
};

/// Where element [token][head][d] of q, k, v or o lies, in elements of T:
///   batch * b + start * cu[b] + token * i + head * h + d
/// for sequence b, its new token i and head h. A packed [tokens][heads][D] array is {0, heads*D, heads*D, D};
/// [B][H][S][D] is {H*S*D, 0, D, S*D}. Every stride is a multiple of 8.
struct TokenStrides {
  std::int64_t batch = 0;
  std::int64_t start = 0;
  std::int64_t token = 0;
  std::int64_t head = 0;
};

/// Strides of a packed [tokens][heads][dim] array.
constexpr TokenStrides packed_strides(std::int64_t heads, std::int64_t dim) {
  return {0, heads * dim, heads * dim, dim};
}

// ---- RoPE

enum class RopeType : std::uint8_t { none, standard, linear, dynamic, yarn, llama3 };

/// Rotary position embedding of the first `dim` channels of a head. docs/rope.md has the formulas.
struct RopeParams {
  RopeType type = RopeType::none;
  RopePairs pairs = RopePairs::interleaved;
  std::int32_t dim = 0;  ///< rotated channels: multiple of 8 (interleaved) or 16 (half_split), at most head_dim and 256
  double base = 10000.0;                   ///< "rope_theta", >= 1; dynamic without dynamic_base: already scaled
  double factor = 1.0;                     ///< linear (> 0), yarn, llama3 (>= 1): positions stretch by this
  std::int32_t original_max_position = 0;  ///< yarn, llama3: context length before stretching
  double attention_factor = 0.0;           ///< yarn: multiplies sine and cosine; 0 means 0.1 ln(factor) + 1
  double beta_fast = 32.0;                 ///< yarn
  double beta_slow = 1.0;                  ///< yarn, > 0 and at most beta_fast
  double low_freq_factor = 1.0;            ///< llama3
  double high_freq_factor = 4.0;           ///< llama3, above low_freq_factor
  const float* dynamic_base = nullptr;  ///< dynamic: [batch] base of each sequence, >= 1; may be null; backend memory

  MropeMode mrope = MropeMode::none;          ///< with any type: positions per axis (T, H, W)
  std::int32_t mrope_section[3] = {0, 0, 0};  ///< pairs of each axis; chunked: they sum to dim/2
  /// New token i of sequence b with i < mrope_length[b] stands at mrope_position_ids[mrope_offsets[b] + i][axis]; any
  /// other at its position + mrope_delta[b] on all axes. All in backend memory; length (with ids and offsets) and delta
  /// may be null.
  const std::int32_t* mrope_position_ids = nullptr;  ///< [rows][3]
  const std::int32_t* mrope_offsets = nullptr;       ///< [batch]
  const std::int32_t* mrope_length = nullptr;        ///< [batch]
  const std::int32_t* mrope_delta = nullptr;         ///< [batch]
};

/// Precomputes what the kernels need; host only. The same bits on every machine.
/// @throws Error (invalid_argument) naming the field.
core::RopeTable make_rope_table(const RopeParams& params, std::int32_t head_dim);

/// Base of a sequence under dynamic NTK scaling: base * (factor * P/M - (factor - 1))^(dim / (dim - 2)) for a prompt of
/// P tokens, if P exceeds the model's maximum M and factor > 1, else base.
/// @throws Error (invalid_argument) naming the argument.
double dynamic_rope_base(double base, double factor, std::int32_t dim, std::int32_t original_max_position,
                         std::int32_t prompt_len);

// ---- write and flatten

/// New keys and values into the cache: load, + bias, RoPE (keys), statistics, quantise, store; float32 in between.
struct WriteKvArgs {
  BlockLayout layout = {};
  std::int32_t layer = 0;
  BlockTable table = {};
  std::int32_t batch = 0;              ///< 0 .. 65536
  const std::int32_t* cu_q = nullptr;  ///< [batch+1] backend memory
  const std::int32_t* cu_k = nullptr;  ///< [batch+1] backend memory; k_len >= q_len
  std::int64_t max_total_q = 0;        ///< cuda: upper bound of cu_q[batch], sizes the launch; cpu: not used
  const void* k = nullptr;             ///< T, addressed by `strides`; 16-byte aligned; backend memory
  const void* v = nullptr;             ///< T, same strides; may be null with shared_kv, then and only then
  TokenStrides strides = {};
  const void* k_bias = nullptr;  ///< T [kv_heads][head_dim], 16-byte aligned; may be null; backend memory
  const void* v_bias = nullptr;  ///< T [kv_heads][head_dim], 16-byte aligned; may be null; ignored with shared_kv
  core::RopeTable rope = {};     ///< default: no rotation
  ContextParallel cp = {};
  /// [batch] leading logical blocks of each sequence that are never written (a shared prefix); may be null; backend
  /// memory
  const std::int32_t* readonly_blocks = nullptr;
};

/// The cache back into rows of T: the inverse of write_kv, without RoPE unless `rope` is set.
struct FlattenKvArgs {
  BlockLayout layout = {};
  std::int32_t layer = 0;
  BlockTable table = {};
  std::int32_t batch = 0;
  const std::int32_t* cu_k =
      nullptr;  ///< [batch+1] backend memory; cu_k[0] is subtracted from each, so a sub-batch may be passed
  std::int64_t max_total_k = 0;  ///< cuda: upper bound of cu_k[batch]-cu_k[0], sizes the launch; cpu: not used
  /// T, addressed by `strides` with cu = cu_k - cu_k[0] and token = the rank's local index. With context parallelism a
  /// sequence keeps a slot of k_len rows and fills the first ones; the others are not touched.
  void* k = nullptr;
  void* v = nullptr;  ///< may be null with shared_kv
  TokenStrides strides = {};
  /// Applied to keys as they are read; default: none. With mrope, all k_len tokens count as new ones.
  core::RopeTable rope = {};
  ContextParallel cp = {};
};

// ---- attention

/// New keys and values that decode() puts into the cache itself, with the bytes of write_kv() with the same arguments;
/// layout, layer, table, lengths, cp and `rope` are the call's. Nothing is written for a sequence that is finished.
/// None of these arrays may overlap with o or lse, which may be stored first.
struct FuseWrite {
  const void* k = nullptr;    ///< T, addressed by `strides`; 16-byte aligned; backend memory; null: nothing is written
  const void* v = nullptr;    ///< T, same strides; may be null with shared_kv, then and only then
  TokenStrides strides = {};  ///< of k and v
  const void* k_bias = nullptr;  ///< T [kv_heads][head_dim], 16-byte aligned; may be null; backend memory
  const void* v_bias = nullptr;  ///< T [kv_heads][head_dim], 16-byte aligned; may be null; ignored with shared_kv
  /// [batch] leading logical blocks of each sequence that are never written: new tokens there are read as they are; may
  /// be null; backend memory
  const std::int32_t* readonly_blocks = nullptr;
};

/// Attention of new tokens over the cache, which already holds them (write_kv first, or decode with fuse_write). Both
/// decode and prefill use it.
struct AttentionArgs {
  BlockLayout layout = {};
  std::int32_t layer = 0;
  BlockTable table = {};
  std::int32_t batch = 0;
  const std::int32_t* cu_q = nullptr;  ///< [batch+1] backend memory
  const std::int32_t* cu_k = nullptr;  ///< [batch+1] backend memory
  std::int64_t max_total_q = 0;        ///< upper bound of cu_q[batch]; sizes workspace and launch
  std::int32_t max_q_len = 0;          ///< upper bound of every q_len
  std::int32_t max_k_len = 0;          ///< upper bound of every k_len
  std::int32_t q_heads = 0;            ///< multiple of layout.kv_heads
  const void* q = nullptr;             ///< T, rotated but for rotate_q, addressed by q_strides; backend memory
  TokenStrides q_strides = {};
  void* o = nullptr;  ///< T, or float32 if o_is_f32; [..][v_dim], addressed by o_strides; backend memory
  TokenStrides o_strides = {};
  bool o_is_f32 = false;       ///< partial results of context-parallel ranks want it
  float* lse = nullptr;        ///< [max_total_q][q_heads] natural-log sum of exp(score), the sink included; may be null
  float softmax_scale = 0.0F;  ///< 0 means 1 / sqrt(head_dim)
  float softcap = 0.0F;        ///< > 0: score = softcap * tanh(score / softcap), before masking
  bool causal = true;          ///< false: every query sees all k_len keys (prefill only; window must be 0)
  std::int32_t window = 0;     ///< > 0: a query at p sees keys p-window+1 .. p
  const float* sinks = nullptr;  ///< [q_heads] logit of a key without value; may be null; counted on rank 0 only
  ContextParallel cp = {};       ///< o and lse are then this rank's part; merge_partials() joins them
  /// shared_kv only: channels [v_offset, v_offset + v_dim) of a row are the value, both multiples of 16. 0 means the
  /// whole row.
  std::int32_t v_offset = 0;
  std::int32_t v_dim = 0;

  // Of decode() only; prefill() wants them left out.

  /// [batch] nonzero: the sequence is not worked on; its rows get o = 0 and lse = -inf (or the sink). May be null;
  /// backend memory.
  const std::uint8_t* finished = nullptr;
  /// [max_total_q] bit j: the new token sees new token j of its sequence, in place of the causal order among them.
  /// Older tokens are seen as ever. May be null; backend memory. On the GPU an unquantised hidden value must be finite.
  const std::uint32_t* tree_mask = nullptr;
  /// > 1: scores of a query at position t > log_n_length are multiplied by log(t) / log(log_n_length).
  std::int32_t log_n_length = 0;
  /// The new tokens' keys and values, written in the same call. No two sequences may share the blocks they go to, and
  /// no sequence may read a row that another one writes in this call.
  FuseWrite fuse_write = {};
  /// T [q_heads][head_dim] added to q; 16-byte aligned; may be null; backend memory. With q_bias or rotate_q the
  /// queries are what apply_rope() gives for them, rounded to T.
  const void* q_bias = nullptr;
  bool rotate_q = false;      ///< q comes without RoPE and gets that of `rope`
  core::RopeTable rope = {};  ///< of fuse_write's keys and, with rotate_q, of q; otherwise not looked at
  /// cuda, sm_90: a promise that lengths, block table, `finished` and the stored tokens (but those of fuse_write) are
  /// not written by the kernel in front of this one on the stream: they are read while that one still runs, and the
  /// rest (q, new keys and values, ...) is waited for. So it is in the layers of a model, where the kernel in front
  /// makes q, k and v. If the kernel in front is itself launched with programmatic dependent launch and lets the next
  /// one start before it has waited, the promise goes back to the first that waits before (kernels of this library do).
  /// A promise that does not hold gives wrong results. The bits are the same either way; elsewhere without effect.
  bool read_ahead = false;
};

using PrefillArgs = AttentionArgs;
using DecodeArgs = AttentionArgs;

/// Joins normalised partial attention results over disjoint sets of keys: lse = log sum exp(lse_p), o = sum exp(lse_p -
/// lse) o_p. A row whose lse is -inf in every part gives o = 0, lse = -inf.
struct MergePartialsArgs {
  std::int32_t parts = 0;            ///< >= 1
  std::int64_t rows = 0;             ///< tokens * q_heads
  std::int32_t dim = 0;              ///< elements of a row of o: multiple of 8, 8 .. 1024
  DType dtype = DType::f32;          ///< of the result o
  const float* o_parts = nullptr;    ///< [parts][rows][dim] backend memory
  const float* lse_parts = nullptr;  ///< [parts][rows] backend memory
  void* o = nullptr;                 ///< T [rows][dim] backend memory
  float* lse = nullptr;              ///< [rows]; may be null; backend memory
};

/// Rotates rows of q (or k) at the positions of new tokens, in place or out of place; + bias first if given.
struct ApplyRopeArgs {
  DType dtype = DType::f16;
  std::int32_t heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t batch = 0;
  const std::int32_t* cu_q = nullptr;  ///< [batch+1] backend memory
  const std::int32_t* cu_k = nullptr;  ///< [batch+1] backend memory
  std::int64_t max_total_q = 0;        ///< cuda: upper bound of cu_q[batch]; cpu: not used
  const void* x = nullptr;             ///< T, addressed by x_strides
  TokenStrides x_strides = {};
  void* y = nullptr;  ///< T, addressed by y_strides; may be x
  TokenStrides y_strides = {};
  const void* bias = nullptr;  ///< T [heads][head_dim], 16-byte aligned; may be null
  core::RopeTable rope = {};
};

/// Memory of the caller that an operation uses while it runs.
struct Workspace {
  void* data = nullptr;  ///< 256-byte aligned backend memory
  std::size_t bytes = 0;
};

}  // namespace pagedkv
