// Include right before HWY_BEFORE_NAMESPACE(); no guard, since Highway sets HWY_TARGET_STR anew.
//
// Highway 1.0.3 asks the compiler for avxvnni, an encoding that AVX-512 machines may lack, where it means avx512vnni.
// What it asks for must stay, or its functions could not be inlined.

#if HWY_TARGET == HWY_AVX3_DL
#undef HWY_TARGET_STR
#define HWY_TARGET_STR \
  HWY_TARGET_STR_AVX3  \
  ",vpclmulqdq,avx512vbmi,avx512vbmi2,vaes,avxvnni,avx512vnni,avx512bitalg,avx512vpopcntdq"
#endif
