#include "cuda/decode/decode_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "cuda/decode/late_copy.h"
#include "cuda/device_memory.h"
#include "oracle/quant.h"
#include "support/convert.h"

namespace decode_test {
namespace {

using support::cuda_ok;
using support::DeviceBuffer;

constexpr std::uint8_t kPoison = 0xcd;
constexpr float kPoisonLse = -12345.0F;
constexpr std::size_t kGuard = 256;

/// The arrays of a case on the device. `args` points into them.
struct OnDevice {
  OnDevice(const ops::CaseSpec& spec, const pagedkv::AttentionArgs& host, std::int64_t mrope_rows) : args(host) {
    const auto batch = static_cast<std::size_t>(args.batch);
    const std::int32_t* cu_blocks = args.table.cu_blocks;
    cu_q = keep(args.cu_q, batch + 1);
    cu_k = keep(args.cu_k, batch + 1);
    blocks = keep(cu_blocks, batch + 1);
    const auto bytes = static_cast<std::size_t>(args.layout.block_bytes);
    const auto entries = static_cast<std::size_t>(cu_blocks[batch]);
    slab = DeviceBuffer((entries + 1) * bytes);
    if (args.table.pointers != nullptr) {
      std::vector<std::size_t> order(entries);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::mt19937_64 random(spec.block_order);
      std::shuffle(order.begin(), order.end(), random);
      for (std::size_t i = 0; i < entries; ++i) {
        pointers.push_back(slab.data() + order[i] * bytes);
        cuda_ok(cudaMemcpy(pointers[i], args.table.pointers[i], bytes, cudaMemcpyHostToDevice));
      }
      table = support::to_device(pointers);
      args.table.pointers = table.as<char*>();
    } else {
      slab = DeviceBuffer(args.table.slab, static_cast<std::size_t>(args.table.slab_blocks) * bytes);
      for (std::size_t i = 0; i < entries; ++i)
        pointers.push_back(slab.data() + args.table.indices[i] * args.layout.block_bytes);
      table = DeviceBuffer(args.table.indices, entries * sizeof(std::int32_t));
      args.table.indices = table.as<std::int32_t>();
      args.table.slab = slab.data();
    }
    args.table.cu_blocks = blocks.as<std::int32_t>();
    args.cu_q = cu_q.as<std::int32_t>();
    args.cu_k = cu_k.as<std::int32_t>();
    const auto elements = static_cast<std::size_t>(args.max_total_q * args.q_strides.token);
    q = DeviceBuffer(args.q, elements * static_cast<std::size_t>(pagedkv::dtype_bytes(args.layout.dtype)));
    args.q = q.data();
    if (args.sinks != nullptr) {
      sinks = DeviceBuffer(args.sinks, static_cast<std::size_t>(args.q_heads) * sizeof(float));
      args.sinks = sinks.as<float>();
    }
    const auto element = static_cast<std::size_t>(pagedkv::dtype_bytes(args.layout.dtype));
    const auto dim = static_cast<std::size_t>(args.layout.head_dim);
    move(args.q_bias, static_cast<std::size_t>(args.q_heads) * dim * element);
    pagedkv::FuseWrite& w = args.fuse_write;
    if (w.k != nullptr) {
      // k and v lie in one array (ops::FusedCase), so v keeps its distance from k.
      const auto row = static_cast<std::size_t>(args.max_total_q * w.strides.token) * element;
      const char* host_k = static_cast<const char*>(w.k);
      const std::ptrdiff_t to_v = w.v == nullptr ? 0 : static_cast<const char*>(w.v) - host_k;
      move(w.k, row);
      if (w.v != nullptr) w.v = static_cast<const char*>(w.k) + to_v;
      move(w.k_bias, static_cast<std::size_t>(args.layout.kv_heads) * dim * element);
      move(w.v_bias, static_cast<std::size_t>(args.layout.kv_heads) * dim * element);
      move(w.readonly_blocks, batch * sizeof(std::int32_t));
    }
    move(args.rope.base, batch * sizeof(float));
    move(args.rope.mrope_offsets, batch * sizeof(std::int32_t));
    move(args.rope.mrope_length, batch * sizeof(std::int32_t));
    move(args.rope.mrope_delta, batch * sizeof(std::int32_t));
    move(args.rope.mrope_position_ids, static_cast<std::size_t>(3 * mrope_rows) * sizeof(std::int32_t));
  }

  /// Makes `p`, unless it is null, point to a copy on the device.
  template <class V>
  void move(const V*& p, std::size_t bytes) {
    if (p == nullptr) return;
    more.emplace_back(p, bytes);
    p = reinterpret_cast<const V*>(more.back().data());
  }

  std::vector<char> read_blocks() const {
    const auto bytes = static_cast<std::size_t>(args.layout.block_bytes);
    std::vector<char> all(pointers.size() * bytes);
    for (std::size_t i = 0; i < pointers.size(); ++i) {
      cuda_ok(cudaMemcpy(all.data() + i * bytes, pointers[i], bytes, cudaMemcpyDeviceToHost));
    }
    return all;
  }

  static DeviceBuffer keep(const std::int32_t* x, std::size_t n) { return {x, n * sizeof(std::int32_t)}; }

  pagedkv::AttentionArgs args;
  DeviceBuffer cu_q, cu_k, blocks, slab, table, q, sinks;
  std::vector<DeviceBuffer> more;
  std::vector<char*> pointers;  ///< block of each table entry
};

class StreamOwner {
 public:
  StreamOwner() { cuda_ok(cudaStreamCreate(&stream_)); }
  ~StreamOwner() { cudaStreamDestroy(stream_); }
  StreamOwner(const StreamOwner&) = delete;
  StreamOwner& operator=(const StreamOwner&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// `between` is called between the two replays of a graph. `late` (may be empty) launches what decode has to wait for.
void launch(const pagedkv::AttentionArgs& args, pagedkv::Workspace workspace, bool graph,
            const std::function<void()>& between, const std::function<void(cudaStream_t)>& late) {
  const StreamOwner stream;
  if (late) {
    late(stream.get());
    pagedkv::cuda::decode(args, workspace, stream.get());
  } else if (!graph) {
    pagedkv::cuda::decode(args, workspace, pagedkv::cuda::Validation::full, stream.get());
  } else {
    cudaGraph_t captured = nullptr;
    cudaGraphExec_t executable = nullptr;
    cuda_ok(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
    pagedkv::cuda::decode(args, workspace, stream.get());
    cuda_ok(cudaStreamEndCapture(stream.get(), &captured));
    cuda_ok(cudaGraphInstantiate(&executable, captured, 0));
    cuda_ok(cudaGraphLaunch(executable, stream.get()));
    cuda_ok(cudaStreamSynchronize(stream.get()));
    between();
    cuda_ok(cudaGraphLaunch(executable, stream.get()));
    cuda_ok(cudaStreamSynchronize(stream.get()));
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(captured);
  }
  cuda_ok(cudaStreamSynchronize(stream.get()));
}

}  // namespace

ops::Result run(ops::Case& c, const Call& call) {
  const pagedkv::AttentionArgs host = call.args ? *call.args : c.args();
  OnDevice on(c.spec(), host, call.mrope_rows);
  pagedkv::AttentionArgs& a = on.args;
  const ops::CaseSpec& spec = c.spec();
  const oracle::Type type = spec.o_is_f32 ? oracle::Type::f32 : support::to_oracle(c.layout().dtype);
  const auto element = static_cast<std::size_t>(oracle::bytes_of(type));
  const auto rows = static_cast<std::size_t>(a.max_total_q) * static_cast<std::size_t>(a.q_heads);
  const auto dim = static_cast<std::size_t>(spec.value_dim());
  const std::size_t stride = dim + static_cast<std::size_t>(spec.head_gap);

  std::vector<std::uint8_t> o(rows * stride * element + kGuard, kPoison);
  std::vector<float> lse(rows + 1, kPoisonLse);
  const DeviceBuffer device_o = support::to_device(o);
  const DeviceBuffer device_lse = support::to_device(lse);
  const DeviceBuffer finished = support::to_device(spec.finished);
  const DeviceBuffer tree = support::to_device(spec.tree_mask);
  a.o = device_o.data();
  a.lse = device_lse.as<float>();
  a.max_q_len = std::min(16, a.max_q_len + call.more_q_len);
  a.max_k_len += call.more_k_len;
  if (a.finished != nullptr) a.finished = finished.as<std::uint8_t>();
  if (a.tree_mask != nullptr) a.tree_mask = tree.as<std::uint32_t>();

  const std::size_t bytes = pagedkv::cuda::decode_workspace_bytes(a);
  std::vector<std::uint8_t> workspace(bytes + kGuard, kPoison);
  std::fill_n(workspace.begin(), bytes, call.workspace_byte);
  const DeviceBuffer device_workspace = support::to_device(workspace);
  const int lengths = a.batch + 1;
  const DeviceBuffer late_q(host.cu_q, sizeof(std::int32_t) * static_cast<std::size_t>(lengths));
  const DeviceBuffer late_k(host.cu_k, sizeof(std::int32_t) * static_cast<std::size_t>(lengths));
  std::function<void(cudaStream_t)> late;
  if (!call.early_lengths.empty()) {
    on.cu_q.set(call.early_lengths.data());
    on.cu_k.set(call.early_cu_k.empty() ? call.early_lengths.data() : call.early_cu_k.data());
    late = [&](cudaStream_t stream) {
      late_copy({on.cu_q.as<std::int32_t>(), on.cu_k.as<std::int32_t>()},
                {late_q.as<std::int32_t>(), late_k.as<std::int32_t>()}, lengths, stream);
    };
  }
  launch(
      a, {device_workspace.data(), bytes}, call.graph,
      [&] {
        if (!call.later_cu_q.empty()) on.cu_q.set(call.later_cu_q.data());
        if (!call.later_cu_k.empty()) on.cu_k.set(call.later_cu_k.data());
      },
      late);

  if (call.blocks != nullptr) *call.blocks = on.read_blocks();
  device_o.get(o.data());
  device_lse.get(lse.data());
  device_workspace.get(workspace.data());
  ops::Result result;
  const std::uint8_t poison_bytes[4] = {kPoison, kPoison, kPoison, kPoison};
  const double poison = oracle::load(type, poison_bytes);
  std::size_t unwritten = 0;
  std::size_t stray = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t d = 0; d < stride; ++d) {
      const std::uint8_t* at = o.data() + (r * stride + d) * element;
      if (d >= dim) {
        stray += std::count(at, at + element, kPoison) != static_cast<std::ptrdiff_t>(element) ? 1 : 0;
        continue;
      }
      result.o.push_back(oracle::load(type, at));
      unwritten += result.o.back() == poison ? 1 : 0;
    }
    result.lse.push_back(static_cast<double>(lse[r]));
    unwritten += lse[r] == kPoisonLse ? 1 : 0;
  }
  EXPECT_EQ(unwritten, 0U) << ops::describe(spec);
  stray += lse[rows] != kPoisonLse ? 1 : 0;
  for (std::size_t i = 0; i < kGuard; ++i) {
    stray += o[rows * stride * element + i] != kPoison ? 1 : 0;
    stray += workspace[bytes + i] != kPoison ? 1 : 0;
  }
  EXPECT_EQ(stray, 0U) << ops::describe(spec);
  return result;
}

std::vector<std::uint8_t> run_chain(ops::Case& c, const pagedkv::AttentionArgs& fused, int steps, bool apart) {
  const OnDevice on(c.spec(), fused, 0);
  const auto element = static_cast<std::size_t>(pagedkv::dtype_bytes(on.args.layout.dtype));
  const int dim = on.args.layout.head_dim;
  const auto bytes = static_cast<std::size_t>(on.args.max_total_q * on.args.q_heads * dim) * element;
  const DeviceBuffer between(bytes);
  const DeviceBuffer out(bytes * static_cast<std::size_t>(steps));
  const pagedkv::TokenStrides packed = pagedkv::packed_strides(on.args.q_heads, dim);

  pagedkv::AttentionArgs first = on.args;
  first.lse = nullptr;
  first.fuse_write = {};
  first.read_ahead = false;  // it reads what the call before it has written
  first.q_bias = nullptr;
  first.rotate_q = false;
  first.o = between.data();
  first.o_strides = packed;
  pagedkv::AttentionArgs second = on.args;
  second.lse = nullptr;
  second.q = second.fuse_write.k = second.fuse_write.v = between.data();
  second.q_strides = second.fuse_write.strides = second.o_strides = packed;
  const std::size_t room_bytes =
      std::max(pagedkv::cuda::decode_workspace_bytes(first), pagedkv::cuda::decode_workspace_bytes(second));
  const DeviceBuffer workspace = support::to_device(std::vector<std::uint8_t>(room_bytes, kPoison));
  const pagedkv::Workspace room{workspace.data(), room_bytes};

  const StreamOwner stream;
  const auto call = [&](const pagedkv::AttentionArgs& args) {
    pagedkv::cuda::decode(args, room, stream.get());
    if (apart) cuda_ok(cudaStreamSynchronize(stream.get()));
  };
  for (int i = 0; i < steps; ++i) {
    first.softmax_scale = 0.1F + static_cast<float>(i % 2);
    second.o = out.data() + bytes * static_cast<std::size_t>(i);
    call(first);
    call(second);
  }
  cuda_ok(cudaStreamSynchronize(stream.get()));
  std::vector<std::uint8_t> result(bytes * static_cast<std::size_t>(steps));
  out.get(result.data());
  return result;
}

void expect_close(const ops::CaseSpec& spec, const ops::Result& got, const ops::Case::Expected& want) {
  const oracle::Type type = spec.o_is_f32 ? oracle::Type::f32 : support::to_oracle(spec.config.dtype);
  const bool bf16_p = spec.config.dtype == pagedkv::DType::bf16 && spec.config.format.v == pagedkv::KvType::same;
  const double half_ulp = bf16_p ? 0x1p-8 : 0x1p-11;
  // Scores: tensor cores align what they add by its exponent, which for codes is that of a subnormal, 1024 times the
  // step of an int8 code; the largest share of that in a score, as seen over all formats, is a few 2^-14.
  constexpr double kScore = 0x1p-11;
  const double tolerance = 2 * want.naive_o + (2 * half_ulp + kScore) * want.largest_value;
  const double lse_tolerance = 2 * want.naive_lse + kScore * (1 + want.largest_score);
  ASSERT_EQ(got.o.size(), want.exact.o.size());
  ASSERT_EQ(got.lse.size(), want.exact.lse.size());
  double error = 0;
  double norm = 0;
  double rounding = 0;
  for (std::size_t i = 0; i < got.o.size(); ++i) {
    const double difference = std::abs(got.o[i] - want.exact.o[i]);
    const double ulp = oracle::half_ulp(type, want.exact.o[i]);
    ASSERT_LE(difference, tolerance + ulp)
        << ops::describe(spec) << ": o[" << i << "] = " << got.o[i] << ", exact " << want.exact.o[i];
    error += difference * difference;
    norm += want.exact.o[i] * want.exact.o[i];
    rounding += ulp * ulp;
  }
  EXPECT_LE(std::sqrt(error), 2 * half_ulp * std::sqrt(norm) + std::sqrt(rounding)) << ops::describe(spec);
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    if (std::isinf(want.exact.lse[i])) {
      ASSERT_EQ(got.lse[i], want.exact.lse[i]) << ops::describe(spec);
      continue;
    }
    ASSERT_LE(std::abs(got.lse[i] - want.exact.lse[i]), lse_tolerance)
        << ops::describe(spec) << ": lse[" << i << "] = " << got.lse[i] << ", exact " << want.exact.lse[i];
  }
}

}  // namespace decode_test
