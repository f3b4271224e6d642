#pragma once

namespace pagedkv {

/// The library's version, "major.minor.patch"; lives as long as the program.
const char* version() noexcept;

}  // namespace pagedkv
