#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "pagedkv/error.h"

namespace llama {

MappedFile::MappedFile(const std::string& path) {
  const auto fail = [&](const char* accepted) {
    return pagedkv::Error(pagedkv::ErrorCode::bad_file, path, std::generic_category().message(errno), accepted);
  };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw fail("a file that can be read");
  struct stat info {};
  const bool known = fstat(fd, &info) == 0;
  const auto size = known ? static_cast<std::size_t>(info.st_size) : 0;
  // An empty file cannot be mapped; it stays an empty span, which every parser refuses with its own words.
  void* data = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  const auto error = !known || data == MAP_FAILED ? fail("a file that can be mapped") : fail("");
  close(fd);
  if (!known || data == MAP_FAILED) throw error;
  bytes_ = {static_cast<const std::byte*>(data), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace llama
