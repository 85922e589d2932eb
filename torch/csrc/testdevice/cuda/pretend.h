// The pretend CUDA: NVIDIA's libraries as libtorch's CUDA code calls them, without a card. It
// exists so that this code, which is most of what nst does on a GPU, runs in every test:
//
//  - kernels and products do nothing; what they are sent with is checked, and counted;
//  - memory is counted as cudaMalloc does, and what is copied into it can be copied out;
//  - a stream's work waits until something waits for it, so a missing wait shows;
//  - captures refuse what CUDA's refuse, and graphs can be replayed;
//  - a fault can be ordered for the n-th call of a kind from now;
//  - it is a card of any memory, compute capability and number.
//
// What breaks a rule of CUDA's documents is a violation: a line in the journal, and CUDA's
// error. It says nothing of numbers or speed.
//
// It is preloaded (LD_PRELOAD), never linked with: beside it lie empty libraries with the names
// of NVIDIA's, which libtorch's ask for. orders.cc has the orders that it takes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace pretend {

// One lock for all: a pretend card need not be fast.
extern std::recursive_mutex everything;
using Lock = std::lock_guard<std::recursive_mutex>;

constexpr int kDevices = 8;

// --- What it is, and what is to fail (orders.cc) ---

struct Card {
  int devices = 1;
  int64_t memory = int64_t{80} << 30;   // bytes of each device
  int64_t context = int64_t{520} << 20;  // of these, what a context takes
  int capability = 90;                  // 75 is 7.5
  int processors = 132;
  int driver = 13020;
  int count_error = 0;  // of cudaGetDeviceCount
  bool peers = true;    // devices reach each other's memory
  bool integrated = false;
  int workspace = 50;   // per cent of a convolution's maps that cuDNN's best engine wants
  int fused = 1;        // convolutions with ReLU: 1 there are; 0 no engine is found; -1 the heuristics fail
  std::string name = "NVIDIA H100 80GB HBM3 (pretend)";
};
Card& card();

// Whether a fault was ordered for this call of its kind, and CUDA's code for it.
bool fault(const char* kind, int* code);

// The number that a small read is to give, if one was ordered.
bool read_as(double* value);

// --- What has happened (journal.cc) ---

// How often something was sent: at once, into a recording, and by replaying one.
struct Count {
  int64_t direct = 0, recorded = 0, replayed = 0;
};
Count& count(const std::string& name);
void publish();  // writes the counts down
// A count that is the largest of the values that it was given.
void most(const std::string& name, int64_t value);
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
void violation(const char* format, ...) __attribute__((format(printf, 1, 2)));

// --- Devices and errors (devices.cc) ---

int device();       // the calling thread's
void use_device();  // makes its context
// Keeps an error for cudaGetLastError; gives it back.
cudaError_t fail(cudaError_t error);
cudaError_t fail(int code);  // of a fault; from a lost device on every call fails
// Has kernels that were launched be loaded anew (launches.cc).
void forget_kernels();
// What every call begins with: the error of a device that is lost.
cudaError_t lost();
cudaError_t lost(int device);  // of what is a device's own, whichever is current
// What the work so far comes to, for who has waited for it.
cudaError_t outcome();
void lose_later(int code);  // the next who waits is told

// --- Memory (memory.cc) ---

// A part of a device's memory that work uses.
struct Span {
  const void* at;
  size_t bytes;
};
bool on_device(const void* at);                                     // is an address of any device
bool live(const void* at, size_t bytes, int* device = nullptr);     // lies in one allocation
bool pinned(const void* at, size_t bytes);
int64_t free_bytes(int device);
bool take(int device, int64_t bytes, const char* what);             // for a library's own use
void give_back(int device, int64_t bytes);
void copy_bytes(void* to, const void* from, size_t bytes);
void fill_bytes(void* at, int value, size_t bytes);

// --- Streams, events and captures (streams.cc, captures.cc) ---

struct Stream;
struct Capture;

// What a stream is sent.
struct Work {
  std::string name;
  std::vector<Span> uses;
  std::function<void()> effect;  // what it does to memory, if it is known
};
// Sends it: into a recording, if the stream captures.
cudaError_t send(cudaStream_t stream, Work work);
// Does what the stream was sent so far, and what that waits for.
void catch_up(cudaStream_t stream);
void catch_up_all();

// A live stream; the device's own for nullptr. The error is CUDA's for others.
cudaError_t find_stream(cudaStream_t handle, const char* call, Stream** stream);
Capture* capture_of(cudaStream_t stream);
// For calls that must not be made while a stream captures (cudaMalloc, cudaMemcpy …).
cudaError_t outside_captures(const char* call);
std::vector<Capture*>& captures();
bool this_threads(const Capture* capture);
void spoil(Capture* capture);  // it comes to nothing

}  // namespace pretend

// Returns from a function of CUDA's if an expression is an error.
#define TRY(expression)                                                   \
  do {                                                                    \
    if (const cudaError_t error_ = (expression); error_ != cudaSuccess) return error_; \
  } while (0)
// Every call of the runtime is counted by its name.
#define CALL                       \
  pretend::Lock lock_(pretend::everything); \
  ++pretend::count(__func__).direct; \
  TRY(pretend::lost())
