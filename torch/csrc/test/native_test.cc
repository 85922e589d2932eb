// The C ABI and the pretend accelerator, from C++: what must hold before any
// Go runs. usage: native_test libpretend.so
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "nsttorch.h"

namespace {

int passed = 0, failed = 0;

void check(bool ok, const std::string& what, const std::string& detail = "") {
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAIL: %s %s\n", what.c_str(), detail.c_str());
}

std::string text(const char* message) {
  std::string s = message ? message : "";
  nst_message_free(message);
  return s;
}

void succeeds(const char* message, const char* what) {
  check(message == nullptr, what, text(message));
}

void fails(const char* message, const char* part, const char* what) {
  check(message != nullptr, what, "it succeeds");
  if (message == nullptr) return;
  auto s = text(message);
  check(s.find(part) != std::string::npos, what, "said: " + s);
}

nst_tensor full(double value, std::vector<int64_t> sizes, const char* device) {
  nst_tensor t = nullptr;
  succeeds(nst_tensor_full(value, sizes.data(), static_cast<int64_t>(sizes.size()), device, &t), "full");
  return t;
}

int64_t control(const char* command, int64_t value = 0) {
  int64_t result = -1;
  succeeds(nst_device_control(command, value, &result), command);
  return result;
}

void errors_are_messages() {
  int64_t petabyte = int64_t{1} << 48;
  nst_tensor t = nullptr;
  fails(nst_tensor_full(0, &petabyte, 1, "cpu", &t), "can't allocate memory", "a petabyte");
  fails(nst_tensor_full(0, &petabyte, 1, "no such device", &t), "no such device", "an unknown device");
  nst_module m = nullptr;
  fails(nst_module_load("/nonexistent.pt", "cpu", &m), "", "a missing module");
  check(m == nullptr, "nothing is written on failure");
  auto a = full(1, {2, 3}, "cpu");
  fails(nst_tensor_bmm(a, a, &t), "", "shapes that do not fit");
  fails(nst_backward(&a, nullptr, 1), "does not require grad", "backward without a graph");
  fails(nst_tensor_scale_in_place(nullptr, 1), "closed", "a closed tensor");
  nst_tensor_free(a);
}

void pretend_computes_as_the_cpu_does() {
  int64_t count = 0;
  succeeds(nst_device_count("pretend", &count), "count");
  check(count == 2, "pretend has two devices");
  std::vector<float> values(6), back(6);
  for (int i = 0; i < 6; i++) values[i] = 0.3F * static_cast<float>(i) - 1;
  int64_t sizes[] = {2, 3};
  float results[2][6];
  const char* devices[] = {"cpu", "pretend:1"};
  for (int d = 0; d < 2; d++) {
    nst_tensor x = nullptr, y = nullptr, g = nullptr;
    succeeds(nst_tensor_from_floats(values.data(), sizes, 2, devices[d], &x), "upload");
    succeeds(nst_requires_grad(x, 1), "leaf");
    succeeds(nst_tensor_pow(x, 3, &y), "pow");
    auto seed = full(0.5, {2, 3}, devices[d]);
    succeeds(nst_backward(&y, &seed, 1), "backward");
    succeeds(nst_gradient(x, &g), "gradient");
    succeeds(nst_tensor_floats(g, results[d], 6), "read-back");
    for (auto t : {x, y, g, seed}) nst_tensor_free(t);
  }
  for (int i = 0; i < 6; i++) check(results[0][i] == results[1][i], "the same bits");
}

void pretend_is_strict() {
  auto here = full(1, {2, 2}, "cpu"), there = full(1, {2, 2}, "pretend:0"), other = full(1, {2, 2}, "pretend:1");
  fails(nst_tensor_add_in_place(there, here, 1), "device", "a CPU tensor slipped in");
  fails(nst_tensor_add_in_place(there, other, 1), "device", "tensors of two devices");
  auto before = control("copies-to-host");
  float value[4];
  succeeds(nst_tensor_floats(there, value, 4), "read-back");
  check(control("copies-to-host") == before + 1, "the copy to the host is counted");

  control("memory-limit", 1 << 20);
  nst_tensor t = nullptr;
  int64_t many = 1 << 20;
  fails(nst_tensor_full(0, &many, 1, "pretend:0", &t), "out of memory: ", "the memory limit");
  control("memory-limit", 0);

  control("fault", 2);
  succeeds(nst_tensor_scale_in_place(there, 2), "before the fault");
  fails(nst_tensor_scale_in_place(there, 2), "fault ordered", "the fault");
  succeeds(nst_tensor_scale_in_place(there, 2), "after the fault");
  for (auto x : {here, there, other}) nst_tensor_free(x);

  int64_t free_bytes, total, allocated, peak;
  succeeds(nst_device_memory("pretend:0", &free_bytes, &total, &allocated, &peak), "memory");
  check(allocated == 0 && peak > 0, "all memory came back", std::to_string(allocated));
}

// ---- The CPU's own kernels against libtorch

nst_tensor noise(std::vector<int64_t> sizes, unsigned seed, bool channels_last = false) {
  int64_t count = 1;
  for (auto s : sizes) count *= s;
  std::vector<float> values(count);
  for (auto& v : values) {
    seed = seed * 1664525 + 1013904223;
    v = static_cast<float>(seed >> 8) / (1 << 23) - 1;
  }
  nst_tensor t = nullptr, last = nullptr;
  succeeds(nst_tensor_from_floats(values.data(), sizes.data(), static_cast<int64_t>(sizes.size()), "cpu", &t), "noise");
  if (!channels_last) return t;
  succeeds(nst_tensor_contiguous(t, 1, &last), "channels-last");
  nst_tensor_free(t);
  return last;
}

std::vector<float> values_of(nst_tensor t) {
  int64_t sizes[8], dims = 0, count = 1;
  succeeds(nst_tensor_sizes(t, sizes, &dims), "sizes");
  for (int64_t i = 0; i < dims; i++) count *= sizes[i];
  std::vector<float> values(count);
  succeeds(nst_tensor_floats(t, values.data(), count), "values");
  return values;
}

void near(nst_tensor got, nst_tensor want, double tolerance, const std::string& what) {
  const auto a = values_of(got), b = values_of(want);
  double difference = 0, size = 0;
  check(a.size() == b.size(), what + ": the size");
  for (size_t i = 0; i < std::min(a.size(), b.size()); i++) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  check(size > 0 && std::sqrt(difference / size) <= tolerance, what, std::to_string(std::sqrt(difference / size)));
}

// Sizes that fill no tile, maps of one position, several pictures; with and
// without ReLU and mask; in channels of the first and of later layers.
void convolutions_are_libtorchs() {
  const int64_t shapes[][5] = {{1, 32, 64, 16, 16}, {2, 64, 32, 17, 23}, {1, 96, 32, 30, 13}, {1, 128, 160, 12, 41},
                               {1, 3, 64, 9, 14},   {2, 3, 32, 1, 1},    {1, 3, 64, 40, 3},   {3, 32, 32, 21, 20}};
  for (const auto& [n, in, out, h, w] : shapes) {
    const auto name = std::to_string(n) + "x" + std::to_string(in) + "->" + std::to_string(out) + " " +
                      std::to_string(h) + "x" + std::to_string(w);
    auto x = noise({n, in, h, w}, 1, true), weight = noise({out, in, 3, 3}, 2), bias = noise({out}, 3);
    auto gradient = noise({n, out, h, w}, 4, true);
    nst_convolution c = nullptr;
    succeeds(nst_convolution_new(weight, bias, &c), "convolution");
    for (int relu = 0; relu < 2; relu++) {
      nst_tensor y[2], dx[2];
      for (int fast = 0; fast < 2; fast++)
        succeeds(nst_convolution_forward(c, x, {fast, 0, 0}, relu, &y[fast]), "forward");
      near(y[1], y[0], 5e-6, name + " forward");
      for (int fast = 0; fast < 2; fast++)
        succeeds(nst_convolution_backward(c, gradient, relu ? y[0] : nullptr, {fast, 0, 0}, &dx[fast]), "backward");
      near(dx[1], dx[0], 5e-6, name + " backward");
      for (auto t : {y[0], y[1], dx[0], dx[1]}) nst_tensor_free(t);
    }
    nst_convolution_free(c);
    for (auto t : {x, weight, bias, gradient}) nst_tensor_free(t);
  }
}

// What is no number goes on being none.
void nan_is_not_lost() {
  for (int64_t in : {3, 32}) {
    std::vector<float> values(in * 12 * 12 * 2, 0.5f);
    values[17] = std::nanf("");
    int64_t sizes[] = {2, in, 12, 12};
    nst_tensor x = nullptr, y = nullptr, half = nullptr, chosen = nullptr;
    nst_tensor weight = noise({32, in, 3, 3}, 2), bias = noise({32}, 3);
    succeeds(nst_tensor_from_floats(values.data(), sizes, 4, "cpu", &x), "upload");
    nst_convolution c = nullptr;
    succeeds(nst_convolution_new(weight, bias, &c), "convolution");
    succeeds(nst_convolution_forward(c, x, {1, 0, 0}, 1, &y), "forward");
    succeeds(nst_pool(y, 0, &half, &chosen), "pool");
    for (auto t : {y, half}) {
      const auto all = values_of(t);
      const auto bad = std::count_if(all.begin(), all.end(), [](float v) { return std::isnan(v); });
      check(bad >= 32, "NaN is kept", std::to_string(bad));
    }
    nst_convolution_free(c);
    for (auto t : {x, weight, bias, y, half, chosen}) nst_tensor_free(t);
  }
}

// In float64, which has no kernels here, libtorch computes the same.
void pools_and_products_are_libtorchs() {
  for (int64_t h : {2, 7, 10}) {
    auto x = noise({2, 64, h, 9}, 5, true), gradient = noise({2, 64, h / 2, 4}, 6, true);
    nst_tensor zero = nullptr;
    succeeds(nst_relu(x, &zero), "relu");
    for (double scale : {0.0, 0.25}) {
      nst_tensor leaf = nullptr, y = nullptr, chosen = nullptr, dx = nullptr, other = nullptr, want = nullptr;
      succeeds(nst_pool(zero, scale, &y, &chosen), "pool");
      succeeds(nst_tensor_cast(zero, 7, &leaf), "cast");
      nst_tensor wide = nullptr, wide_gradient = nullptr, indices = nullptr;
      succeeds(nst_pool(leaf, scale, &wide, &indices), "pool of libtorch");
      check((indices != nullptr) == (scale == 0) && (chosen != nullptr) == (scale == 0), "who chooses");
      near(y, wide, 1e-6, "pool");
      succeeds(nst_tensor_cast(gradient, 7, &wide_gradient), "cast");
      if (chosen != nullptr) {
        succeeds(nst_max_pool_backward(indices, wide, wide_gradient, h, 9, &want), "gradient of libtorch");
        succeeds(nst_max_pool_backward(chosen, nullptr, gradient, h, 9, &dx), "gradient");
        succeeds(nst_relu_backward(want, leaf, &other), "through the ReLU");
        near(want, other, 1e-12, "the ReLU is in it");
      } else {
        succeeds(nst_average_pool_backward(wide_gradient, scale, h, 9, &want), "gradient of libtorch");
        succeeds(nst_average_pool_backward(gradient, scale, h, 9, &dx), "gradient");
      }
      near(dx, want, 1e-6, "pool's gradient");
      for (auto t : {leaf, y, chosen, dx, other, want, wide, wide_gradient, indices}) nst_tensor_free(t);
    }
    for (auto t : {x, gradient, zero}) nst_tensor_free(t);
  }
  for (int64_t positions : {1, 63, 1000}) {
    nst_tensor maps = noise({2, 96, positions, 1}, 7, true), sums = noise({2, 96, positions, 1}, 8, true);
    nst_tensor f, s, wf, ws, g, wg, d;
    succeeds(nst_tensor_cast(maps, 7, &wf), "cast");
    for (auto [from, to] : {std::pair{&maps, &f}, {&sums, &s}}) {
      *to = new at::Tensor(static_cast<at::Tensor*>(*from)->flatten(2, 3));
    }
    nst_tensor wide_f = nullptr;
    succeeds(nst_tensor_cast(f, 7, &wide_f), "cast");
    succeeds(nst_tensor_cast(s, 7, &ws), "cast");
    succeeds(nst_syrk(f, 0.5, &g), "syrk");
    succeeds(nst_syrk(wide_f, 0.5, &wg), "syrk of libtorch");
    near(g, wg, 1e-6, "syrk of " + std::to_string(positions));
    succeeds(nst_tensor_cast(g, 7, &d), "cast");
    for (double beta : {1.0, 0.0}) {
      succeeds(nst_baddbmm_in_place(s, g, f, beta, 0.1), "product");
      succeeds(nst_baddbmm_in_place(ws, d, wide_f, beta, 0.1), "product of libtorch");
      near(s, ws, 2e-6, "product added to " + std::to_string(positions));
    }
    for (auto t : {maps, sums, f, s, wf, ws, g, wg, d, wide_f}) nst_tensor_free(t);
  }
}

// Waves that move by (2.5,-1.5): each instruction set finds that, and warping by it brings them back.
void flow_is_found() {
  constexpr int64_t h = 97, w = 131;
  auto waves = [&](double dx, double dy) {
    std::vector<float> p(3 * h * w);
    for (int64_t i = 0; i < 3 * h * w; i++) {
      const double x = i % w + dx, y = i / w % h + dy;
      p[i] = static_cast<float>(0.5 + 0.15 * (std::sin(x / 3) + std::sin(y / 4 + x / 7) + std::cos(y / 2 - x / 5)));
    }
    return p;
  };
  const auto from = waves(2.5, -1.5), to = waves(0, 0);
  std::vector<float> flow(2 * h * w), back(3 * h * w);
  succeeds(nst_flow(from.data(), to.data(), h, w, flow.data()), "flow");
  succeeds(nst_warp(to.data(), 3, flow.data(), h, w, back.data()), "warp");
  double worst = 0, error = 0;
  for (int64_t i = 0; i < h * w; i++) {
    if (i % w < 8 || i % w >= w - 8 || i / w < 8 || i / w >= h - 8) continue;
    check(std::isfinite(flow[i]) && std::isfinite(flow[h * w + i]), "flow", "is no number");
    worst = std::max(worst, std::hypot(flow[i] - 2.5, flow[h * w + i] + 1.5));
    error = std::max(error, std::fabs(static_cast<double>(back[i]) - from[i]));
  }
  check(worst < 0.1, "flow of waves", std::to_string(worst));
  check(error < 0.01, "waves brought back", std::to_string(error));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: native_test libpretend.so\n"), 2;
  const char* wanted = std::getenv("NST_KERNELS");
  std::printf("kernels: %s\n", nst_kernels_name());
  check(wanted == nullptr || std::string("avx512") == wanted || std::string(nst_kernels_name()) == wanted,
        "the kernels asked for");
  convolutions_are_libtorchs();
  pools_and_products_are_libtorchs();
  nan_is_not_lost();
  flow_is_found();
  errors_are_messages();
  succeeds(nst_load_device_library(argv[1]), "loading the pretend device");
  pretend_computes_as_the_cpu_does();
  pretend_is_strict();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
