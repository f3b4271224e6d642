#include "linear.h"

#include <cassert>
#include <string>

#include "elementwise.h"
#include "pagedkv/error.h"

namespace llama {
namespace {

using dnnl::memory;

constexpr std::int64_t kTypicalRows = 512;  // the weights' arrangement is chosen for this many

memory::data_type dnnl_type(MatmulType type) {
  return type == MatmulType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc rows_desc(std::int64_t rows, std::int64_t columns, memory::data_type type) {
  return {{rows, columns}, type, memory::format_tag::ab};
}

}  // namespace

bool has_native_bf16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (isa & wanted) == wanted;  // every value of cpu_isa contains the bits of what it builds on
}

Linear::Linear(MatmulContext& context, std::span<const float> weight, std::int64_t outputs, std::int64_t inputs,
               Then then)
    : context_(&context), outputs_(outputs), inputs_(inputs), then_(then) {
  assert(static_cast<std::int64_t>(weight.size()) == outputs * inputs);
  try {
    const memory::desc any({inputs, outputs}, dnnl_type(context.type), memory::format_tag::any);
    weight_ = memory(describe(kTypicalRows, any).weights_desc(), context.engine);
    // [outputs][inputs] row major is [inputs][outputs] column major.
    memory given({{inputs, outputs}, memory::data_type::f32, memory::format_tag::ba}, context.engine,
                 const_cast<float*>(weight.data()));
    dnnl::reorder(given, weight_).execute(context.stream, given, weight_);
    context.stream.wait();
  } catch (const dnnl::error& error) {
    throw pagedkv::Error(pagedkv::ErrorCode::unsupported, "matmul",
                         std::string(name(context.type)) + " (oneDNN: " + error.what() + ")",
                         "a type that oneDNN supports on this CPU; f32 always works");
  }
}

dnnl::matmul::primitive_desc Linear::describe(std::int64_t rows, const memory::desc& weight) const {
  const auto y = rows_desc(rows, outputs_, memory::data_type::f32);
  dnnl::post_ops then;
  if (then_ == Then::add) then.append_sum(1.0F);
  if (then_ == Then::silu) then.append_eltwise(1.0F, dnnl::algorithm::eltwise_swish, 1.0F, 0.0F);
  if (then_ == Then::multiply) then.append_binary(dnnl::algorithm::binary_mul, y);
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(then);
  const auto x = rows_desc(rows, inputs_, dnnl_type(context_->type));
  return {dnnl::matmul::desc(x, weight, y), attributes, context_->engine};
}

Linear::Plan& Linear::plan(std::int64_t rows) {
  const auto found = plans_.find(rows);
  if (found != plans_.end()) return found->second;
  const auto description = describe(rows, weight_.get_desc());
  // The memory objects get their addresses when they are used.
  const auto bind = [&](const memory::desc& desc) { return memory(desc, context_->engine, nullptr); };
  const memory::desc y = description.dst_desc();
  return plans_.emplace(rows, Plan{bind(description.src_desc()), bind(y), bind(y), dnnl::matmul(description)})
      .first->second;
}

void Linear::run(std::int64_t rows, const float* x, float* y, const float* factor) {
  assert((factor != nullptr) == (then_ == Then::multiply));
  Plan& p = plan(rows);
  const void* input = x;
  if (context_->type == MatmulType::bf16) {
    context_->rounded.resize(static_cast<std::size_t>(rows * inputs_));
    round_to(pagedkv::DType::bf16, x, rows * inputs_, context_->rounded.data());
    input = context_->rounded.data();
  }
  p.x.set_data_handle(const_cast<void*>(input));
  p.y.set_data_handle(y);
  std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, p.x}, {DNNL_ARG_WEIGHTS, weight_}, {DNNL_ARG_DST, p.y}};
  if (factor != nullptr) {
    p.factor.set_data_handle(const_cast<float*>(factor));
    arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, p.factor);
  }
  p.matmul.execute(context_->stream, arguments);
  context_->stream.wait();
}

}  // namespace llama
