// libtorch's threads, for the CPU's kernels.
#pragma once

#include <ATen/Parallel.h>

#include "cpu/kernels.h"

namespace nst {

inline cpu::Parallel threads() {
  return {at::get_num_threads(), [](int64_t count, void (*body)(void*, int64_t, int64_t), void* context) {
            at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) { body(context, begin, end); });
          }};
}

}  // namespace nst
