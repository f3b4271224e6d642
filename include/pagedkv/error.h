#pragma once
// The one exception type of the library. Every breach of a function's contract that can be seen, and every failure of
// the CUDA runtime, is thrown as an Error that names the argument, its value and what would have been accepted.

#include <stdexcept>
#include <string>

namespace pagedkv {

enum class ErrorCode {
  invalid_argument,  ///< a value outside its contract
  unsupported,       ///< a valid combination that this build or device has no code for
  invalid_state,     ///< the object does not allow this now (a block freed twice, ...)
  bad_file,          ///< a file that cannot be read or parsed
  cuda,              ///< a CUDA runtime call failed
};

constexpr const char* name(ErrorCode c) noexcept {
  switch (c) {
    case ErrorCode::invalid_argument:
      return "invalid argument";
    case ErrorCode::unsupported:
      return "unsupported";
    case ErrorCode::invalid_state:
      return "invalid state";
    case ErrorCode::bad_file:
      return "bad file";
    case ErrorCode::cuda:
      return "CUDA failure";
  }
  return "error";
}

class Error : public std::runtime_error {
 public:
  /// what() reads "pagedkv: <code>: <argument> = <value>; accepted: <accepted>"; parts that are empty are left out.
  Error(ErrorCode code, std::string argument, std::string value, std::string accepted)
      : std::runtime_error(message(code, argument, value, accepted)),
        code_(code),
        argument_(std::move(argument)),
        value_(std::move(value)),
        accepted_(std::move(accepted)) {}

  ErrorCode code() const noexcept { return code_; }
  /// Name of the offending argument, for example "WriteKvArgs.cu_q[3]".
  const std::string& argument() const noexcept { return argument_; }
  /// Its value as text.
  const std::string& value() const noexcept { return value_; }
  /// What would have been accepted.
  const std::string& accepted() const noexcept { return accepted_; }

 private:
  static std::string message(ErrorCode code, const std::string& argument, const std::string& value,
                             const std::string& accepted) {
    std::string s = std::string("pagedkv: ") + name(code) + ": " + argument;
    if (!value.empty()) s += " = " + value;
    if (!accepted.empty()) s += "; accepted: " + accepted;
    return s;
  }

  ErrorCode code_;
  std::string argument_;
  std::string value_;
  std::string accepted_;
};

}  // namespace pagedkv
