#pragma once
// A cache in host memory that is written and read through the operations, and looked at through the oracle's layout.

#include <functional>
#include <string>
#include <vector>

#include "oracle/layout.h"
#include "oracle/quant.h"
#include "pagedkv/ops.h"
#include "support/content.h"
#include "support/memory.h"
#include "support/rows.h"

namespace support {

/// How a content gets into blocks; none of it may change what the blocks hold of each sequence.
struct Arrangement {
  int block_len = 64;
  RowOrder rows = RowOrder::packed;
  bool pointers = false;     ///< table of addresses, else of indices
  bool ragged = true;        ///< table with cu_blocks, else rows of row_stride
  bool spare_blocks = true;  ///< blocks and table entries that nobody uses
  int first_row = 0;         ///< cu_q[0] and cu_k[0]
  std::uint64_t seed = 1;    ///< of the order of the physical blocks

  static Arrangement random(const std::vector<int>& block_lens, Random& random);
};

/// The new tokens [from, to) of one sequence of the content.
struct Chunk {
  int sequence;
  int from;
  int to;
};

/// Executes an operation: cpu::write_kv and the like, or a wrapper of another backend.
using WriteKv = std::function<void(const pagedkv::WriteKvArgs&)>;
using FlattenKv = std::function<void(const pagedkv::FlattenKvArgs&)>;

class Cache {
 public:
  Cache(const Content& content, const Arrangement& arrangement);

  /// Writes the chunks in one call, as a batch in the order given. Tokens before a chunk count as history.
  void write(const WriteKv& write_kv, const std::vector<Chunk>& chunks);
  /// Writes all tokens of all sequences in one call.
  void write_all(const WriteKv& write_kv);
  /// Leading logical blocks of each sequence that write() passes as read-only, or empty.
  void set_readonly_blocks(std::vector<int> blocks) { readonly_ = std::move(blocks); }

  /// Bytes of a row, its parameters behind the data. `local` counts the tokens that this rank owns.
  std::vector<unsigned char> bytes(int sequence, int head, oracle::Side side, int local) const;
  /// Position of each local token of a sequence.
  std::vector<int> positions(int sequence) const;

  /// Empty if every written row is what the oracle expects, else which is not and why.
  std::string why_wrong() const;
  /// Empty if nothing but the rows of written tokens was written.
  std::string why_touched() const;

  /// Flattens all sequences in the given row order and compares with what a reader gets from the stored bytes: bit by
  /// bit, or with RoPE within what float32 allows. Rows that no local token belongs to must stay untouched. Empty if
  /// all is well.
  std::string why_flatten_wrong(const FlattenKv& flatten_kv, RowOrder order, bool rope);

  const pagedkv::BlockLayout& layout() const { return layout_; }
  pagedkv::BlockTable table(const std::vector<int>& sequences);

 private:
  struct RopeArrays;
  const char* block_of(int sequence, int local) const;
  oracle::QuantRow quantised_row(int sequence, int head, oracle::Side side, int local) const;
  std::string why_row_wrong(int sequence, int head, oracle::Side side, int local, int position) const;
  std::string why_flat_row_wrong(const Tensor& output, std::int64_t first, bool rope, int sequence, int head,
                                 oracle::Side side, int local) const;
  /// What a reader gets for a row.
  std::vector<double> read_row(int sequence, int head, oracle::Side side, int local) const;

  const Content& content_;
  Arrangement arrangement_;
  pagedkv::BlockLayout layout_;
  oracle::Layout oracle_;
  std::vector<std::vector<int>> blocks_;  // [sequence][logical block] physical block
  int slab_blocks_ = 0;
  Poisoned slab_;
  std::vector<std::vector<bool>> written_;  // [sequence][position]
  std::vector<int> readonly_;

  // What table() points to.
  std::vector<std::int32_t> cu_blocks_;
  std::vector<std::int32_t> indices_;
  std::vector<char*> pointers_;
};

}  // namespace support
