// What a user of the installed package writes: public headers, one target, C++ only.
#include <pagedkv/version.h>

#include <iostream>

int main() {
  std::cout << "pagedkv " << pagedkv::version() << '\n';
  return 0;
}
