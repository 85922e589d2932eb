// See kernels.h. Compiled once for each instruction set, with NST_ISA its name.
//
// The convolutions are Winograd's F(4×4,3×3) (Lavin and Gray,
// arXiv:1509.09308): a tile of 4×4 outputs takes 36 products for each pair of
// channels where the direct way takes 144. In F(4×4,3×3) a 6×6 patch d and a
// filter g give the outputs Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A; summed over the channels in,
// the products of each of the 36 positions are a matrix product.
#include "kernels.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace nst::cpu::NST_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16, kRows = 12, kVectors = 2;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kRows = 6, kVectors = 2;
#else
constexpr int kWidth = 4, kRows = 4, kVectors = 2;
#endif
typedef float Vec __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
constexpr int kPanel = kWidth * kVectors;  // columns that a product makes at once

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec broadcast(float v) { return v - Vec{}; }
// What is no number stays so, that the costs may tell.
inline Vec relu_of(Vec v) { return v < 0.0f ? Vec{} : v; }
inline Vec max(Vec a, Vec b) {
  const Vec larger = a > b ? a : b;
  return a == a ? larger : a;
}
inline Vec select(Vec condition, Vec v) { return condition > 0.0f ? v : Vec{}; }

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }
int64_t parts_of(int64_t v, int64_t size) { return (v + size - 1) / size; }
int64_t round_up(int64_t v, int64_t to) { return parts_of(v, to) * to; }
void clear(float* p, int64_t count) { std::memset(p, 0, count * sizeof(float)); }

template <class Body>
void each(const Parallel& parallel, int64_t count, const Body& body) {
  parallel.run(
      count, [](void* b, int64_t begin, int64_t end) { (*static_cast<const Body*>(b))(begin, end); },
      const_cast<Body*>(&body));
}

struct Store {
  ~Store() { free(data); }
  char* data = nullptr;
  int64_t size = 0, used = 0, most = 0;
};
thread_local Store scratch;

// Memory for the time of a call, from the thread's own store, which grows to the
// most that was needed at once.
class Buffer {
 public:
  explicit Buffer(int64_t floats) : size_(round_up(floats * 4, 4096)) {
    if (scratch.used + size_ <= scratch.size) {
      data = reinterpret_cast<float*>(scratch.data + scratch.used);
    } else {
      own_ = static_cast<char*>(aligned_alloc(4096, size_));
      if (own_ == nullptr) throw std::bad_alloc();
      data = reinterpret_cast<float*>(own_);
    }
    scratch.used += size_;
    if (scratch.most < scratch.used) scratch.most = scratch.used;
  }
  ~Buffer() {
    scratch.used -= size_;
    free(own_);
    if (scratch.used == 0 && scratch.most > scratch.size) {
      free(scratch.data);
      scratch.data = static_cast<char*>(aligned_alloc(4096, scratch.most));
      scratch.size = scratch.data == nullptr ? 0 : scratch.most;
    }
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* data;

 private:
  int64_t size_;
  char* own_ = nullptr;
};

// ---- Matrix products

// A factor of a product: where element (i, j) is, in floats from its start.
struct Strides {
  int64_t row, column;
};

// c [Rows, kPanel] (+)= a [Rows,k] · b [k,kPanel], whose rows are b_row apart.
template <int Rows, bool Add>
inline void block(const float* a, Strides at, const float* b, int64_t b_row, int64_t k, float* c, int64_t c_row) {
  Vec sum[Rows][kVectors];
  for (int r = 0; r < Rows; r++)
    for (int v = 0; v < kVectors; v++) sum[r][v] = Add ? load(c + r * c_row + v * kWidth) : Vec{};
  for (int64_t i = 0; i < k; i++) {
    Vec column[kVectors];
    for (int v = 0; v < kVectors; v++) column[v] = load(b + i * b_row + v * kWidth);
    for (int r = 0; r < Rows; r++) {
      const Vec value = broadcast(a[r * at.row + i * at.column]);
      for (int v = 0; v < kVectors; v++) sum[r][v] += value * column[v];
    }
  }
  for (int r = 0; r < Rows; r++)
    for (int v = 0; v < kVectors; v++) store(c + r * c_row + v * kWidth, sum[r][v]);
}

template <bool Add, int Rows = kRows>
void rows(int64_t count, const float* a, Strides at, const float* b, int64_t b_row, int64_t k, float* c,
          int64_t c_row) {
  if (count == Rows) return block<Rows, Add>(a, at, b, b_row, k, c, c_row);
  if constexpr (Rows > 1) rows<Add, Rows - 1>(count, a, at, b, b_row, k, c, c_row);
}

// c [m, kPanel] (+)= a [m,k] · b [k,kPanel].
template <bool Add>
void product(int64_t m, const float* a, Strides at, const float* b, int64_t b_row, int64_t k, float* c,
             int64_t c_row) {
  for (int64_t r = 0; r < m; r += kRows)
    rows<Add>(least(kRows, m - r), a + r * at.row, at, b, b_row, k, c + r * c_row, c_row);
}

// ---- Winograd's transforms, each of one vector of channels

inline void input6(const Vec d[6], Vec out[6]) {  // Bᵀ d
  const Vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1];
  const Vec e = d[4] - d[2], f = 2.0f * (d[3] - d[1]);
  out[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
  out[1] = a + b;
  out[2] = a - b;
  out[3] = e + f;
  out[4] = e - f;
  out[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

inline void output4(const Vec m[6], Vec out[4]) {  // Aᵀ m
  const Vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
  out[0] = m[0] + a + c;
  out[1] = b + 2.0f * d;
  out[2] = a + 4.0f * c;
  out[3] = b + 8.0f * d + m[5];
}

inline void filter6(const Vec g[3], Vec out[6]) {  // G g
  const Vec a = (-1.0f / 6) * (g[0] + g[2]), b = (-1.0f / 6) * g[1];
  const Vec c = (1.0f / 24) * g[0] + (1.0f / 6) * g[2], d = (1.0f / 12) * g[1];
  out[0] = 0.25f * g[0];
  out[1] = a + b;
  out[2] = a - b;
  out[3] = c + d;
  out[4] = c - d;
  out[5] = g[2];
}

constexpr int kTile = 4, kPatch = 6, kPoints = 36;

// The transformed weights are [36][panels of columns][k][kPanel], the columns
// being the channels out, padded with zeros to a whole panel.
int64_t winograd_size(int64_t in, int64_t out) { return kPoints * in * round_up(out, kPanel); }

void winograd_weights(const float* weights, int64_t in, int64_t out, bool backward, float* transformed,
                      const Parallel& parallel) {
  const int64_t k = backward ? out : in, columns = backward ? in : out;
  const int64_t panels = round_up(columns, kPanel) / kPanel;
  each(parallel, panels * k, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t p = job / k, i = job % k;
      for (int64_t v = 0; v < kVectors; v++) {
        alignas(64) float g[9][kWidth] = {};
        for (int64_t lane = 0; lane < kWidth; lane++) {
          const int64_t column = p * kPanel + v * kWidth + lane;
          if (column >= columns) break;
          const float* w = backward ? weights + i * 9 * in + column : weights + column * 9 * in + i;
          for (int t = 0; t < 9; t++) g[t][lane] = w[(backward ? 8 - t : t) * in];
        }
        Vec half[3][6];  // by columns of the filter
        for (int x = 0; x < 3; x++) {
          const Vec column[3] = {load(g[x]), load(g[3 + x]), load(g[6 + x])};
          filter6(column, half[x]);
        }
        for (int y = 0; y < kPatch; y++) {
          const Vec row[3] = {half[0][y], half[1][y], half[2][y]};
          Vec u[6];
          filter6(row, u);
          for (int x = 0; x < kPatch; x++)
            store(transformed + (((y * kPatch + x) * panels + p) * k + i) * kPanel + v * kWidth, u[x]);
        }
      }
    }
  });
}

struct Tiles {
  Maps maps;
  int64_t across = parts_of(maps.w, kTile), down = parts_of(maps.h, kTile);
  int64_t count() const { return maps.n * across * down; }
};

// Transforms the patch of a tile, for c channels, into v: 36 rows, stride apart.
// What lies beyond the edge is 0.
template <bool Masked>
void transform_input(const float* x, const float* mask, const Tiles& tiles, int64_t tile, float* v, int64_t stride) {
  const auto& m = tiles.maps;
  const int64_t image = tile / (tiles.across * tiles.down), rest = tile % (tiles.across * tiles.down);
  const int64_t top = rest / tiles.across * kTile - 1, left = rest % tiles.across * kTile - 1;
  const int64_t origin = ((image * m.h + top) * m.w + left) * m.c;
  const bool inside = top >= 0 && left >= 0 && top + kPatch <= m.h && left + kPatch <= m.w;
  auto at = [&](int64_t offset) { return Masked ? select(load(mask + offset), load(x + offset)) : load(x + offset); };
  for (int64_t c = 0; c < m.c; c += kWidth) {
    Vec half[kPatch][kPatch];
    for (int col = 0; col < kPatch; col++) {
      Vec d[kPatch];
      const int64_t from = origin + col * m.c + c;
      if (inside) {
        for (int row = 0; row < kPatch; row++) d[row] = at(from + row * m.w * m.c);
      } else {
        const bool column = left + col >= 0 && left + col < m.w;
        for (int row = 0; row < kPatch; row++)
          d[row] = column && top + row >= 0 && top + row < m.h ? at(from + row * m.w * m.c) : Vec{};
      }
      input6(d, half[col]);
    }
    for (int row = 0; row < kPatch; row++) {
      const Vec d[kPatch] = {half[0][row], half[1][row], half[2][row], half[3][row], half[4][row], half[5][row]};
      Vec out[kPatch];
      input6(d, out);
      for (int col = 0; col < kPatch; col++) store(v + (row * kPatch + col) * stride + c, out[col]);
    }
  }
}

void transform_output(const float* products, int64_t stride, const Tiles& tiles, int64_t tile, const float* bias,
                      bool relu, float* y, int64_t out) {
  const auto& m = tiles.maps;
  const int64_t image = tile / (tiles.across * tiles.down), rest = tile % (tiles.across * tiles.down);
  const int64_t top = rest / tiles.across * kTile, left = rest % tiles.across * kTile;
  const int64_t down = least(kTile, m.h - top), across = least(kTile, m.w - left);
  float* to = y + ((image * m.h + top) * m.w + left) * out;
  for (int64_t c = 0; c < out; c += kWidth) {
    Vec half[kPatch][kTile];
    for (int col = 0; col < kPatch; col++) {
      Vec p[kPatch];
      for (int row = 0; row < kPatch; row++) p[row] = load(products + (row * kPatch + col) * stride + c);
      output4(p, half[col]);
    }
    const Vec b = bias == nullptr ? Vec{} : load(bias + c);
    for (int row = 0; row < down; row++) {
      const Vec p[kPatch] = {half[0][row], half[1][row], half[2][row], half[3][row], half[4][row], half[5][row]};
      Vec o[kTile];
      output4(p, o);
      for (int col = 0; col < across; col++) {
        const Vec v = o[col] + b;
        store(to + (row * m.w + col) * out + c, relu ? relu_of(v) : v);
      }
    }
  }
}

// The floats that a block of tiles takes between its transforms should stay in
// the second-level cache; but every block reads all the weights anew, so where
// those are large the block grows with them. (Against blocks of a third of this,
// 3 to 15 % of an iteration, on two processors with AVX-512 and their AVX2 kernels.)
int64_t block_tiles(int64_t in, int64_t out) {
  const int64_t budget = most(160 << 10, winograd_size(in, out) / 2);
  return most(kRows, budget / (kPoints * (in + out)) / kRows * kRows);
}

void winograd(const float* x, const float* mask, Maps in, const float* transformed, const float* bias, bool relu,
              float* y, int64_t out, const Parallel& parallel) {
  const Tiles tiles{in};
  const int64_t panels = round_up(out, kPanel) / kPanel;
  // A row more than its channels, so that rows do not fall into one cache set.
  const int64_t v_row = in.c + 16, m_row = panels * kPanel + 16;
  // Threads share the tiles evenly: in whole blocks, one would have more than another.
  each(parallel, tiles.count(), [&](int64_t begin, int64_t end) {
    const int64_t block = least(block_tiles(in.c, out), end - begin);
    const Buffer v(kPoints * block * v_row), products(kPoints * block * m_row);
    for (int64_t first = begin; first < end; first += block) {
      const int64_t count = least(block, end - first);
      for (int64_t t = 0; t < count; t++) {
        if (mask != nullptr)
          transform_input<true>(x, mask, tiles, first + t, v.data + t * v_row, block * v_row);
        else
          transform_input<false>(x, mask, tiles, first + t, v.data + t * v_row, block * v_row);
      }
      for (int64_t k = 0; k < kPoints; k++)
        for (int64_t p = 0; p < panels; p++)
          product<false>(count, v.data + k * block * v_row, {v_row, 1}, transformed + (k * panels + p) * in.c * kPanel,
                         kPanel, in.c, products.data + k * block * m_row + p * kPanel, m_row);
      for (int64_t t = 0; t < count; t++)
        transform_output(products.data + t * m_row, block * m_row, tiles, first + t, bias, relu, y, out);
    }
  });
}

// ---- The first convolution

void first(const float* x, Maps in, const float* weights, const float* bias, bool relu, float* y, int64_t out,
           const Parallel& parallel) {
  const int64_t panels = round_up(out, kPanel) / kPanel, k = 3 * in.c;
  // b[panel][row of the filter][column, channel][kPanel]
  Buffer b(panels * 3 * k * kPanel);
  clear(b.data, panels * 3 * k * kPanel);
  for (int64_t o = 0; o < out; o++)
    for (int64_t c = 0; c < in.c; c++)
      for (int64_t t = 0; t < 9; t++)
        b.data[((o / kPanel * 3 + t / 3) * k + t % 3 * in.c + c) * kPanel + o % kPanel] =
            weights[(o * in.c + c) * 9 + t];
  const int64_t padded = (in.w + 2) * in.c;
  each(parallel, in.n * in.h, [&](int64_t begin, int64_t end) {
    const Buffer lines(3 * padded), sums(in.w * panels * kPanel);
    clear(lines.data, 3 * padded);
    const int64_t row = panels * kPanel;
    for (int64_t line = begin; line < end; line++) {
      const int64_t image = line / in.h, at = line % in.h;
      for (int64_t t = 0; t < 3; t++) {
        float* to = lines.data + t * padded + in.c;
        const int64_t from = at + t - 1;
        if (from < 0 || from >= in.h)
          clear(to, in.w * in.c);
        else
          std::memcpy(to, x + (image * in.h + from) * in.w * in.c, in.w * in.c * sizeof(float));
      }
      // Neighbouring pixels' filters overlap: the rows of the product are
      // in.c floats apart.
      for (int64_t p = 0; p < panels; p++)
        for (int64_t t = 0; t < 3; t++)
          if (t == 0)
            product<false>(in.w, lines.data, {in.c, 1}, b.data + p * 3 * k * kPanel, kPanel, k, sums.data + p * kPanel,
                           row);
          else
            product<true>(in.w, lines.data + t * padded, {in.c, 1}, b.data + (p * 3 + t) * k * kPanel, kPanel, k,
                          sums.data + p * kPanel, row);
      float* to = y + line * in.w * out;
      for (int64_t i = 0; i < in.w; i++)
        for (int64_t c = 0; c < out; c += kWidth) {
          const Vec v = load(sums.data + i * row + c) + (bias == nullptr ? Vec{} : load(bias + c));
          store(to + i * out + c, relu ? relu_of(v) : v);
        }
    }
  });
}

void first_backward(const float* gradient, const float* mask, Maps out, const float* weights, float* dx, int64_t in,
                    const Parallel& parallel) {
  const int64_t columns = 9 * in, panels = round_up(columns, kPanel) / kPanel, row = panels * kPanel;
  // What a position's gradient gives to each of its nine neighbours is one
  // product; b[panel][channel out][tap, channel in].
  Buffer b(panels * out.c * kPanel);
  clear(b.data, panels * out.c * kPanel);
  for (int64_t o = 0; o < out.c; o++)
    for (int64_t c = 0; c < in; c++)
      for (int64_t t = 0; t < 9; t++) {
        const int64_t column = t * in + c;
        b.data[(column / kPanel * out.c + o) * kPanel + column % kPanel] = weights[(o * in + c) * 9 + t];
      }
  each(parallel, out.n * out.h, [&](int64_t begin, int64_t end) {
    const int64_t padded = (out.w + 2) * row;
    const Buffer given(3 * padded), masked(out.w * out.c);
    clear(given.data, 3 * padded);
    int64_t have[3] = {-1, -1, -1};  // the line in each of the three
    auto give = [&](int64_t line) -> const float* {
      float* to = given.data + line % 3 * padded;
      if (have[line % 3] == line) return to;
      have[line % 3] = line;
      const float* g = gradient + line * out.w * out.c;
      if (mask != nullptr) {
        const float* m = mask + line * out.w * out.c;
        for (int64_t i = 0; i < out.w * out.c; i += kWidth) store(masked.data + i, select(load(m + i), load(g + i)));
        g = masked.data;
      }
      for (int64_t p = 0; p < panels; p++)
        product<false>(out.w, g, {out.c, 1}, b.data + p * out.c * kPanel, kPanel, out.c, to + row + p * kPanel, row);
      return to;
    };
    for (int64_t line = begin; line < end; line++) {
      float* to = dx + line * out.w * in;
      clear(to, out.w * in);
      for (int64_t t = 0; t < 3; t++) {  // the filter's row that reached this line
        const int64_t from = line % out.h - t + 1;
        if (from < 0 || from >= out.h) continue;
        const float* g = give(line - t + 1);
        for (int64_t i = 0; i < out.w; i++)
          for (int64_t s = 0; s < 3; s++)
            for (int64_t c = 0; c < in; c++)
              to[i * in + c] += g[(i + 2 - s) * row + (t * 3 + s) * in + c];
      }
    }
  });
}

// ---- Pooling

// Calls body(from, to) for each line of the halves: from is where its first
// 2×2 begin in the whole maps, to where it begins itself.
template <class Body>
void each_half_line(Maps in, const Parallel& parallel, const Body& body) {
  const int64_t down = in.h / 2, across = in.w / 2;
  each(parallel, in.n * down, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; line++)
      body((line / down * in.h + line % down * 2) * in.w * in.c, line * across * in.c);
  });
}

void average_pool(const float* x, Maps in, float scale, float* y, const Parallel& parallel) {
  each_half_line(in, parallel, [&](int64_t from, int64_t to) {
    for (int64_t i = 0; i < in.w / 2; i++)
      for (int64_t c = 0; c < in.c; c += kWidth) {
        const float* at = x + from + i * 2 * in.c + c;
        const Vec upper = load(at) + load(at + in.c), lower = load(at + in.w * in.c) + load(at + (in.w + 1) * in.c);
        store(y + to + i * in.c + c, (upper + lower) * scale);
      }
  });
}

// An odd last row or column has no gradient.
void clear_margins(float* dx, Maps in, const Parallel& parallel) {
  if (in.h % 2 == 0 && in.w % 2 == 0) return;
  each(parallel, in.n * in.h, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; line++) {
      float* to = dx + line * in.w * in.c;
      if (line % in.h == in.h / 2 * 2)
        clear(to, in.w * in.c);
      else if (in.w % 2 != 0)
        clear(to + (in.w - 1) * in.c, in.c);
    }
  });
}

void average_pool_backward(const float* gradient, Maps in, float scale, float* dx, const Parallel& parallel) {
  clear_margins(dx, in, parallel);
  each_half_line(in, parallel, [&](int64_t to, int64_t from) {
    for (int64_t i = 0; i < in.w / 2; i++)
      for (int64_t c = 0; c < in.c; c += kWidth) {
        const Vec v = load(gradient + from + i * in.c + c) * scale;
        float* at = dx + to + i * 2 * in.c + c;
        store(at, v);
        store(at + in.c, v);
        store(at + in.w * in.c, v);
        store(at + (in.w + 1) * in.c, v);
      }
  });
}

// As many bytes as a vector has floats.
typedef uint8_t Bytes __attribute__((vector_size(kWidth), aligned(1), may_alias));

void max_pool(const float* x, Maps in, float* y, uint8_t* chosen, const Parallel& parallel) {
  each_half_line(in, parallel, [&](int64_t from, int64_t to) {
    for (int64_t i = 0; i < in.w / 2; i++)
      for (int64_t c = 0; c < in.c; c += kWidth) {
        const float* at = x + from + i * 2 * in.c + c;
        const Vec a = load(at), b = load(at + in.c);
        const Vec d = load(at + in.w * in.c), e = load(at + (in.w + 1) * in.c);
        const Vec upper = max(a, b), lower = max(d, e), most = max(upper, lower);
        const Mask first = (b > a) & 1, second = ((e > d) & 1) + 2;
        const Mask which = lower > upper ? second : first;
        store(y + to + i * in.c + c, most);
        *reinterpret_cast<Bytes*>(chosen + to + i * in.c + c) =
            __builtin_convertvector(most > 0.0f ? which : Mask{} + 4, Bytes);
      }
  });
}

void max_pool_backward(const uint8_t* chosen, const float* gradient, Maps in, float* dx, const Parallel& parallel) {
  clear_margins(dx, in, parallel);
  each_half_line(in, parallel, [&](int64_t to, int64_t from) {
    for (int64_t i = 0; i < in.w / 2; i++)
      for (int64_t c = 0; c < in.c; c += kWidth) {
        const int64_t half = from + i * in.c + c;
        const Vec v = load(gradient + half);
        const Mask which = __builtin_convertvector(*reinterpret_cast<const Bytes*>(chosen + half), Mask);
        float* at = dx + to + i * 2 * in.c + c;
        store(at, which == 0 ? v : Vec{});
        store(at + in.c, which == 1 ? v : Vec{});
        store(at + in.w * in.c, which == 2 ? v : Vec{});
        store(at + (in.w + 1) * in.c, which == 3 ? v : Vec{});
      }
  });
}

// ---- Products of feature matrices

// What one thread adds up by itself: the number of parts depends on the sizes
// alone, and their sums are added in order.
constexpr int64_t kParts = 16, kChunk = 64;

void syrk(const float* f, int64_t positions, int64_t c, float scale, float* sum, const Parallel& parallel) {
  const int64_t chunks = parts_of(positions, kChunk), parts = least(kParts, most(1, chunks / 4));
  const int64_t part_chunks = parts_of(chunks, parts);
  const Buffer sums(parts * c * c);
  each(parallel, parts, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; part++) {
      float* own = sums.data + part * c * c;
      clear(own, c * c);
      const int64_t last = least(positions, (part + 1) * part_chunks * kChunk);
      for (int64_t p = part * part_chunks * kChunk; p < last; p += kChunk)
        for (int64_t column = 0; column < c; column += kPanel)  // up to the diagonal
          product<true>(column + kPanel, f + p * c, {1, c}, f + p * c + column, c, least(kChunk, last - p),
                        own + column, c);
    }
  });
  each(parallel, c, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t j = i; j < c; j++) {
        float total = 0;
        for (int64_t part = 0; part < parts; part++) total += sums.data[(part * c + i) * c + j];
        sum[i * c + j] = sum[j * c + i] = total * scale;
      }
  });
}

void addmm(float* sum, const float* f, const float* d, int64_t positions, int64_t k, int64_t n, float beta, float scale,
           const Parallel& parallel) {
  const int64_t panels = n / kPanel;
  const Buffer b(panels * k * kPanel);
  each(parallel, panels, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++)
      for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < kPanel; j++) b.data[(p * k + i) * kPanel + j] = scale * d[i * n + p * kPanel + j];
  });
  constexpr int64_t lines = 4 * kRows;
  each(parallel, parts_of(positions, lines), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * lines; i < least(positions, end * lines); i += lines) {
      const int64_t count = least(lines, positions - i);
      for (int64_t p = 0; p < panels; p++) {
        auto add = beta == 0 ? product<false> : product<true>;
        add(count, f + i * k, {k, 1}, b.data + p * k * kPanel, kPanel, k, sum + i * n + p * kPanel, n);
      }
    }
  });
}

}  // namespace

// flow.cc
namespace optical {
void flow(const float* from, const float* to, int64_t h, int64_t w, float* out, const Parallel& parallel);
void warp(const float* x, int64_t planes, const float* motion, int64_t h, int64_t w, float* out,
          const Parallel& parallel);
}

extern const Kernels kernels;
const Kernels kernels = {
#define NST_TEXT_OF(x) #x
#define NST_TEXT(x) NST_TEXT_OF(x)
    NST_TEXT(NST_ISA), winograd_size, winograd_weights, winograd, first, first_backward, average_pool,
    average_pool_backward, max_pool,
    max_pool_backward, syrk, addmm, optical::flow, optical::warp};

}  // namespace nst::cpu::NST_ISA
