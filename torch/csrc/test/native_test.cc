// The C ABI and the pretend accelerator, from C++: what must hold before any
// Go runs. usage: native_test libpretend.so
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "nsttorch.h"

namespace {

int passed = 0, failed = 0;

void check(bool ok, const char* what, const std::string& detail = "") {
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAIL: %s %s\n", what, detail.c_str());
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
  fails(nst_tensor_matmul(a, a, &t), "", "shapes that do not fit");
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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: native_test libpretend.so\n"), 2;
  errors_are_messages();
  succeeds(nst_load_device_library(argv[1]), "loading the pretend device");
  pretend_computes_as_the_cpu_does();
  pretend_is_strict();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
