// What flow.cc stands on: vectors of 8 floats, planes with margins, and their values between pixels. It is compiled
// once for each instruction set, so nothing in it is shared with other files.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels.h"

namespace nst::cpu::NST_ISA::optical {
namespace {

constexpr int64_t kLanes = 8;    // of a vector, whatever the instruction set
constexpr int64_t kMargin = 16;  // what a plane has beyond its edges

typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Quad quad(const float* p) { return *reinterpret_cast<const Quad*>(p); }
inline float total(Quad q) { return (q[0] + q[1]) + (q[2] + q[3]); }
// The lanes from By on, then the others.
template <int By>
inline Vec turned(Vec v) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(v, v, By, By + 1, By + 2, By + 3, By + 4, By + 5, By + 6, By + 7);
#else
  return __builtin_shuffle(v, Mask{By, By + 1, By + 2, By + 3, By + 4, By + 5, By + 6, By + 7});
#endif
}
inline float total(Vec v) {
  v += turned<4>(v);
  v += turned<2>(v);
  return v[0] + v[1];
}
inline Vec square(Vec v) { return v * v; }
inline float square(float v) { return v * v; }
inline Vec root(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (float& lane : lanes) lane = __builtin_sqrtf(lane);
  return load(lanes);
}
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }
inline int64_t within(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }
// NaN becomes low.
inline float clamp(float v, float low, float high) { return v > low ? (v < high ? v : high) : low; }

template <class Body>
void each(const Parallel& parallel, int64_t count, const Body& body) {
  parallel.run(
      count,
      [](void* b, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) (*static_cast<const Body*>(b))(i);
      },
      const_cast<Body*>(&body));
}

// A plane with a margin around it, zero at first. Loops over a row may write a vector beyond its end.
class Plane {
 public:
  Plane() = default;
  Plane(int64_t height, int64_t width) : h(height), w(width), stride(width + 2 * kMargin) {
    memory_ = static_cast<float*>(calloc((h + 2 * kMargin) * stride, sizeof(float)));
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  Plane(Plane&& other) { *this = static_cast<Plane&&>(other); }
  Plane& operator=(Plane&& other) {
    free(memory_);
    h = other.h, w = other.w, stride = other.stride, memory_ = other.memory_;
    other.memory_ = nullptr;
    return *this;
  }
  ~Plane() { free(memory_); }
  float* row(int64_t y) const { return memory_ + (y + kMargin) * stride + kMargin; }
  int64_t h = 0, w = 0, stride = 0;

 private:
  float* memory_ = nullptr;
};

// The margin becomes what the edge is.
void replicate(const Plane& p) {
  for (int64_t y = 0; y < p.h; y++) {
    float* row = p.row(y);
    for (int64_t i = 1; i <= kMargin; i++) row[-i] = row[0], row[p.w - 1 + i] = row[p.w - 1];
  }
  for (int64_t i = 1; i <= kMargin; i++) {
    std::memcpy(p.row(-i) - kMargin, p.row(0) - kMargin, p.stride * sizeof(float));
    std::memcpy(p.row(p.h - 1 + i) - kMargin, p.row(p.h - 1) - kMargin, p.stride * sizeof(float));
  }
}

// Catmull-Rom's weights of the pixels -1, 0, 1 and 2 at t (Keys 1981, a = -1/2).
inline Quad cubic(float t) {
  constexpr Quad c3{-0.5f, 1.5f, -1.5f, 0.5f}, c2{1, -2.5f, 2, -0.5f}, c1{-0.5f, 0, 0.5f, 0}, c0{0, 1, 0, 0};
  return ((c3 * t + c2) * t + c1) * t + c0;
}

// out[x] = p(x + u[x], y + v[x]) for a row, cubic; beyond p's edges is what they are, as in its margin.
void sample(const Plane& p, int64_t y, const float* u, const float* v, float* out) {
  const float right = static_cast<float>(p.w - 1), bottom = static_cast<float>(p.h - 1);
  for (int64_t x = 0; x < p.w; x++) {
    const float px = clamp(static_cast<float>(x) + u[x], 0, right);
    const float py = clamp(static_cast<float>(y) + v[x], 0, bottom);
    const int32_t left = static_cast<int32_t>(px), top = static_cast<int32_t>(py);
    const Quad across = cubic(px - static_cast<float>(left)), down = cubic(py - static_cast<float>(top));
    const float* at = p.row(top - 1) + left - 1;
    const Quad upper = down[0] * quad(at) + down[1] * quad(at + p.stride);
    const Quad lower = down[2] * quad(at + 2 * p.stride) + down[3] * quad(at + 3 * p.stride);
    out[x] = total(across * (upper + lower));
  }
}

}  // namespace
}  // namespace nst::cpu::NST_ISA::optical
