#pragma once
// Walking over the tiles of a cache, on host and device: over blocks (BlockIterator) or over a linear buffer as
// flatten_kv writes it (LinearIterator). Both go backwards, last tile first, and look alike to a kernel:
//
//   factory (made on the host, passed to a kernel) -> Create(batch, head) -> iterator -> SetTile, OffsetPtr<>, Advance
//
// A tile is CTA_S consecutive tokens; block_len must be a multiple of it. Names and parameter order are TurboMind's.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "pagedkv/core/hd.h"
#include "pagedkv/core/layout.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Stored type of 4-bit codes. It has no objects of its own; a SubBytePtr points to such codes.
struct uint4_t {};

/// Pointer to 4-bit codes, two in a byte; offsets count codes. Their order inside a group of 8 is that of pack_int4().
struct SubBytePtr {
  char* ptr = nullptr;

  /// @param elements multiple of 2
  PAGEDKV_HD SubBytePtr operator+(std::ptrdiff_t elements) const { return {ptr + elements / 2}; }
  PAGEDKV_HD explicit operator char*() const { return ptr; }
  friend PAGEDKV_HD bool operator==(SubBytePtr a, SubBytePtr b) { return a.ptr == b.ptr; }
};

namespace detail {

template <class T, class Tkv>
constexpr KvType stored_type() {
  if constexpr (std::is_same_v<Tkv, std::uint8_t>) {
    return KvType::int8;
  } else if constexpr (std::is_same_v<Tkv, uint4_t>) {
    return KvType::int4;
  } else {
    static_assert(std::is_same_v<T, Tkv>, "Tkv is T, uint8_t or uint4_t");
    return KvType::same;
  }
}

template <class Tkv>
struct DataPointer {
  using type = Tkv*;
  static PAGEDKV_HD type from(char* p) { return reinterpret_cast<type>(p); }
};
template <>
struct DataPointer<uint4_t> {
  using type = SubBytePtr;
  static PAGEDKV_HD type from(char* p) { return {p}; }
};

}  // namespace detail

namespace block {

/// head_dim of the models with multi-head latent attention, whose keys and values are one shared row.
inline constexpr int kMlaHeadDim = 576;

/// What a cache stores: compute type T (2 or 4 bytes), stored type Tkv (T, uint8_t or uint4_t), head_dim.
template <class T_, class Tkv_, int HeadDim, bool SharedKv = HeadDim == kMlaHeadDim>
struct Config {
  using T = T_;
  using Tkv = Tkv_;
  static constexpr int kHeadDim = HeadDim;
  static constexpr bool kSharedKv = SharedKv;
  static constexpr KvType kStored = detail::stored_type<T, Tkv>();

  int head_num = 0;   ///< KV heads
  int block_len = 0;  ///< tokens of a block

  PAGEDKV_HD_CONSTEXPR int head_dim() const { return HeadDim; }
};

/// Byte offsets of a block of such a cache: BlockLayout with the types known at compile time.
template <class Config_>
class Layout {
 public:
  using Config = Config_;

  PAGEDKV_HD_CONSTEXPR explicit Layout(Config config) : Layout(config.head_num, config.block_len) {}
  PAGEDKV_HD_CONSTEXPR Layout(int head_num, int block_len)
      : layout_(core::compute_layout(sizeof(typename Config::T) == 4 ? DType::f32 : DType::f16,
                                     KvFormat{Config::kStored, Config::kStored}, 1, head_num, Config::kHeadDim,
                                     block_len, Config::kSharedKv)) {}

  PAGEDKV_HD_CONSTEXPR Config config() const { return {layout_.kv_heads, layout_.block_len}; }
  PAGEDKV_HD_CONSTEXPR int block_len() const { return layout_.block_len; }
  /// Bytes of one layer of a block.
  PAGEDKV_HD_CONSTEXPR std::int64_t layer_size() const { return layout_.layer_bytes; }
  /// Bytes of a block.
  PAGEDKV_HD_CONSTEXPR std::int64_t block_size(int layer_num) const { return layer_num * layout_.layer_bytes; }

  /// Offsets from the start of the block.
  PAGEDKV_HD_CONSTEXPR std::int64_t k_data(int layer, int head, int token) const {
    return layout_.k_data(layer, head, token);
  }
  PAGEDKV_HD_CONSTEXPR std::int64_t v_data(int layer, int head, int token) const {
    return layout_.v_data(layer, head, token);
  }
  PAGEDKV_HD_CONSTEXPR std::int64_t k_param(int layer, int head, int token) const {
    return layout_.k_param(layer, head, token);
  }
  PAGEDKV_HD_CONSTEXPR std::int64_t v_param(int layer, int head, int token) const {
    return layout_.v_param(layer, head, token);
  }

  /// Block and token in it of a token of a sequence.
  PAGEDKV_HD void get_block_coord(int token, int& block_id, int& block_ti) const {
    block_id = token / layout_.block_len;
    block_ti = token - block_id * layout_.block_len;
  }

 private:
  BlockLayout layout_;
};

/// One KV head of one layer: addresses inside a block.
template <class T_, class Tkv_, class Layout_>
class Head {
 public:
  using T = T_;
  using Tkv = Tkv_;
  using Layout = Layout_;
  using DataPtr = typename detail::DataPointer<Tkv>::type;

  PAGEDKV_HD Head(Layout layout, int layer, int head) : layout_(layout), layer_(layer), head_(head) {}

  PAGEDKV_HD DataPtr k_data(char* block, int token) const {
    return detail::DataPointer<Tkv>::from(block + layout_.k_data(layer_, head_, token));
  }
  PAGEDKV_HD DataPtr v_data(char* block, int token) const {
    return detail::DataPointer<Tkv>::from(block + layout_.v_data(layer_, head_, token));
  }
  /// {scale, zero} of a token; means nothing if Tkv is T.
  PAGEDKV_HD T* k_param(char* block, int token) const {
    return reinterpret_cast<T*>(block + layout_.k_param(layer_, head_, token));
  }
  PAGEDKV_HD T* v_param(char* block, int token) const {
    return reinterpret_cast<T*>(block + layout_.v_param(layer_, head_, token));
  }
  PAGEDKV_HD void get_block_coord(int token, int& block_id, int& block_ti) const {
    layout_.get_block_coord(token, block_id, block_ti);
  }
  PAGEDKV_HD int block_len() const { return layout_.block_len(); }

 private:
  Layout layout_;
  int layer_;
  int head_;
};

}  // namespace block

/// Tiles of one head of one sequence, in blocks. SetTile() first.
template <class BlockHead, int CTA_S>
struct BlockIterator {
  BlockHead block_head_;
  char** block_ptrs_;  ///< of the sequence
  char* block_ = nullptr;
  int block_id_ = 0;
  int block_ti_ = 0;

  PAGEDKV_HD BlockIterator(BlockHead block_head, char** block_ptrs)
      : block_head_(block_head), block_ptrs_(block_ptrs) {}

  /// Goes to tile `iter`: tokens [iter * CTA_S, (iter + 1) * CTA_S).
  PAGEDKV_HD void SetTile(int iter) {
    block_head_.get_block_coord(iter * CTA_S, block_id_, block_ti_);
    block_ = block_ptrs_[block_id_];
  }

  /// Goes one tile back. Before the first tile it stays in the first block, so that prefetching past the end is
  /// harmless.
  PAGEDKV_HD void Advance() {
    block_ti_ -= CTA_S;
    if (block_ti_ < 0) {
      block_ti_ += block_head_.block_len();
      block_id_ -= 1;
      if (block_id_ >= 0) block_ = block_ptrs_[block_id_];
    }
  }

  /// Address of K data (0), V data (1), K parameters (2) or V parameters (3) of the tile, `offset` elements on. Rows of
  /// a tile follow each other: head_dim elements of data, 2 of parameters each.
  template <int Index>
  PAGEDKV_HD auto OffsetPtr(int offset) const {
    static_assert(Index >= 0 && Index <= 3);
    if constexpr (Index == 0) {
      return block_head_.k_data(block_, block_ti_) + offset;
    } else if constexpr (Index == 1) {
      return block_head_.v_data(block_, block_ti_) + offset;
    } else if constexpr (Index == 2) {
      return block_head_.k_param(block_, block_ti_) + offset;
    } else {
      return block_head_.v_param(block_, block_ti_) + offset;
    }
  }
};

/// Makes the iterators of a batch.
template <class T, class Tkv, class BlockLayout_, int CTA_S>
struct BlockIteratorFactory {
  using BlockLayout = BlockLayout_;

  BlockLayout_ layout;
  char** block_ptrs;         ///< [cu_block_nums[batch]] memory of whoever calls Create()
  const int* cu_block_nums;  ///< [batch+1] first block of each sequence
  int layer_id;

  PAGEDKV_HD auto Create(int batch_idx, int head_idx) {
    using Head = block::Head<T, Tkv, BlockLayout_>;
    return BlockIterator<Head, CTA_S>{Head{layout, layer_id, head_idx}, block_ptrs + cu_block_nums[batch_idx]};
  }
};

template <class T, class Tkv, int CTA_S, int HeadDim>
using GetBlockIterFactory = BlockIteratorFactory<T, Tkv, block::Layout<block::Config<T, Tkv, HeadDim>>, CTA_S>;

/// Tiles of one head of one sequence in a linear buffer of T: keys [token][head_dim], values key_to_val elements
/// behind.
template <class T, int CTA_S, int HeadDim>
struct LinearIterator {
  const T* base_;  ///< key of token 0
  std::int64_t key_to_val_;
  int tile_ = 0;

  PAGEDKV_HD LinearIterator(const T* base, std::int64_t key_to_val) : base_(base), key_to_val_(key_to_val) {}

  PAGEDKV_HD void SetTile(int iter) { tile_ = iter; }
  /// Goes one tile back; stays at the first.
  PAGEDKV_HD void Advance() {
    if (tile_ > 0) --tile_;
  }
  /// Address of K (0) or V (1) of the tile, `offset` elements on. The parameters (2, 3) that a block may have are null.
  template <int Index>
  PAGEDKV_HD const T* OffsetPtr(int offset) const {
    static_assert(Index >= 0 && Index <= 3);
    if constexpr (Index >= 2) return nullptr;
    return base_ + std::int64_t{tile_} * CTA_S * HeadDim + (Index == 1 ? key_to_val_ : 0) + offset;
  }
};

/// Makes the linear iterators of a batch.
template <class T, int CTA_S, int HeadDim>
struct LinearIteratorFactory {
  const T* kv_cache;        ///< key of token 0 of head 0 of the first sequence
  const int* cu_ctx_len;    ///< [batch+1] tokens of each sequence, cumulative; counted from its first value
  std::int64_t stride_h;    ///< elements from a head to the next
  std::int64_t key_to_val;  ///< elements from a key to its value

  PAGEDKV_HD auto Create(int batch_idx, int head_idx) {
    const std::int64_t token = std::int64_t{cu_ctx_len[batch_idx]} - cu_ctx_len[0];
    return LinearIterator<T, CTA_S, HeadDim>{kv_cache + head_idx * stride_h + token * HeadDim, key_to_val};
  }
};

/// Makes the factory F from the parameters of an attention kernel, which have the members used below: for a linear
/// factory linear_iter_params{kv_cache, stride_h, key_to_val} and cu_k_len; for a block factory num_kv_heads and
/// block_iter_params{block_ptrs, cu_block_nums, layer_id, block_len}.
template <class F, class = void>
struct CreateCacheIterFactory {
  template <class Params>
  static F apply(const Params& params) {
    return {static_cast<decltype(F::kv_cache)>(params.linear_iter_params.kv_cache), params.cu_k_len,
            params.linear_iter_params.stride_h, params.linear_iter_params.key_to_val};
  }
};

template <class F>
struct CreateCacheIterFactory<F, std::void_t<typename F::BlockLayout>> {
  template <class Params>
  static F apply(const Params& params) {
    return {typename F::BlockLayout{params.num_kv_heads, params.block_iter_params.block_len},
            params.block_iter_params.block_ptrs, params.block_iter_params.cu_block_nums,
            params.block_iter_params.layer_id};
  }
};

}  // namespace pagedkv
