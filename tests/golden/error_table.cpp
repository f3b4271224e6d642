// Prints, as a Markdown table, how far the rows that we and the original store are from the exact values.

#include <cstdio>

#include "golden/row_compare.h"

int main() {
  std::printf("| case | rows | ours: rms | largest | original: rms | largest | ideal: rms |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- |\n");
  for (const golden::CacheCase& c : golden::cache_cases()) {
    if (c.layout.format.k == pagedkv::KvType::same) continue;
    golden::Cache cache(c);
    golden::write_case(c, cache);
    const golden::ErrorTable t = golden::compare_errors(c, cache.layer_bytes(), c.file("blocks").bytes);
    std::printf("| %s | %d | %.3f | %.2f | %.3f | %.2f | %.3f |\n", c.name.c_str(), t.rows, t.ours.rms(),
                t.ours.largest, t.theirs.rms(), t.theirs.largest, t.ideal.rms());
  }
}
