// Chooses the kernels of the best instruction set that the processor has, or of
// the one that NST_KERNELS names if the processor has it: tests try each.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace nst::cpu {

namespace baseline {
extern const Kernels kernels;
}
#ifdef NST_X86
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

const Kernels& choose() {
  const char* wanted = getenv("NST_KERNELS");
  auto may = [&](const Kernels& k) { return wanted == nullptr || std::strcmp(wanted, k.name) == 0; };
#ifdef NST_X86
  if (may(avx512::kernels) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return avx512::kernels;
  if (may(avx2::kernels) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::kernels;
#endif
  return baseline::kernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace nst::cpu
