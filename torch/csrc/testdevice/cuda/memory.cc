// Memory: what cudaMalloc gives, page-locked memory, and copies.
//
// A device's memory has addresses of its own, which the host cannot touch, and lies in a sparse
// file: what nobody wrote to it is zeros and takes no room. An address is not given twice, so one
// that was freed is known as such.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "pretend.h"

namespace pretend {

namespace {

constexpr int64_t kRange = int64_t{1} << 40;  // addresses of each device
constexpr int64_t kPage = 2 << 20;            // cudaMalloc's own
constexpr size_t kPiece = 1 << 20;            // copied at once
constexpr size_t kSmallRead = 4096;           // which the host may decide by

struct Allocation {
  size_t bytes;
  int device;
};

struct {
  std::map<const char*, Allocation> live;
  std::map<const char*, size_t> pinned;
  int64_t used[kDevices] = {}, next[kDevices] = {};
} memory;

char* base() {
  static char* at = [] {
    void* m = mmap(nullptr, kDevices * kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) std::abort();
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(m) + kPage - 1) & ~uintptr_t(kPage - 1));
  }();
  return at;
}

int file() {
  static const int fd = [] {
    const int f = memfd_create("pretend CUDA", MFD_CLOEXEC);
    if (f < 0 || ftruncate(f, (kDevices - 1) * kRange + kRange / 2) != 0) std::abort();
    return f;
  }();
  return fd;
}

off_t offset(const void* at) { return static_cast<const char*>(at) - base(); }

void punch(const void* at, size_t bytes) {
  if (bytes > 0) (void)!fallocate(file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset(at), bytes);
}

bool all_zero(const char* at, size_t bytes) {
  return bytes == 0 || (at[0] == 0 && std::memcmp(at, at + 1, bytes - 1) == 0);
}

void store(const char* to, const char* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t n = std::min(bytes - at, kPiece);
    if (n >= 65536 && all_zero(from + at, n))
      punch(to + at, n);
    else
      (void)!pwrite(file(), from + at, n, offset(to) + static_cast<off_t>(at));
  }
}

void load(char* to, const char* from, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const auto n = pread(file(), to + at, bytes - at, offset(from) + static_cast<off_t>(at));
    if (n <= 0) return;
    at += n;
  }
}

// What no kernel computed is what lay there before. What the host may decide by, such as a norm, is
// 0, or the number that was ordered: as float64 where it fits, else as float32, or as a truth.
void make_sense(char* read, size_t bytes) {
  if (bytes > kSmallRead) return;
  double value = 0;
  (void)read_as(&value);
  const auto single = static_cast<float>(value);
  const bool truth = value != 0;
  const size_t each = bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : 1;
  const void* number = &truth;
  if (each == 8) number = &value;
  if (each == 4) number = &single;
  for (size_t i = 0; i < bytes; i += each) std::memcpy(read + i, number, each);
}

int64_t rounded(size_t bytes) { return (static_cast<int64_t>(bytes) + kPage - 1) & ~(kPage - 1); }

cudaError_t host_memory(void** out, size_t bytes) {
  TRY(outside_captures("cudaHostAlloc"));
  if (int code; fault("hostalloc", &code)) return fail(code);
  void* m = mmap(nullptr, std::max<size_t>(bytes, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (m == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
  memory.pinned[static_cast<char*>(m)] = bytes;
  *out = m;
  return cudaSuccess;
}

}  // namespace

bool on_device(const void* at) { return at >= base() && at < base() + (kDevices - 1) * kRange; }

bool live(const void* at, size_t bytes, int* device) {
  Lock lock(everything);
  auto found = memory.live.upper_bound(static_cast<const char*>(at));
  if (found == memory.live.begin()) return false;
  --found;
  if (static_cast<const char*>(at) + bytes > found->first + found->second.bytes) return false;
  if (device != nullptr) *device = found->second.device;
  return true;
}

bool pinned(const void* at, size_t bytes) {
  Lock lock(everything);
  auto found = memory.pinned.upper_bound(static_cast<const char*>(at));
  if (found == memory.pinned.begin()) return false;
  --found;
  return static_cast<const char*>(at) + bytes <= found->first + found->second;
}

int64_t free_bytes(int device) {
  Lock lock(everything);
  return std::max<int64_t>(0, card().memory - card().context - memory.used[device]);
}

bool take(int device, int64_t bytes, const char* what) {
  Lock lock(everything);
  if (free_bytes(device) < bytes) {
    say("%s lacks %ld bytes: %ld are free", what, bytes, free_bytes(device));
    return false;
  }
  memory.used[device] += bytes;
  most("memory taken at most, device " + std::to_string(device), memory.used[device] + card().context);
  return true;
}

void give_back(int device, int64_t bytes) {
  Lock lock(everything);
  memory.used[device] -= bytes;
}

void copy_bytes(void* to, const void* from, size_t bytes) {
  auto* t = static_cast<char*>(to);
  const auto* f = static_cast<const char*>(from);
  for (const void* end : {static_cast<const void*>(to), from})
    if (on_device(end) && !live(end, bytes)) {
      violation("a copy of %zu bytes comes to memory that was freed meanwhile, %p", bytes, end);
      return;
    }
  if (on_device(to) && on_device(from)) {
    std::vector<char> piece(std::min(bytes, kPiece));
    for (size_t at = 0; at < bytes; at += piece.size()) {
      const size_t n = std::min(bytes - at, piece.size());
      load(piece.data(), f + at, n);
      store(t + at, piece.data(), n);
    }
  } else if (on_device(to)) {
    store(t, f, bytes);
  } else if (on_device(from)) {
    load(t, f, bytes);
    make_sense(t, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

void fill_bytes(void* at, int value, size_t bytes) {
  if (value == 0) {
    punch(at, bytes);
    return;
  }
  const std::vector<char> piece(std::min(bytes, kPiece), static_cast<char>(value));
  for (size_t done = 0; done < bytes; done += piece.size())
    store(static_cast<char*>(at) + done, piece.data(), std::min(bytes - done, piece.size()));
}

namespace {

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle, bool waits) {
  if (int code; fault("copy", &code)) return fail(code);
  if (bytes == 0) return cudaSuccess;
  const bool up = on_device(to), down = on_device(from), inside = up && down;
  const char* name = "copy on the host";
  if (inside)
    name = "copy on the device";
  else if (up || down)
    name = up ? "copy to the device" : "copy to the host";
  Stream* stream = nullptr;
  TRY(find_stream(handle, name, &stream));
  if ((kind == cudaMemcpyHostToDevice && (!up || down)) || (kind == cudaMemcpyDeviceToHost && (up || !down)) ||
      (kind == cudaMemcpyDeviceToDevice && !inside) || (kind == cudaMemcpyHostToHost && (up || down))) {
    violation("%s: cudaMemcpyKind %d of %p to %p", name, kind, from, to);
    return fail(cudaErrorInvalidValue);
  }
  for (const void* end : {static_cast<const void*>(to), from})
    if (on_device(end) && !live(end, bytes)) {
      violation("%s: %p of %zu bytes is no allocation", name, end, bytes);
      return fail(cudaErrorInvalidValue);
    }
  if (waits) TRY(outside_captures("cudaMemcpy"));
  const bool locked = inside || pinned(up ? from : to, bytes);
  if (auto* capture = capture_of(handle); capture != nullptr && !locked) {
    violation("%s of memory that is not page-locked (%zu bytes) while its stream captures", name, bytes);
    spoil(capture);
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  Work work{name, {}, [=] { copy_bytes(to, from, bytes); }};
  if (up && !down && !locked) {
    // CUDA has copied it when it returns, and it is on its way.
    if (bytes <= kPiece) {
      const auto* begin = static_cast<const char*>(from);
      auto staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
      work.effect = [=] { copy_bytes(to, staged->data(), bytes); };
    } else {
      waits = true;
    }
  }
  waits |= down && !up && !locked;
  TRY(send(handle, std::move(work)));
  if (!waits) return cudaSuccess;
  ++count(down && !up ? "copy to the host that waits" : "copy that waits").direct;
  catch_up(handle);
  return outcome();
}

}  // namespace
}  // namespace pretend

using namespace pretend;

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  CALL;
  TRY(outside_captures(__func__));
  use_device();
  if (int code; fault("malloc", &code)) return fail(code);
  const int d = device();
  if (!take(d, rounded(bytes), "cudaMalloc")) return fail(cudaErrorMemoryAllocation);
  char* at = base() + d * kRange + memory.next[d];
  memory.next[d] += rounded(bytes) + kPage;
  memory.live[at] = {bytes, d};
  *out = at;
  return cudaSuccess;
}

cudaError_t cudaFree(void* at) {
  CALL;
  use_device();
  if (at == nullptr) return cudaSuccess;
  TRY(outside_captures(__func__));
  const auto found = memory.live.find(static_cast<char*>(at));
  if (found == memory.live.end()) {
    violation("cudaFree of %p, which is no allocation", at);
    return fail(cudaErrorInvalidValue);
  }
  TRY(lost(found->second.device));
  catch_up_all();  // as CUDA's does
  give_back(found->second.device, rounded(found->second.bytes));
  punch(at, rounded(found->second.bytes));
  memory.live.erase(found);
  return outcome();
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  CALL;
  use_device();
  *free = free_bytes(device());
  *total = card().memory;
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  CALL;
  return host_memory(out, bytes);
}

cudaError_t cudaMallocHost(void** out, size_t bytes) {
  CALL;
  return host_memory(out, bytes);
}

cudaError_t cudaFreeHost(void* at) {
  CALL;
  TRY(outside_captures(__func__));
  const auto found = memory.pinned.find(static_cast<char*>(at));
  if (found == memory.pinned.end()) {
    violation("cudaFreeHost of %p, which is not page-locked", at);
    return fail(cudaErrorInvalidValue);
  }
  catch_up_all();
  munmap(at, std::max<size_t>(found->second, 1));
  memory.pinned.erase(found);
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* at, size_t bytes, unsigned) {
  CALL;
  memory.pinned[static_cast<char*>(at)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* at) {
  CALL;
  catch_up_all();
  memory.pinned.erase(static_cast<char*>(at));
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* at) {
  CALL;
  *out = {};
  out->device = -2;
  out->type = cudaMemoryTypeUnregistered;
  if (int d; live(at, 1, &d)) {
    out->type = cudaMemoryTypeDevice;
    out->device = d;
    out->devicePointer = const_cast<void*>(at);
  } else if (pinned(at, 1)) {
    out->type = cudaMemoryTypeHost;
    out->device = device();
    out->devicePointer = out->hostPointer = const_cast<void*>(at);
  } else if (on_device(at)) {
    violation("cudaPointerGetAttributes of %p, which was freed", at);
  } else {
    out->hostPointer = const_cast<void*>(at);
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  CALL;
  return copy(to, from, bytes, kind, nullptr, true);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  CALL;
  return copy(to, from, bytes, kind, stream, false);
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  CALL;
  ++count("copy between devices").direct;
  return copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream, false);
}

cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  CALL;
  if (bytes == 0) return cudaSuccess;
  return send(stream, {"memset", {{at, bytes}}, [=] { fill_bytes(at, value, bytes); }});
}

cudaError_t cudaMemset(void* at, int value, size_t bytes) { return cudaMemsetAsync(at, value, bytes, nullptr); }

}  // extern "C"
