#include "support/npy.h"

#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace support {

std::int64_t NpyArray::count() const {
  std::int64_t n = 1;
  for (const std::int64_t s : shape) n *= s;
  return n;
}

void NpyArray::check_element_size(std::size_t size) const {
  if (static_cast<std::size_t>(count()) * size != bytes.size()) {
    throw std::runtime_error("npy: elements of " + std::to_string(size) + " bytes asked of descr " + descr);
  }
}

namespace {

/// What stands between two marks, or nothing. (std::regex would do, but g++ warns inside it in sanitizer builds.)
std::string between(const std::string& text, const std::string& open, const std::string& close) {
  const std::size_t mark = text.find(open);
  if (mark == std::string::npos) return {};
  const std::size_t first = mark + open.size();
  return text.substr(first, text.find(close, first) - first);
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto fail = [&](const std::string& why) { throw std::runtime_error(path + ": " + why); };
  if (!file) fail("cannot be read");
  if (all.size() < 10 || all.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) != 0)
    fail("not a .npy file, version 1");
  const std::size_t header_size = static_cast<unsigned char>(all[8]) + 256U * static_cast<unsigned char>(all[9]);
  if (all.size() < 10 + header_size) fail("header cut off");
  const std::string header = all.substr(10, header_size);

  NpyArray array;
  array.descr = between(header, "'descr': '", "'");
  if (array.descr.empty()) fail("no descr");
  if (header.find("'fortran_order': False") == std::string::npos) fail("not in C order");
  if (header.find("'shape': (") == std::string::npos) fail("no shape");
  std::istringstream dims(between(header, "'shape': (", ")"));
  for (std::int64_t n = 0; dims >> n; dims.ignore(1, ',')) array.shape.push_back(n);
  array.bytes.assign(all.begin() + static_cast<std::ptrdiff_t>(10 + header_size), all.end());
  const std::size_t size = array.descr == "|u1" ? 1 : array.descr == "<f2" || array.descr == "<u2" ? 2 : 4;
  if (array.bytes.size() != static_cast<std::size_t>(array.count()) * size) fail("data has the wrong size");
  return array;
}

}  // namespace support
