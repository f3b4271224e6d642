#include "support/npy.h"

#include <fstream>
#include <iterator>
#include <regex>
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
  std::smatch match;
  if (!std::regex_search(header, match, std::regex("'descr': *'([^']*)'"))) fail("no descr");
  array.descr = match[1];
  if (header.find("'fortran_order': False") == std::string::npos) fail("not in C order");
  if (!std::regex_search(header, match, std::regex("'shape': *\\(([^)]*)\\)"))) fail("no shape");
  const std::string dims = match[1];
  const std::regex number("[0-9]+");
  for (auto it = std::sregex_iterator(dims.begin(), dims.end(), number); it != std::sregex_iterator(); ++it) {
    array.shape.push_back(std::stoll(it->str()));
  }
  array.bytes.assign(all.begin() + static_cast<std::ptrdiff_t>(10 + header_size), all.end());
  const std::size_t size = array.descr == "|u1" ? 1 : array.descr == "<f2" || array.descr == "<u2" ? 2 : 4;
  if (array.bytes.size() != static_cast<std::size_t>(array.count()) * size) fail("data has the wrong size");
  return array;
}

}  // namespace support
