#include "pagedkv/version.h"

namespace pagedkv {

const char* version() noexcept {
  return PAGEDKV_VERSION;
}

}  // namespace pagedkv
