#pragma once
// Matrix products by oneDNN.

#include <cstdint>
#include <dnnl.hpp>
#include <map>
#include <span>
#include <string_view>
#include <vector>

namespace llama {

/// What the matmuls round their inputs to; they always sum in float32.
enum class MatmulType : std::uint8_t { f32, bf16 };

constexpr std::string_view name(MatmulType type) {
  return type == MatmulType::f32 ? "f32" : "bf16";
}

/// Whether this CPU has bf16 dot products of its own (AVX512_BF16 or AMX); without them bf16 is the slower choice.
bool has_native_bf16();

/// What all matmuls of a model share. Not thread safe.
struct MatmulContext {
  explicit MatmulContext(MatmulType t) : type(t) {}
  MatmulType type;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<std::uint16_t> rounded;  ///< bf16: the input of the running matmul
};

/// A linear layer without bias: y = f(x W^T), the weights kept in the arrangement that oneDNN prefers.
class Linear {
 public:
  enum class Then : std::uint8_t {
    store,     ///< y = x W^T
    add,       ///< y += x W^T
    silu,      ///< y = z * sigmoid(z), z = x W^T
    multiply,  ///< y = factor * (x W^T)
  };

  /// @param weight  [outputs][inputs]
  /// @throws pagedkv::Error (unsupported) if oneDNN cannot do this type on this machine
  Linear(MatmulContext& context, std::span<const float> weight, std::int64_t outputs, std::int64_t inputs,
         Then then = Then::store);

  /// @param x       [rows][inputs]
  /// @param y       [rows][outputs]
  /// @param factor  [rows][outputs]; for Then::multiply and only then
  void run(std::int64_t rows, const float* x, float* y, const float* factor = nullptr);

 private:
  struct Plan {
    dnnl::memory x, y, factor;
    dnnl::matmul matmul;
  };

  dnnl::matmul::primitive_desc describe(std::int64_t rows, const dnnl::memory::desc& weight) const;
  Plan& plan(std::int64_t rows);

  MatmulContext* context_;
  std::int64_t outputs_;
  std::int64_t inputs_;
  Then then_;
  dnnl::memory weight_;
  std::map<std::int64_t, Plan> plans_;  ///< by rows: oneDNN compiles a kernel for each
};

}  // namespace llama
