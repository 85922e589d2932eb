// Dense optical flow and warping; see kernels.h. Compiled once for each instruction set, with NST_ISA its name.
//
// The flow is that of Kroeger, Timofte, Dai and Van Gool, "Fast Optical Flow using Dense Inverse Search" (ECCV 2016,
// arXiv:1603.03590). From the coarsest level of a pyramid to the finest, patches on a grid are found in the other
// picture by gradient descent (search), their motions are spread over the pixels (spread), and a variational method
// refines them (data_terms, smoothness_terms, solve). What is not as in the paper says so.
//
// Every value depends on its place and on the step before alone, so the result does not depend on threads.
#include "planes.h"

namespace nst::cpu::NST_ISA::optical {
namespace {

constexpr int64_t kPatch = kLanes;  // a patch's pixels a side
constexpr int64_t kStride = 4;      // between patches
constexpr int64_t kCoarsest = 40;   // the longer side of the coarsest level, at most
constexpr int64_t kReach = 4;       // which part of a picture a motion may be, at the coarsest level
constexpr int kLevels = 32;
constexpr int64_t kSmall = 1 << 15;  // pixels of a level for one thread

// ---- Levels

// The luma (Rec. 601) of a picture [3,h,w] of 0 to 1, as 0 to 255.
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

// A component of the flow at a level of twice the size, h×w: linear between pixels, and twice as long.
Plane doubled(const Plane& p, int64_t h, int64_t w, const Parallel& parallel) {
  Plane out(h, w);
  each(parallel, h, [&](int64_t y) {
    const float* near = p.row(y / 2);
    const float* far = p.row(within(y / 2 + (y % 2 == 0 ? -1 : 1), 0, p.h - 1));
    float* to = out.row(y);
    for (int64_t x = 0; x < w; x++) {
      const int64_t i = x / 2, j = within(x % 2 == 0 ? i - 1 : i + 1, 0, p.w - 1);
      to[x] = 1.125f * near[i] + 0.375f * (near[j] + far[i]) + 0.125f * far[j];
    }
  });
  return out;
}

struct Motion {
  float u, v;
};

// The 8×8 pixels from (x,y), linear between p's.
inline void block(const Plane& p, float x, float y, Vec* rows) {
  x = clamp(x, 1 - kMargin, static_cast<float>(p.w + kMargin - kPatch - 1));
  y = clamp(y, 1 - kMargin, static_cast<float>(p.h + kMargin - kPatch - 1));
  const int64_t left = static_cast<int64_t>(x + kMargin) - kMargin, top = static_cast<int64_t>(y + kMargin) - kMargin;
  const float fx = x - static_cast<float>(left), fy = y - static_cast<float>(top);
  const float* at = p.row(top) + left;
  auto line = [&](const float* q) { return load(q) + fx * (load(q + 1) - load(q)); };
  Vec upper = line(at);
  for (int64_t i = 0; i < kPatch; i++) {
    const Vec lower = line(at + (i + 1) * p.stride);
    rows[i] = upper + fy * (lower - upper);
    upper = lower;
  }
}

// ---- Inverse search

// A patch T of one picture, and the motion m that makes sum (J(x+m) - T(x))² small in the other picture, J, less the
// mean of the differences. A step is H⁻¹ sum ∇T (J(x+m) - T(x)), with H = sum ∇T∇Tᵀ, which stays as it is.
class Patch {
 public:
  Patch(const Plane& from, const Plane& to, int64_t x, int64_t y) : to_(to), x_(x), y_(y) {
    Vec xx{}, xy{}, yy{}, sx{}, sy{}, sum{}, squares{};
    for (int64_t i = 0; i < kPatch; i++) {
      const float* at = from.row(y + i) + x;
      const Vec p = pixels_[i] = load(at);
      sum += p, squares += p * p;
      const Vec gx = dx_[i] = 0.5f * (load(at + 1) - load(at - 1));
      const Vec gy = dy_[i] = 0.5f * (load(at + from.stride) - load(at - from.stride));
      sx += gx, sy += gy, xx += gx * gx, xy += gx * gy, yy += gy * gy;
    }
    contrast_ = total(squares) - square(total(sum)) / kPixels;
    sum_x_ = total(sx), sum_y_ = total(sy);
    const float a = total(xx) - sum_x_ * sum_x_ / kPixels + kLeast, b = total(xy) - sum_x_ * sum_y_ / kPixels;
    const float c = total(yy) - sum_y_ * sum_y_ / kPixels + kLeast;
    const float scale = 1 / (a * c - b * b);
    xx_ = c * scale, xy_ = -b * scale, yy_ = a * scale;
  }

  // The sum of the squares of the differences at m, and the step of Gauss and Newton from there.
  float cost(Motion m, Motion* step) const {
    Vec there[kPatch];
    block(to_, static_cast<float>(x_) + m.u, static_cast<float>(y_) + m.v, there);
    Vec sum{}, squares{}, by_x{}, by_y{};
    for (int64_t i = 0; i < kPatch; i++) {
      const Vec r = there[i] - pixels_[i];
      sum += r, squares += r * r, by_x += r * dx_[i], by_y += r * dy_[i];
    }
    const float mean = total(sum) / kPixels;
    const float gx = total(by_x) - sum_x_ * mean, gy = total(by_y) - sum_y_ * mean;
    *step = {xx_ * gx + xy_ * gy, xy_ * gx + yy_ * gy};
    return total(squares) - kPixels * mean * mean;
  }

  // Takes m if it fits better than what was found.
  void consider(Motion m) {
    Motion step;
    const float there = cost(m, &step);
    if (there < cost_) cost_ = there, found_ = m, step_ = step;
  }

  // Begins without motion, as the paper does. Where that finds nothing that fits, all whole motions are tried that
  // leave the patch within the picture: motions of a quarter of it are found, and textures that repeat stay in place.
  void consider_all() {
    consider({});
    descend();
    if (cost_ <= kFits * contrast_ + kNoise) return;
    for (int64_t v = -to_.h / kReach; v <= to_.h / kReach; v++)
      for (int64_t u = -to_.w / kReach; u <= to_.w / kReach; u++)
        if (x_ + u >= -1 && x_ + u + kPatch <= to_.w + 1 && y_ + v >= -1 && y_ + v + kPatch <= to_.h + 1)
          consider({static_cast<float>(u), static_cast<float>(v)});
  }

  // Descends from what was found as long as it gets better.
  Motion descend() {
    const Motion first = found_;
    for (int i = 0; i < kSteps; i++) {
      const float before = cost_, length = square(step_.u) + square(step_.v);
      const Motion next{found_.u - step_.u, found_.v - step_.v};
      if (!(square(next.u - first.u) + square(next.v - first.v) <= square(kPatch))) break;
      consider(next);
      if (!(cost_ < before) || length < square(kTiny)) break;
    }
    return found_;
  }

 private:
  static constexpr float kPixels = kPatch * kPatch;
  static constexpr float kLeast = 0.1f;         // keeps the Hessian of what has no texture invertible
  static constexpr float kFits = 0.3f;          // which part of the contrast may differ in what fits
  static constexpr float kNoise = 4 * kPixels;  // and what besides
  static constexpr float kTiny = 0.02f;         // a step that is the last
  static constexpr int kSteps = 12;
  const Plane& to_;
  int64_t x_, y_;
  Vec pixels_[kPatch], dx_[kPatch], dy_[kPatch];
  float contrast_;                      // the sum of the pixels' squares, less their mean
  float sum_x_, sum_y_, xx_, xy_, yy_;  // sums of the gradients; the inverse of the Hessian
  Motion found_{}, step_{};
  float cost_ = __builtin_inff();
};

// How many patches there are along a side, and where they begin: the last ends where the picture does.
int64_t patches(int64_t size) { return (most(0, size - kPatch) + kStride - 1) / kStride + 1; }
int64_t patch_start(int64_t i, int64_t size) { return least(i * kStride, most(0, size - kPatch)); }

// A motion for each pixel of a level, or for each patch.
struct Field {
  Field() = default;
  Field(int64_t h, int64_t w) : u(h, w), v(h, w) {}
  Motion at(int64_t y, int64_t x) const { return {u.row(y)[x], v.row(y)[x]}; }
  Plane u, v;
};

// The motion of each patch. It begins with the best of what the flow of the level before has in it and around it: what
// is around (the paper has none) brings motions over edges.
Field search(const Plane& from, const Plane& to, const Field& flow, bool coarsest, const Parallel& parallel) {
  Field found(patches(from.h), patches(from.w));
  each(parallel, found.u.h, [&](int64_t j) {
    for (int64_t i = 0; i < found.u.w; i++) {
      const int64_t left = patch_start(i, from.w), top = patch_start(j, from.h);
      const int64_t x = least(left + kPatch / 2, from.w - 1), y = least(top + kPatch / 2, from.h - 1);
      Patch patch(from, to, left, top);
      if (coarsest) {
        patch.consider_all();
      } else {
        patch.consider(flow.at(y, x));
        patch.consider(flow.at(y, most(x - kPatch, 0)));
        patch.consider(flow.at(y, least(x + kPatch, from.w - 1)));
        patch.consider(flow.at(most(y - kPatch, 0), x));
        patch.consider(flow.at(least(y + kPatch, from.h - 1), x));
      }
      const Motion m = patch.descend();
      found.u.row(j)[i] = m.u, found.v.row(j)[i] = m.v;
    }
  });
  return found;
}

// ---- Densification

// The 4×4 pixels from (x,y), and how well the 5×5 around each fit in the other picture.
class Cell {
 public:
  Cell(const Plane& from, const Plane& to, int64_t x, int64_t y) : to_(to), x_(x - kAround), y_(y - kAround) {
    for (int64_t i = 0; i < kPatch; i++) pixels_[i] = load(from.row(y_ + i) + x_);
  }
  // The sums of absolute differences, each of which counts kCut at most: what is hidden there does not decide.
  // They are in the first lanes.
  void costs(Motion m, Vec* out) const {
    Vec r[kPatch];
    block(to_, static_cast<float>(x_) + m.u, static_cast<float>(y_) + m.v, r);
    for (int64_t i = 0; i < kPatch; i++) {
      const Vec d = r[i] - pixels_[i], size = d < 0.0f ? -d : d;
      r[i] = size < kCut ? size : Vec{} + kCut;
    }
    for (int64_t i = 0; i < kStride; i++) {
      const Vec sum = ((r[i] + r[i + 1]) + (r[i + 2] + r[i + 3])) + r[i + 4], pairs = sum + turned<1>(sum);
      out[i] = (pairs + turned<2>(pairs)) + turned<4>(sum);
    }
  }

 private:
  static constexpr int64_t kAround = (kPatch - kStride) / 2;
  static constexpr float kCut = 12;
  const Plane& to_;
  int64_t x_, y_;
  Vec pixels_[kPatch];
};

// A pixel's motion is the mean of those of the patches around, weighted by the -8th power of how badly the pixels
// around it fit. The paper takes the patches that the pixel is in, weighted by 1/max(1,|d|) for the difference d of the
// pixel alone. That blurs motion's edges: 0.60 px of mean error there became 0.20 (scripts/flow_oracle).
void spread(const Plane& from, const Plane& to, const Field& found, const Field& flow, const Parallel& parallel) {
  constexpr float kFloor = 10;  // what counts as no difference
  constexpr int64_t around = 2;
  each(parallel, (from.h + kStride - 1) / kStride, [&](int64_t j) {
    for (int64_t i = 0; i * kStride < from.w; i++) {
      const int64_t x = i * kStride, y = j * kStride;
      const Cell cell(from, to, x, y);
      Vec sum_u[kStride]{}, sum_v[kStride]{}, weights[kStride]{};
      for (int64_t b = most(0, j - around); b < least(found.u.h, j + around); b++)
        for (int64_t a = most(0, i - around); a < least(found.u.w, i + around); a++) {
          const Motion m = found.at(b, a);
          Vec costs[kStride];
          cell.costs(m, costs);
          for (int64_t k = 0; k < kStride; k++) {
            Vec weight = kFloor / (costs[k] + kFloor);
            weight *= weight, weight *= weight, weight *= weight;
            sum_u[k] += weight * m.u, sum_v[k] += weight * m.v, weights[k] += weight;
          }
        }
      for (int64_t k = 0; k < least(kStride, from.h - y); k++) {
        store(flow.u.row(y + k) + x, sum_u[k] / weights[k]);
        store(flow.v.row(y + k) + x, sum_v[k] / weights[k]);
      }
    }
  });
}

// ---- Variational refinement: the energy is sum δ Ψ(E_I) + γ Ψ(E_G) + α Ψ(E_S), Ψ(s²) = sqrt(s² + ε²)

// δ and γ are the paper's. Its α is 10; with 20 warps have 0.076 px of mean error where they had 0.084.
constexpr float kBrightness = 5, kGradient = 10, kSmoothness = 20;
constexpr float kZeta = 0.1f;       // keeps what has no gradient from being normalised
constexpr float kEpsilon = 0.001f;  // ε
constexpr float kOmega = 1.8f;      // over-relaxation
constexpr int kOuter = 5;           // linearisations
constexpr int kLast = 3;            // of the full size: with 5 edges are off by 5 % less, for 1.3 times the time
constexpr int kInner = 8;           // relaxations of each
constexpr int64_t kBand = 32;       // rows that are relaxed together, in the cache: 4 kInner at least, see solve

// The linear system of a level: of each pixel [xx xy; xy yy]·(u,v) = (x,y), and what its differences from the next
// pixel to the right and from the one below weigh.
struct System {
  System(int64_t h, int64_t w)
      : xx(h, w), xy(h, w), yy(h, w), x(h, w), y(h, w), right(h, w), below(h, w), mean(h, w), change(h, w), dx(h, w),
        dy(h, w) {}
  Plane xx, xy, yy, x, y, right, below;
  Plane mean, change, dx, dy;  // on the way there
};

// The derivative at p, of the fourth order.
inline Vec slope(const float* p, int64_t step) {
  return (load(p - 2 * step) - load(p + 2 * step)) * (1 / 12.0f) + (load(p + step) - load(p - step)) * (8 / 12.0f);
}

// The data terms: brightness and gradient constancy, E_I = (I_x du + I_y dv + I_t)² and the same of the gradient's two
// components, each divided by its gradient's square (Zimmer, Bruhn and Weickert, "Optic Flow in Harmony", IJCV 2011).
// They are linearised at the flow, I being the mean of both pictures there. What leaves the picture has none.
void data_terms(const Plane& from, const Plane& to, const Field& flow, const System& s, const Parallel& parallel) {
  const int64_t h = from.h, w = from.w;
  each(parallel, h, [&](int64_t y) {
    const float* pixels = from.row(y);
    float *mean = s.mean.row(y), *change = s.change.row(y);
    sample(to, y, flow.u.row(y), flow.v.row(y), change);
    for (int64_t x = 0; x < w; x += kPatch) {
      const Vec a = load(pixels + x), b = load(change + x);
      store(mean + x, 0.5f * (a + b)), store(change + x, b - a);
    }
  });
  replicate(s.mean), replicate(s.change);
  each(parallel, h, [&](int64_t y) {
    const float* mean = s.mean.row(y);
    for (int64_t x = 0; x < w; x += kPatch) {
      store(s.dx.row(y) + x, slope(mean + x, 1)), store(s.dy.row(y) + x, slope(mean + x, s.mean.stride));
    }
  });
  replicate(s.dx), replicate(s.dy);
  each(parallel, h, [&](int64_t y) {
    const float *change = s.change.row(y), *dx = s.dx.row(y), *dy = s.dy.row(y);
    const float right = static_cast<float>(w - 1), bottom = static_cast<float>(h - 1), line = static_cast<float>(y);
    for (int64_t x = 0; x < w; x += kPatch) {
      const Vec u = load(flow.u.row(y) + x), v = load(flow.v.row(y) + x);
      const Vec px = u + static_cast<float>(x) + Vec{0, 1, 2, 3, 4, 5, 6, 7}, py = v + line;
      const Mask inside = (px >= 0.0f) & (px <= right) & (py >= 0.0f) & (py <= bottom);
      const Vec ix = load(dx + x), iy = load(dy + x), it = load(change + x);
      const Vec ixx = slope(dx + x, 1), ixy = slope(dx + x, s.dx.stride), iyy = slope(dy + x, s.dy.stride);
      const Vec ixt = slope(change + x, 1), iyt = slope(change + x, s.change.stride);
      const Vec n = 1 / (square(ix) + square(iy) + square(kZeta));
      const Vec nx = 1 / (square(ixx) + square(ixy) + square(kZeta));
      const Vec ny = 1 / (square(ixy) + square(iyy) + square(kZeta));
      const Vec brightness = n * kBrightness / root(n * square(it) + square(kEpsilon));
      const Vec gradient = kGradient / root(nx * square(ixt) + ny * square(iyt) + square(kEpsilon));
      const Vec b = inside ? brightness : Vec{}, g = inside ? gradient : Vec{}, gx = g * nx, gy = g * ny;
      const Vec xx = b * ix * ix + gx * ixx * ixx + gy * ixy * ixy;
      const Vec xy = b * ix * iy + gx * ixx * ixy + gy * ixy * iyy;
      const Vec yy = b * iy * iy + gx * ixy * ixy + gy * iyy * iyy;
      store(s.xx.row(y) + x, xx), store(s.xy.row(y) + x, xy), store(s.yy.row(y) + x, yy);
      store(s.x.row(y) + x, xx * u + xy * v - (b * ix * it + gx * ixx * ixt + gy * ixy * iyt));
      store(s.y.row(y) + x, xy * u + yy * v - (b * iy * it + gx * ixy * ixt + gy * iyy * iyt));
    }
  });
}

// The smoothness term, E_S = |∇u|² + |∇v|².
void smoothness_terms(const Field& flow, const System& s, const Parallel& parallel) {
  const int64_t h = flow.u.h, w = flow.u.w;
  replicate(flow.u), replicate(flow.v);
  each(parallel, h, [&](int64_t y) {
    const float *u = flow.u.row(y), *v = flow.v.row(y);
    const int64_t stride = flow.u.stride;
    for (int64_t x = 0; x < w; x += kPatch) {
      const Vec ux = load(u + x + 1) - load(u + x - 1), uy = load(u + x + stride) - load(u + x - stride);
      const Vec vx = load(v + x + 1) - load(v + x - 1), vy = load(v + x + stride) - load(v + x - stride);
      const Vec sum = (square(ux) + square(uy)) + (square(vx) + square(vy));
      store(s.dx.row(y) + x, 0.5f * kSmoothness / root(0.25f * sum + square(kEpsilon)));
    }
  });
  each(parallel, h, [&](int64_t y) {
    const float* here = s.dx.row(y);
    float *right = s.right.row(y), *below = s.below.row(y);
    for (int64_t x = 0; x < w; x += kPatch) {
      store(right + x, load(here + x) + load(here + x + 1));
      store(below + x, y + 1 < h ? load(here + x) + load(here + x + s.dx.stride) : Vec{});
    }
    right[w - 1] = 0;
  });
}

// Successive over-relaxation of half the pixels of a row: those whose x+y is even, or odd. They depend on the others
// alone.
void relax(const Field& flow, const System& s, int64_t y, int64_t colour) {
  constexpr float tiny = 1e-6f;  // for a picture of one pixel
  const Mask odd{0, -1, 0, -1, 0, -1, 0, -1}, mine = (y + colour) % 2 == 0 ? ~odd : odd;
  const int64_t stride = flow.u.stride;
  float *u = flow.u.row(y), *v = flow.v.row(y);
  const float *right = s.right.row(y), *below = s.below.row(y), *above = s.below.row(y - 1);
  const float *xx = s.xx.row(y), *xy = s.xy.row(y), *yy = s.yy.row(y), *sx = s.x.row(y), *sy = s.y.row(y);
  // Read before what is to the left is written: that changes what is not used alone, and the processor need not wait.
  Vec left_u = load(u - 1), left_v = load(v - 1);
  for (int64_t x = 0; x < flow.u.w; x += kPatch) {
    const Vec e = load(right + x), w = load(right + x - 1), b = load(below + x), n = load(above + x);
    const Vec weights = (e + w) + (b + n) + tiny;
    auto around = [&](const float* p, Vec left) {
      return (e * load(p + 1) + w * left) + (b * load(p + stride) + n * load(p - stride));
    };
    const Vec p = load(sx + x) + around(u + x, left_u), q = load(sy + x) + around(v + x, left_v);
    left_u = load(u + x + kPatch - 1), left_v = load(v + x + kPatch - 1);
    const Vec a = load(xx + x) + weights, c = load(xy + x), d = load(yy + x) + weights;
    const Vec scale = kOmega / (a * d - c * c), u0 = load(u + x), v0 = load(v + x);
    store(u + x, mine ? u0 * (1 - kOmega) + (d * p - c * q) * scale : u0);
    store(v + x, mine ? v0 * (1 - kOmega) + (a * q - c * p) * scale : v0);
  }
}

// Relaxes both halves kInner times. Bands of rows, which stay in the cache, take all steps at once, each step one row
// less towards the next band; then what is left between bands is made up for. It is as if every step were of all rows.
// The row that a band ends with is left out from the first step on: the next one reads it.
void solve(const Field& flow, const System& s, const Parallel& parallel) {
  const int64_t steps = 2 * kInner, h = flow.u.h, bands = most(1, h / kBand);
  auto start = [&](int64_t band) { return band * h / bands; };
  each(parallel, bands, [&](int64_t i) {
    for (int64_t k = 0; k < steps; k++) {
      const int64_t first = i == 0 ? 0 : start(i) + k, last = i == bands - 1 ? h : start(i + 1) - 1 - k;
      for (int64_t y = first; y < last; y++) relax(flow, s, y, k % 2);
    }
  });
  each(parallel, bands - 1, [&](int64_t i) {
    for (int64_t k = 0; k < steps; k++)
      for (int64_t y = start(i + 1) - 1 - k; y < start(i + 1) + k; y++) relax(flow, s, y, k % 2);
  });
}

}  // namespace

void flow(const float* from, const float* to, int64_t h, int64_t w, float* out, const Parallel& threads) {
  constexpr Parallel alone{1, [](int64_t count, void (*body)(void*, int64_t, int64_t), void* context) {
                             body(context, 0, count);
                           }};
  // Of small levels threads would mostly wait for each other, the longer the more else the machine does.
  auto threads_of = [&](const Plane& p) -> const Parallel& { return p.h * p.w < kSmall ? alone : threads; };
  Plane a[kLevels], b[kLevels];
  a[0] = luma(from, h, w, threads), b[0] = luma(to, h, w, threads);
  int top = 0;
  for (; most(a[top].h, a[top].w) > kCoarsest; top++) {
    const Parallel& parallel = threads_of(a[top]);
    a[top + 1] = halved(a[top], parallel), b[top + 1] = halved(b[top], parallel);
  }
  Field field(a[top].h, a[top].w);
  for (int level = top; level >= 0; level--) {
    const Plane &here = a[level], &there = b[level];
    const Parallel& parallel = threads_of(here);
    if (level < top) {
      field.u = doubled(field.u, here.h, here.w, parallel), field.v = doubled(field.v, here.h, here.w, parallel);
    }
    spread(here, there, search(here, there, field, level == top, parallel), field, parallel);
    const System system(here.h, here.w);
    for (int i = 0; i < (level == 0 ? kLast : kOuter); i++) {
      data_terms(here, there, field, system, parallel);
      smoothness_terms(field, system, parallel);
      solve(field, system, parallel);
    }
  }
  for (int64_t y = 0; y < h; y++) {
    std::memcpy(out + y * w, field.u.row(y), w * sizeof(float));
    std::memcpy(out + (h + y) * w, field.v.row(y), w * sizeof(float));
  }
}

void warp(const float* x, int64_t planes, const float* motion, int64_t h, int64_t w, float* out,
          const Parallel& parallel) {
  const Plane plane(h, w);
  for (int64_t i = 0; i < planes; i++) {
    for (int64_t y = 0; y < h; y++) std::memcpy(plane.row(y), x + (i * h + y) * w, w * sizeof(float));
    replicate(plane);
    each(parallel, h, [&](int64_t y) {
      sample(plane, y, motion + y * w, motion + (h + y) * w, out + (i * h + y) * w);
    });
  }
}

}  // namespace nst::cpu::NST_ISA::optical
