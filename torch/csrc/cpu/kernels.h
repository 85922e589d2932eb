// The float32 kernels of the CPU, free of libtorch. Feature maps are
// channels-last: [N,H,W,C], rows of C floats. kernels.cc is compiled once for
// each instruction set (namespace avx512, avx2, baseline); nst::cpu::kernels()
// is the best that this processor runs.
//
// Sums run in an order that depends on the sizes alone, so a result does not
// depend on the number of threads.
#pragma once

#include <cstdint>

namespace nst::cpu {

// Runs body(context, begin, end) for parts of [0, count), on several threads.
// (No std::function: a template's code that an AVX-512 file shares with others
// could be the one that the linker keeps for all.)
struct Parallel {
  int64_t threads;
  void (*run)(int64_t count, void (*body)(void* context, int64_t begin, int64_t end), void* context);
};

struct Maps {
  int64_t n, h, w, c;
  int64_t positions() const { return n * h * w; }
};

struct Kernels {
  const char* name;
  // The number of floats that hold a 3×3 convolution's transformed weights.
  int64_t (*winograd_size)(int64_t in, int64_t out);
  // Transforms weights [out,3,3,in]; with backward those of the gradient's
  // convolution, which takes out channels to in.
  void (*winograd_weights)(const float* weights, int64_t in, int64_t out, bool backward, float* transformed,
                           const Parallel& parallel);
  // y = conv(x) + bias (NULL: none), clipped at 0 with relu. Where mask (as x)
  // is given, x counts only where mask > 0.
  void (*winograd)(const float* x, const float* mask, Maps in, const float* transformed, const float* bias,
                   bool relu, float* y, int64_t out, const Parallel& parallel);
  // The same of up to 4 channels in, directly; weights are [out,in,3,3].
  void (*first)(const float* x, Maps in, const float* weights, const float* bias, bool relu, float* y,
                int64_t out, const Parallel& parallel);
  // The gradient by x of first's convolution: gradient and mask are as y.
  void (*first_backward)(const float* gradient, const float* mask, Maps out, const float* weights, float* dx,
                         int64_t in, const Parallel& parallel);
  // y [n,h/2,w/2,c]: the sums of 2×2, times scale.
  void (*average_pool)(const float* x, Maps in, float scale, float* y, const Parallel& parallel);
  void (*average_pool_backward)(const float* gradient, Maps in, float scale, float* dx, const Parallel& parallel);
  // y: the maxima of 2×2, and which of the four each is (of equal ones the
  // first, as in libtorch), 4 where it is not positive: a ReLU before the pool
  // passes no gradient there, so chosen is all that both gradients need.
  void (*max_pool)(const float* x, Maps in, float* y, uint8_t* chosen, const Parallel& parallel);
  void (*max_pool_backward)(const uint8_t* chosen, const float* gradient, Maps in, float* dx,
                            const Parallel& parallel);
  // product [c,c] = scale · fᵀ·f for f [positions,c].
  void (*syrk)(const float* f, int64_t positions, int64_t c, float scale, float* product,
               const Parallel& parallel);
  // sum [positions,n] = beta·sum + scale·f·d for f [positions,k], d [k,n];
  // beta is 0 or 1.
  void (*addmm)(float* sum, const float* f, const float* d, int64_t positions, int64_t k, int64_t n, float beta,
                float scale, const Parallel& parallel);
  // out [2,h,w]: how the pixels of a picture [3,h,w] of 0 to 1 move to another, to the right and down.
  void (*flow)(const float* from, const float* to, int64_t h, int64_t w, float* out, const Parallel& parallel);
  // out [planes,h,w] at (x,y) is x at (x,y) + motion(x,y); motion is [2,h,w].
  void (*warp)(const float* x, int64_t planes, const float* motion, int64_t h, int64_t w, float* out,
               const Parallel& parallel);
};

const Kernels& kernels();

}  // namespace nst::cpu
