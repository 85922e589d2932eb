// Streams and events. A stream's work is done when something waits for it: it, or an event that
// was recorded after it. So who reads without waiting finds what was there before.
#include <algorithm>
#include <set>

#include "captures.h"
#include "pretend.h"

namespace pretend {

// Something that a stream does when its turn comes: an effect, or to wait for another.
struct Step {
  std::function<void()> effect;
  Stream* other;
  int64_t until;
};

struct Stream {
  static constexpr uint32_t kMark = 0x57a3a301;
  uint32_t mark = kMark;
  int device = 0;
  bool blocking = true;  // the legacy stream waits for it, and it for that
  bool destroyed = false;
  Capture* capture = nullptr;
  std::deque<Step> steps;
  int64_t sent = 0, done = 0;
};

struct Event {
  static constexpr uint32_t kMark = 0xe7e7e701;
  uint32_t mark = kMark;
  int device = 0;
  bool destroyed = false, recorded = false, timed = true;
  Stream* stream = nullptr;
  int64_t until = 0;
  int64_t capture = 0;  // in which it was recorded; 0: in none
  Clock clock;          // of that, then
  int asked = 0;
};

namespace {

// How often an event says that it is not ready before it is.
constexpr int kPolls = 2;
// More work than this is not kept waiting.
constexpr size_t kWaiting = 10000;

std::vector<Stream*>& streams() {
  static auto* all = new std::vector<Stream*>;
  return *all;
}

Stream* legacy(int device) {
  static auto* of = new std::map<int, Stream*>;
  auto& s = (*of)[device];
  if (s == nullptr) {
    s = new Stream;
    s->device = device;
    streams().push_back(s);
  }
  return s;
}

bool is_legacy(const Stream* s) { return s == legacy(s->device); }

void run(Stream* s, int64_t until) {
  while (s->done < until) {
    auto step = std::move(s->steps.front());
    s->steps.pop_front();
    ++s->done;
    if (step.other != nullptr) run(step.other, step.until);
    if (step.effect) step.effect();
  }
}

void push(Stream* s, Step step) {
  s->steps.push_back(std::move(step));
  ++s->sent;
  if (s->steps.size() > kWaiting) run(s, s->sent);
}

void wait_for(Stream* s, Stream* other, int64_t until) {
  if (other != s && other->done < until) push(s, {nullptr, other, until});
}

// The legacy stream's order with the streams that do not say otherwise.
void order_with_legacy(Stream* s) {
  if (is_legacy(s)) {
    for (auto* other : streams())
      if (other->device == s->device && other->blocking) wait_for(s, other, other->sent);
  } else if (s->blocking) {
    wait_for(s, legacy(s->device), legacy(s->device)->sent);
  }
}

cudaError_t make(cudaStream_t* out, unsigned flags) {
  use_device();
  auto* s = new Stream;
  s->device = device();
  s->blocking = (flags & cudaStreamNonBlocking) == 0;
  streams().push_back(s);
  *out = reinterpret_cast<cudaStream_t>(s);
  return cudaSuccess;
}

Event* find_event(cudaEvent_t handle, const char* call) {
  auto* e = reinterpret_cast<Event*>(handle);
  if (e != nullptr && e->mark == Event::kMark && !e->destroyed) return e;
  violation("%s: the event %p is none, or was destroyed", call, static_cast<void*>(handle));
  return nullptr;
}
#define FIND_EVENT(name, handle)                 \
  auto* name = find_event(handle, __func__); \
  if (name == nullptr) return fail(cudaErrorInvalidResourceHandle); \
  TRY(lost(name->device))

// A wait of the host's: for a stream that captures there is none.
cudaError_t may_wait(cudaStream_t handle, const char* call, Stream** s) {
  TRY(find_stream(handle, call, s));
  if ((*s)->capture != nullptr) {
    violation("%s of a stream that captures", call);
    spoil((*s)->capture);
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  return outside_captures(call);
}

cudaError_t wait_fault() {
  int code;
  return fault("wait", &code) ? fail(code) : cudaSuccess;
}

}  // namespace

cudaError_t find_stream(cudaStream_t handle, const char* call, Stream** out) {
  // 1 and 2 are CUDA's names of the legacy stream and of a thread's own.
  auto* s = reinterpret_cast<uintptr_t>(handle) <= 2 ? legacy(device()) : reinterpret_cast<Stream*>(handle);
  if (s->mark != Stream::kMark || s->destroyed) {
    violation("%s: the stream %p is none, or was destroyed", call, static_cast<void*>(handle));
    return fail(cudaErrorInvalidResourceHandle);
  }
  if (s->device != device()) {
    violation("%s: a stream of device %d while %d is current", call, s->device, device());
    return fail(cudaErrorInvalidResourceHandle);
  }
  *out = s;
  return cudaSuccess;
}

Capture* capture_of(cudaStream_t handle) {
  return reinterpret_cast<uintptr_t>(handle) <= 2 ? nullptr : reinterpret_cast<Stream*>(handle)->capture;
}

cudaStream_t handle_of(Stream* s) { return reinterpret_cast<cudaStream_t>(s); }
Capture*& capture_of(Stream* s) { return s->capture; }
bool blocking(const Stream* s) { return s->blocking; }
int device_of(const Stream* s) { return s->device; }
bool is_legacy_stream(const Stream* s) { return is_legacy(s); }

cudaError_t send(cudaStream_t handle, Work work) {
  Lock lock(everything);
  TRY(lost());
  Stream* s = nullptr;
  TRY(find_stream(handle, work.name.c_str(), &s));
  for (const auto& [at, bytes] : work.uses) {
    int of = -1;
    if (!live(at, bytes, &of)) {
      violation("%s: %p of %zu bytes is in no allocation", work.name.c_str(), at, bytes);
      return fail(cudaErrorIllegalAddress);
    }
    if (of != s->device) violation("%s: memory of device %d, on a stream of %d", work.name.c_str(), of, s->device);
  }
  if (s->capture != nullptr) return record(s, std::move(work));
  TRY(may_send(s, work.name.c_str()));
  ++count(work.name).direct;
  order_with_legacy(s);
  push(s, {std::move(work.effect), nullptr, 0});
  return cudaSuccess;
}

void catch_up(cudaStream_t handle) {
  Stream* s = nullptr;
  if (find_stream(handle, "wait", &s) != cudaSuccess) return;
  order_with_legacy(s);
  run(s, s->sent);
}

void catch_up_all() {
  for (auto* s : streams()) run(s, s->sent);
}

}  // namespace pretend

using namespace pretend;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* out) {
  CALL;
  return make(out, 0);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  CALL;
  return make(out, flags);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int) {
  CALL;
  return make(out, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  CALL;
  Stream* s = nullptr;
  TRY(find_stream(handle, __func__, &s));
  if (s->capture != nullptr) violation("cudaStreamDestroy of a stream that captures");
  s->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  CALL;
  Stream* s = nullptr;
  TRY(may_wait(handle, __func__, &s));
  TRY(wait_fault());
  catch_up(handle);
  return outcome();
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  CALL;
  Stream* s = nullptr;
  TRY(may_wait(handle, __func__, &s));
  catch_up(handle);
  return outcome();
}

cudaError_t cudaDeviceSynchronize() {
  CALL;
  TRY(outside_captures(__func__));
  for (auto* s : streams())
    if (s->device == device() && s->capture != nullptr) {
      violation("cudaDeviceSynchronize while a stream of the device captures");
      spoil(s->capture);
      return fail(cudaErrorStreamCaptureUnsupported);
    }
  TRY(wait_fault());
  catch_up_all();
  return outcome();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  CALL;
  Stream* s = nullptr;
  TRY(find_stream(handle, __func__, &s));
  FIND_EVENT(e, event);
  if (e->capture != 0) return join(s, e->capture, e->clock);
  if (s->capture != nullptr) {
    if (!e->recorded) return cudaSuccess;
    violation("a stream that captures waits for an event from before its capture");
    spoil(s->capture);
    return fail(cudaErrorStreamCaptureIsolation);
  }
  if (e->recorded) wait_for(s, e->stream, e->until);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
  CALL;
  use_device();
  auto* e = new Event;
  e->device = device();
  e->timed = (flags & cudaEventDisableTiming) == 0;
  *out = reinterpret_cast<cudaEvent_t>(e);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  CALL;
  FIND_EVENT(e, event);
  e->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  CALL;
  FIND_EVENT(e, event);
  Stream* s = nullptr;
  TRY(find_stream(handle, __func__, &s));
  if (s->device != e->device) {
    violation("cudaEventRecord: an event of device %d, on a stream of %d", e->device, s->device);
    return fail(cudaErrorInvalidResourceHandle);
  }
  e->recorded = true;
  e->asked = 0;
  e->capture = 0;
  if (s->capture != nullptr) {
    e->capture = clock_of(s, &e->clock);
    return cudaSuccess;
  }
  order_with_legacy(s);
  push(s, {});
  e->stream = s;
  e->until = s->sent;
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  CALL;
  FIND_EVENT(e, event);
  TRY(may_ask(e->capture, __func__));
  if (e->recorded && e->asked++ < kPolls) return cudaErrorNotReady;
  if (e->recorded) run(e->stream, e->until);
  return outcome();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CALL;
  FIND_EVENT(e, event);
  TRY(may_ask(e->capture, __func__));
  TRY(wait_fault());
  if (e->recorded) run(e->stream, e->until);
  e->asked = kPolls;
  return outcome();
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  CALL;
  FIND_EVENT(a, from);
  FIND_EVENT(b, to);
  if (!a->recorded || !b->recorded || !a->timed || !b->timed) {
    violation("cudaEventElapsedTime of events that have no time");
    return fail(cudaErrorInvalidResourceHandle);
  }
  *milliseconds = 1;
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime_v2(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return cudaEventElapsedTime(milliseconds, from, to);
}

}  // extern "C"
