#pragma once
// Float formats in double arithmetic.

#include <cstddef>
#include <cstdint>

namespace oracle {

enum class Type { f32, f16, bf16 };

int bytes_of(Type t);

/// x rounded to the format, to nearest even; overflow gives infinity.
double round_to(Type t, double x);

/// a + b rounded once to the format, however far apart a and b are.
double round_sum(Type t, double a, double b);

/// Half the distance between neighbours of the format around x: the largest error of rounding a finite x.
double half_ulp(Type t, double x);

/// One element in memory.
double load(Type t, const void* p);
void store(Type t, void* p, double x);

}  // namespace oracle
