// Dense optical flow and warping; see kernels.h. Compiled once for each instruction set, with NST_ISA its name.
//
// The flow is Kroeger, Timofte, Dai and Van Gool's, "Fast Optical Flow using Dense Inverse Search" (ECCV 2016,
// arXiv:1603.03590), from the coarsest level of a pyramid to the finest: patches on a grid are found in the other
// picture by gradient descent, their motions are spread over the pixels, and a variational method refines them.
// Every value depends on the level before and on its place alone, so the result does not depend on threads.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels.h"

namespace nst::cpu::NST_ISA::optical {
namespace {

constexpr int64_t kMargin = 16;   // what a plane has beyond its edges
constexpr int64_t kPatch = 8;     // pixels a side
constexpr int64_t kStride = 4;    // between patches
constexpr int64_t kCoarsest = 20; // the coarsest level's longer side is at most this
constexpr int kLevels = 32;
#ifdef FLOW_DEV
float P(const char* name, float d) { const char* s = getenv(name); return s ? atof(s) : d; }
#else
#define P(name, d) d
#endif

typedef float Row __attribute__((vector_size(kPatch * 4), aligned(4), may_alias));

inline Row load(const float* p) { return *reinterpret_cast<const Row*>(p); }
inline float total(Row r) { return ((r[0] + r[4]) + (r[1] + r[5])) + ((r[2] + r[6]) + (r[3] + r[7])); }
int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }
int64_t within(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }
// NaN becomes low.
inline float clamp(float v, float low, float high) { return v > low ? (v < high ? v : high) : low; }
inline float square(float v) { return v * v; }

template <class Body>
void each(const Parallel& parallel, int64_t count, const Body& body) {
  parallel.run(
      count,
      [](void* b, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) (*static_cast<const Body*>(b))(i);
      },
      const_cast<Body*>(&body));
}

// A plane with a margin of kMargin around it, zero at first.
class Plane {
 public:
  Plane() = default;
  Plane(int64_t height, int64_t width) : h(height), w(width), stride(width + 2 * kMargin) {
    memory_ = static_cast<float*>(calloc((h + 2 * kMargin) * stride, sizeof(float)));
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  Plane(const Plane&) = delete;
  Plane(Plane&& other) : h(other.h), w(other.w), stride(other.stride), memory_(other.memory_) {
    other.memory_ = nullptr;
  }
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

// The luma (Rec. 601) of a picture [3,h,w], of 0 to 255. What is no number is 0.
Plane luma(const float* picture, int64_t h, int64_t w, const Parallel& parallel) {
  Plane out(h, w);
  each(parallel, h, [&](int64_t y) {
    const float *r = picture + y * w, *g = r + h * w, *b = g + h * w;
    float* to = out.row(y);
    for (int64_t x = 0; x < w; x++)
      to[x] = 76.245f * clamp(r[x], 0, 1) + 149.685f * clamp(g[x], 0, 1) + 29.07f * clamp(b[x], 0, 1);
  });
  replicate(out);
  return out;
}

// Means of 2×2 pixels, so that pixel x is at 2x+0.5 of p.
Plane halved(const Plane& p, const Parallel& parallel) {
  Plane out((p.h + 1) / 2, (p.w + 1) / 2);
  each(parallel, out.h, [&](int64_t y) {
    const float *upper = p.row(2 * y), *lower = p.row(2 * y + 1);
    float* to = out.row(y);
    for (int64_t x = 0; x < out.w; x++)
      to[x] = 0.25f * ((upper[2 * x] + upper[2 * x + 1]) + (lower[2 * x] + lower[2 * x + 1]));
  });
  replicate(out);
  return out;
}

// A component of the flow at a level of twice the size: linear between pixels, and twice as long.
void doubled(const Plane& p, const Plane& out, const Parallel& parallel) {
  each(parallel, out.h, [&](int64_t y) {
    const float* near = p.row(y / 2);
    const float* far = p.row(within(y / 2 + (y % 2 == 0 ? -1 : 1), 0, p.h - 1));
    float* to = out.row(y);
    for (int64_t x = 0; x < out.w; x++) {
      const int64_t i = x / 2, j = within(x % 2 == 0 ? i - 1 : i + 1, 0, p.w - 1);
      to[x] = 1.125f * near[i] + 0.375f * near[j] + 0.375f * far[i] + 0.125f * far[j];
    }
  });
}

// Catmull-Rom's weights of the pixels -1, 0, 1 and 2 at t (Keys 1981, a = -1/2).
struct Cubic {
  explicit Cubic(float t)
      : a(((-0.5f * t + 1) * t - 0.5f) * t),
        b((1.5f * t - 2.5f) * t * t + 1),
        c(((-1.5f * t + 2) * t + 0.5f) * t),
        d((0.5f * t - 0.5f) * t * t) {}
  float a, b, c, d;
};

// out[x] = p(x + u[x], y + v[x]), cubic, for a row of p, of which row y begins at p + y*stride; edges are continued.
void sample(const float* __restrict p, int64_t h, int64_t w, int64_t stride, int64_t y, const float* __restrict u,
            const float* __restrict v, int64_t count, float* __restrict out) {
  const float right = static_cast<float>(w - 1), bottom = static_cast<float>(h - 1);
  const int32_t last = static_cast<int32_t>(w - 1), lowest = static_cast<int32_t>(h - 1);
  for (int64_t i = 0; i < count; i++) {
    const float px = clamp(static_cast<float>(i) + u[i], 0, right);
    const float py = clamp(static_cast<float>(y) + v[i], 0, bottom);
    const int32_t x1 = static_cast<int32_t>(px), y1 = static_cast<int32_t>(py);
    const int32_t x0 = x1 > 0 ? x1 - 1 : 0, x2 = x1 < last ? x1 + 1 : last, x3 = x2 < last ? x2 + 1 : last;
    const int32_t y0 = y1 > 0 ? y1 - 1 : 0, y2 = y1 < lowest ? y1 + 1 : lowest, y3 = y2 < lowest ? y2 + 1 : lowest;
    const Cubic across(px - static_cast<float>(x1)), down(py - static_cast<float>(y1));
    auto line = [&](int32_t row) {
      const float* at = p + row * stride;
      return (across.a * at[x0] + across.b * at[x1]) + (across.c * at[x2] + across.d * at[x3]);
    };
    out[i] = (down.a * line(y0) + down.b * line(y1)) + (down.c * line(y2) + down.d * line(y3));
  }
}

struct Motion {
  float u, v;
};

// ---- Inverse search

// A patch of one picture, its gradients, and what is found of it in the other: equation 1 of the paper, with the
// mean of the differences taken off (section 2.2).
class Patch {
 public:
  Patch(const Plane& from, const Plane& to, int64_t x, int64_t y) : to_(to), x_(x), y_(y) {
    Row xx{}, xy{}, yy{}, sx{}, sy{};
    for (int64_t i = 0; i < kPatch; i++) {
      const float* at = from.row(y + i) + x;
      pixels_[i] = load(at);
      const Row gx = dx_[i] = 0.5f * (load(at + 1) - load(at - 1));
      const Row gy = dy_[i] = 0.5f * (load(at + from.stride) - load(at - from.stride));
      sx += gx, sy += gy, xx += gx * gx, xy += gx * gy, yy += gy * gy;
    }
    sum_x_ = total(sx), sum_y_ = total(sy);
    const float a = total(xx) - sum_x_ * sum_x_ / kPixels + kLeast, b = total(xy) - sum_x_ * sum_y_ / kPixels;
    const float c = total(yy) - sum_y_ * sum_y_ / kPixels + kLeast;
    const float scale = 1 / (a * c - b * b);
    xx_ = c * scale, xy_ = -b * scale, yy_ = a * scale;
  }

  // The squares of the differences at m, and the step of Gauss and Newton from there.
  float at(Motion m, Motion* step) const {
    const float px = clamp(static_cast<float>(x_) + m.u, 1 - kMargin, static_cast<float>(to_.w + kMargin - kPatch - 2));
    const float py = clamp(static_cast<float>(y_) + m.v, 1 - kMargin, static_cast<float>(to_.h + kMargin - kPatch - 2));
    const float left = std::floor(px), top = std::floor(py), fx = px - left, fy = py - top;
    const float d = fx * fy, c = fy - d, b = fx - d, a = 1 - fx - c;
    const float* corner = to_.row(static_cast<int64_t>(top)) + static_cast<int64_t>(left);
    Row sum{}, squares{}, by_x{}, by_y{};
    for (int64_t i = 0; i < kPatch; i++) {
      const float *upper = corner + i * to_.stride, *lower = upper + to_.stride;
      const Row r = a * load(upper) + b * load(upper + 1) + c * load(lower) + d * load(lower + 1) - pixels_[i];
      sum += r, squares += r * r, by_x += r * dx_[i], by_y += r * dy_[i];
    }
    const float mean = total(sum) / kPixels;
    const float gx = total(by_x) - sum_x_ * mean, gy = total(by_y) - sum_y_ * mean;
    *step = {xx_ * gx + xy_ * gy, xy_ * gx + yy_ * gy};
    return total(squares) - kPixels * mean * mean;
  }

  // Descends from m as long as it gets better.
  Motion descend(Motion m, float* cost) const {
    const Motion first = m;
    Motion step;
    *cost = at(m, &step);
    for (int i = 0; i < kSteps; i++) {
      const Motion next{m.u - step.u, m.v - step.v};
      if (!(square(next.u - first.u) + square(next.v - first.v) <= square(kPatch))) break;
      const float length = square(step.u) + square(step.v);
      const float there = at(next, &step);
      if (!(there < *cost)) break;
      m = next, *cost = there;
      if (length < square(kTiny)) break;
    }
    return m;
  }

 private:
  static constexpr float kPixels = kPatch * kPatch, kLeast = 1e-1f, kTiny = 0.02f;
  static constexpr int kSteps = 12;
  const Plane& to_;
  int64_t x_, y_;
  Row pixels_[kPatch], dx_[kPatch], dy_[kPatch];
  float sum_x_, sum_y_, xx_, xy_, yy_;  // sums of gradients; the inverse of the Hessian
};

// Where the patches of a level begin.
struct Grid {
  explicit Grid(const Plane& p) : h(count(p.h)), w(count(p.w)), bottom(most(0, p.h - kPatch)), right(most(0, p.w - kPatch)) {}
  static int64_t count(int64_t size) { return (most(0, size - kPatch) + kStride - 1) / kStride + 1; }
  int64_t x(int64_t i) const { return least(i * kStride, right); }
  int64_t y(int64_t i) const { return least(i * kStride, bottom); }
  int64_t h, w, bottom, right;
};

// The motion of each patch, from the best of what the flow of the level before is in and around it.
void search(const Plane& from, const Plane& to, const Plane& u, const Plane& v, const Grid& grid, const Plane& found_u,
            const Plane& found_v, const Parallel& parallel) {
  each(parallel, grid.h, [&](int64_t j) {
    for (int64_t i = 0; i < grid.w; i++) {
      const Patch patch(from, to, grid.x(i), grid.y(j));
      const int64_t x = least(grid.x(i) + kPatch / 2, from.w - 1), y = least(grid.y(j) + kPatch / 2, from.h - 1);
      Motion best{}, step;
      float least_cost = INFINITY;
      static constexpr int64_t around[5][2] = {{0, 0}, {-1, 0}, {1, 0}, {0, -1}, {0, 1}};
      for (const auto& a : around) {
        const int64_t ax = within(x + a[0] * kPatch, 0, from.w - 1), ay = within(y + a[1] * kPatch, 0, from.h - 1);
        const Motion m{u.row(ay)[ax], v.row(ay)[ax]};
        const float cost = patch.at(m, &step);
        if (cost < least_cost) least_cost = cost, best = m;
      }
      best = patch.descend(best, &least_cost);
      found_u.row(j)[i] = best.u, found_v.row(j)[i] = best.v;
    }
  });
}

// Equation 3: a pixel's motion is the mean of its patches', the less the more the pixel differs.
void spread(const Plane& from, const Plane& to, const Grid& grid, const Plane& found_u, const Plane& found_v,
            const Plane& u, const Plane& v, const Parallel& parallel) {
  each(parallel, from.h, [&](int64_t y) {
    const float* pixels = from.row(y);
    float *to_u = u.row(y), *to_v = v.row(y);
    const Plane sums(1, from.w);
    float* weights = sums.row(0);
    for (int64_t x = 0; x < from.w; x++) to_u[x] = to_v[x] = 0;
    for (int64_t j = 0; j < grid.h; j++) {
      if (y < grid.y(j) || y >= grid.y(j) + kPatch) continue;
      for (int64_t i = 0; i < grid.w; i++) {
        const Motion m{found_u.row(j)[i], found_v.row(j)[i]};
        const float px = clamp(static_cast<float>(grid.x(i)) + m.u, 1 - kMargin, static_cast<float>(to.w + kMargin - kPatch - 2));
        const float py = clamp(static_cast<float>(y) + m.v, 1 - kMargin, static_cast<float>(to.h + kMargin - 2));
        const float left = std::floor(px), top = std::floor(py), fx = px - left, fy = py - top;
        const float d = fx * fy, c = fy - d, b = fx - d, a = 1 - fx - c;
        const float *upper = to.row(static_cast<int64_t>(top)) + static_cast<int64_t>(left), *lower = upper + to.stride;
        for (int64_t k = 0; k < least(kPatch, from.w); k++) {
          const int64_t x = grid.x(i) + k;
          const float r = std::fabs(a * upper[k] + b * upper[k + 1] + c * lower[k] + d * lower[k + 1] - pixels[x]);
          const float weight = 1 / (r > 1 ? r : 1);
          to_u[x] += weight * m.u, to_v[x] += weight * m.v, weights[x] += weight;
        }
      }
    }
    for (int64_t x = 0; x < from.w; x++) to_u[x] /= weights[x], to_v[x] /= weights[x];
  });
}

// ---- Variational refinement

// The derivative of p[i*step], of the fourth order.
inline float slope(const float* p, int64_t step) {
  return (p[-2 * step] - p[2 * step]) * (1 / 12.0f) + (p[step] - p[-step]) * (8 / 12.0f);
}

// The linear system of a level: a pixel's [xx xy; xy yy]·(u,v) = (x,y), and the weights of its differences from the
// next pixel to the right and the next below.
struct System {
  System(int64_t h, int64_t w) : mean(h, w), change(h, w), dx(h, w), dy(h, w), xx(h, w), xy(h, w), yy(h, w), x(h, w), y(h, w), right(h, w), below(h, w) {}
  Plane mean, change, dx, dy, xx, xy, yy, x, y, right, below;
};

// Data: brightness and gradient constancy, each normalised (Zimmer, Bruhn and Weickert 2011).
void data_terms(const Plane& from, const Plane& to, const Plane& u, const Plane& v, System& s, const Parallel& parallel) {
  const int64_t h = from.h, w = from.w;
  static const float kBrightness = P("DELTA", 5), kGradient = P("GAMMA", 10), kZeta = P("ZETA", 0.1f), kEpsilon = P("EPS", 0.001f);
  each(parallel, h, [&](int64_t y) {
    float *mean = s.mean.row(y), *change = s.change.row(y);
    const float* a = from.row(y);
    sample(to.row(0), h, w, to.stride, y, u.row(y), v.row(y), w, change);
    for (int64_t x = 0; x < w; x++) {
      const float b = change[x];
      mean[x] = 0.5f * (a[x] + b), change[x] = b - a[x];
    }
  });
  replicate(s.mean);
  replicate(s.change);
  each(parallel, h, [&](int64_t y) {
    const float* mean = s.mean.row(y);
    float *dx = s.dx.row(y), *dy = s.dy.row(y);
    for (int64_t x = 0; x < w; x++) dx[x] = slope(mean + x, 1), dy[x] = slope(mean + x, s.mean.stride);
  });
  replicate(s.dx);
  replicate(s.dy);
  each(parallel, h, [&](int64_t y) {
    const float *__restrict change = s.change.row(y), *__restrict dx = s.dx.row(y), *__restrict dy = s.dy.row(y);
    const float *__restrict us = u.row(y), *__restrict vs = v.row(y);
    float *__restrict axx = s.xx.row(y), *__restrict axy = s.xy.row(y), *__restrict ayy = s.yy.row(y);
    float *__restrict ax = s.x.row(y), *__restrict ay = s.y.row(y);
    const int64_t stride = s.dx.stride;
    for (int64_t x = 0; x < w; x++) {
      const float outside = !(static_cast<float>(x) + us[x] >= 0 && static_cast<float>(x) + us[x] <= static_cast<float>(w - 1) && static_cast<float>(y) + vs[x] >= 0 && static_cast<float>(y) + vs[x] <= static_cast<float>(h - 1));
      const float ix = dx[x], iy = dy[x], it = change[x];
      const float ixx = slope(dx + x, 1), ixy = slope(dx + x, stride), iyy = slope(dy + x, stride);
      const float ixt = slope(change + x, 1), iyt = slope(change + x, stride);
      const float n = 1 / (ix * ix + iy * iy + kZeta * kZeta);
      const float nx = 1 / (ixx * ixx + ixy * ixy + kZeta * kZeta), ny = 1 / (ixy * ixy + iyy * iyy + kZeta * kZeta);
      const float b = (1 - outside) * kBrightness * n / std::sqrt(n * it * it + kEpsilon * kEpsilon);
      const float g = (1 - outside) * kGradient / std::sqrt(nx * ixt * ixt + ny * iyt * iyt + kEpsilon * kEpsilon);
      const float gx = g * nx, gy = g * ny;
      const float xx = b * ix * ix + gx * ixx * ixx + gy * ixy * ixy;
      const float xy = b * ix * iy + gx * ixx * ixy + gy * ixy * iyy;
      const float yy = b * iy * iy + gx * ixy * ixy + gy * iyy * iyy;
      axx[x] = xx, axy[x] = xy, ayy[x] = yy;
      ax[x] = xx * us[x] + xy * vs[x] - (b * ix * it + gx * ixx * ixt + gy * ixy * iyt);
      ay[x] = xy * us[x] + yy * vs[x] - (b * iy * it + gx * ixy * ixt + gy * iyy * iyt);
    }
  });
}

void smoothness_terms(const Plane& from, const Plane& u, const Plane& v, System& s, const Parallel& parallel) {
  static const float kAlpha = P("ALPHA", 10), kEpsilon = P("EPSS", 0.001f), kEdge = P("EDGE", 0.0f);
  const int64_t h = from.h, w = from.w;
  // dx: the weight at each pixel.
  each(parallel, h, [&](int64_t y) {
    const float *u0 = u.row(y), *u1 = u.row(y + 1 < h ? y + 1 : y), *u2 = u.row(y > 0 ? y - 1 : 0);
    const float *v0 = v.row(y), *v1 = v.row(y + 1 < h ? y + 1 : y), *v2 = v.row(y > 0 ? y - 1 : 0);
    float* to = s.dx.row(y);
    for (int64_t x = 0; x < w; x++) {
      const int64_t l = x > 0 ? x - 1 : 0, r = x + 1 < w ? x + 1 : x;
      const float ux = u0[r] - u0[l], uy = u1[x] - u2[x], vx = v0[r] - v0[l], vy = v1[x] - v2[x];
      to[x] = kAlpha / std::sqrt(0.25f * (ux * ux + uy * uy + vx * vx + vy * vy) + kEpsilon * kEpsilon);
    }
  });
  each(parallel, h, [&](int64_t y) {
    const float *here = s.dx.row(y), *next = s.dx.row(y + 1);
    const float *i0 = from.row(y), *i1 = from.row(y + 1);
    float *right = s.right.row(y), *below = s.below.row(y);
    for (int64_t x = 0; x < w; x++) right[x] = 0.5f * (here[x] + here[x + 1]) / (1 + kEdge * square(i0[x + 1] - i0[x]));
    for (int64_t x = 0; x < w; x++) below[x] = y + 1 < h ? 0.5f * (here[x] + next[x]) / (1 + kEdge * square(i1[x] - i0[x])) : 0;
    right[w - 1] = 0;
  });
}

// Successive over-relaxation, of half the pixels at a time: those whose x+y is even, then the others.
void relax(const Plane& u, const Plane& v, const System& s, int64_t colour, const Parallel& parallel) {
  static const float kOmega = P("OMEGA", 1.6f);
  each(parallel, u.h, [&](int64_t y) {
    float *__restrict u0 = u.row(y), *__restrict v0 = v.row(y);
    const float *__restrict un = u.row(y - 1), *__restrict us = u.row(y + 1);
    const float *__restrict vn = v.row(y - 1), *__restrict vs = v.row(y + 1);
    const float *__restrict e = s.right.row(y), *__restrict b = s.below.row(y), *__restrict n = s.below.row(y - 1);
    const float *__restrict xx = s.xx.row(y), *__restrict xy = s.xy.row(y), *__restrict yy = s.yy.row(y);
    const float *__restrict sx = s.x.row(y), *__restrict sy = s.y.row(y);
    const int32_t odd = static_cast<int32_t>((y + colour) & 1);
#pragma GCC ivdep
    for (int32_t x = 0; x < static_cast<int32_t>(u.w); x++) {
      const float weights = (e[x] + e[x - 1]) + (b[x] + n[x]) + 1e-6f;
      const float p = sx[x] + (e[x] * u0[x + 1] + e[x - 1] * u0[x - 1]) + (b[x] * us[x] + n[x] * un[x]);
      const float q = sy[x] + (e[x] * v0[x + 1] + e[x - 1] * v0[x - 1]) + (b[x] * vs[x] + n[x] * vn[x]);
      const float a = xx[x] + weights, d = yy[x] + weights, c = xy[x];
      const float scale = kOmega / (a * d - c * c);
      const float nu = u0[x] * (1 - kOmega) + (d * p - c * q) * scale;
      const float nv = v0[x] * (1 - kOmega) + (a * q - c * p) * scale;
      const bool mine = (x & 1) == odd;
      u0[x] = mine ? nu : u0[x];
      v0[x] = mine ? nv : v0[x];
    }
  });
}

void refine(const Plane& from, const Plane& to, const Plane& u, const Plane& v, System& s, const Parallel& parallel) {
  static const int kOuter = P("OUTER", 5), kInner = P("INNER", 5);
  for (int i = 0; i < kOuter; i++) {
    data_terms(from, to, u, v, s, parallel);
    smoothness_terms(from, u, v, s, parallel);
    for (int k = 0; k < kInner; k++)
      for (int64_t colour = 0; colour < 2; colour++) relax(u, v, s, colour, parallel);
  }
}

}  // namespace

void flow(const float* from, const float* to, int64_t h, int64_t w, float* out, const Parallel& parallel) {
  Plane a[kLevels], b[kLevels];
  a[0] = luma(from, h, w, parallel), b[0] = luma(to, h, w, parallel);
  int level = 0;
  for (; most(a[level].h, a[level].w) > kCoarsest; level++) {
    a[level + 1] = halved(a[level], parallel), b[level + 1] = halved(b[level], parallel);
  }
  Plane u, v;
  for (; level >= 0; level--) {
    const Plane &here = a[level], &there = b[level];
    Plane next_u(here.h, here.w), next_v(here.h, here.w);
    if (u.h != 0) doubled(u, next_u, parallel), doubled(v, next_v, parallel);
    u = static_cast<Plane&&>(next_u), v = static_cast<Plane&&>(next_v);
    const Grid grid(here);
    const Plane found_u(grid.h, grid.w), found_v(grid.h, grid.w);
    search(here, there, u, v, grid, found_u, found_v, parallel);
    spread(here, there, grid, found_u, found_v, u, v, parallel);
    System system(here.h, here.w);
    refine(here, there, u, v, system, parallel);
  }
  for (int64_t y = 0; y < h; y++) {
    std::memcpy(out + y * w, u.row(y), w * sizeof(float));
    std::memcpy(out + (h + y) * w, v.row(y), w * sizeof(float));
  }
}

void warp(const float* planes, int64_t count, const float* motion, int64_t h, int64_t w, float* out,
          const Parallel& parallel) {
  each(parallel, count * h, [&](int64_t i) {
    const int64_t y = i % h, plane = i / h;
    sample(planes + plane * h * w, h, w, w, y, motion + y * w, motion + (h + y) * w, w, out + i * w);
  });
}

}  // namespace nst::cpu::NST_ISA::optical
