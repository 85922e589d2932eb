// Captures of streams, and the graphs that are made of them.
#include "captures.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "pretend.h"

namespace pretend {

struct Capture {
  int64_t id;
  cudaStreamCaptureMode mode;
  pthread_t thread;
  Stream* origin;
  std::vector<Work> work;
  std::map<Stream*, Clock> clocks;  // of the streams that are in it
  bool spoilt = false;
};

namespace {

struct Graph {
  static constexpr uint32_t kMark = 0x96a99501;
  uint32_t mark = kMark;
  std::vector<Work> work;
  std::vector<std::pair<cudaHostFn_t, void*>> objects;  // which end with it
  int device = 0;
  int64_t bytes = 0;  // of the device, for an executable one
  bool destroyed = false;
};

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
int64_t ids = 0;

// What an executable graph takes of the device's memory.
constexpr int64_t kGraphBytes = 64 << 10, kNodeBytes = 1 << 10;

Capture* find(int64_t id) {
  for (auto* c : captures())
    if (c->id == id) return c;
  return nullptr;
}

Graph* find_graph(const void* handle, const char* call) {
  auto* g = static_cast<Graph*>(const_cast<void*>(handle));
  if (g != nullptr && g->mark == Graph::kMark && !g->destroyed) return g;
  violation("%s: the graph %p is none, or was destroyed", call, handle);
  return nullptr;
}
#define FIND_GRAPH(name, handle)                 \
  auto* name = find_graph(handle, __func__); \
  if (name == nullptr) return fail(cudaErrorInvalidValue)

}  // namespace

std::vector<Capture*>& captures() {
  static auto* all = new std::vector<Capture*>;
  return *all;
}

bool this_threads(const Capture* c) { return pthread_equal(c->thread, pthread_self()) != 0; }

void spoil(Capture* c) { c->spoilt = true; }

cudaError_t outside_captures(const char* call) {
  for (auto* c : captures()) {
    const bool mine = this_threads(c);
    const bool forbidden =
        (c->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal) ||
        (mine && c->mode != cudaStreamCaptureModeRelaxed && thread_mode != cudaStreamCaptureModeRelaxed);
    if (!forbidden) continue;
    violation("%s while %s thread captures", call, mine ? "this" : "another");
    spoil(c);
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

cudaError_t record(Stream* s, Work work) {
  auto* c = capture_of(s);
  if (c->spoilt) return fail(cudaErrorStreamCaptureInvalidated);
  ++count(work.name).recorded;
  ++c->clocks[s][s];
  c->work.push_back(std::move(work));
  return cudaSuccess;
}

cudaError_t may_send(Stream* s, const char* call) {
  for (auto* c : captures()) {
    if (!this_threads(c) || device_of(c->origin) != device_of(s)) continue;
    if (!is_legacy_stream(s)) {
      violation("%s on a stream that does not capture while its thread does", call);
    } else if (blocking(c->origin)) {
      violation("%s on the legacy stream while a stream that waits for it captures", call);
      spoil(c);
      return fail(cudaErrorStreamCaptureImplicit);
    } else {
      violation("%s on the legacy stream while its thread captures: it is not recorded", call);
    }
  }
  return cudaSuccess;
}

cudaError_t may_ask(int64_t id, const char* call) {
  if (auto* c = id != 0 ? find(id) : nullptr; c != nullptr) {
    violation("%s of an event that was recorded in a capture", call);
    spoil(c);
    return fail(cudaErrorCapturedEvent);
  }
  if (id != 0) {
    violation("%s of an event of a capture that has ended", call);
    return fail(cudaErrorCapturedEvent);
  }
  return outside_captures(call);
}

cudaError_t join(Stream* s, int64_t id, const Clock& clock) {
  auto* of = find(id);
  if (of == nullptr) {
    violation("a stream waits for an event of a capture that has ended");
    return fail(cudaErrorCapturedEvent);
  }
  if (is_legacy_stream(s)) {
    violation("the legacy stream waits for an event of a capture");
    spoil(of);
    return fail(cudaErrorStreamCaptureImplicit);
  }
  auto*& in = capture_of(s);
  if (in != nullptr && in != of) {
    violation("a capture waits for an event of another");
    spoil(in);
    spoil(of);
    return fail(cudaErrorStreamCaptureMerge);
  }
  in = of;
  for (const auto& [stream, at] : clock) {
    auto& mine = of->clocks[s][stream];
    mine = std::max(mine, at);
  }
  return cudaSuccess;
}

int64_t clock_of(Stream* s, Clock* clock) {
  auto* c = capture_of(s);
  ++c->clocks[s][s];
  *clock = c->clocks[s];
  return c->id;
}

}  // namespace pretend

using namespace pretend;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  CALL;
  Stream* s = nullptr;
  TRY(find_stream(handle, __func__, &s));
  if (is_legacy_stream(s)) {
    violation("the legacy stream cannot be captured");
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  if (capture_of(s) != nullptr) return fail(cudaErrorIllegalState);
  if (int code; fault("capture", &code)) return fail(code);
  auto* c = new Capture{++ids, mode, pthread_self(), s, {}, {}, false};
  c->clocks[s][s] = 0;
  capture_of(s) = c;
  captures().push_back(c);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  CALL;
  *out = nullptr;
  Stream* s = nullptr;
  TRY(find_stream(handle, __func__, &s));
  auto* c = capture_of(s);
  if (c == nullptr) return fail(cudaErrorIllegalState);
  if (c->origin != s) {
    violation("a capture is ended on another stream than it began on");
    spoil(c);
    return fail(cudaErrorStreamCaptureUnmatched);
  }
  if (!this_threads(c) && c->mode != cudaStreamCaptureModeRelaxed) {
    violation("a capture is ended by another thread than began it");
    return fail(cudaErrorStreamCaptureWrongThread);
  }
  bool joined = true;
  for (const auto& [stream, clock] : c->clocks) {
    const auto at = clock.find(stream);
    joined &= at == clock.end() || c->clocks[s][stream] >= at->second;
    capture_of(stream) = nullptr;
  }
  captures().erase(std::find(captures().begin(), captures().end(), c));
  auto done = std::unique_ptr<Capture>(c);
  if (c->spoilt) return fail(cudaErrorStreamCaptureInvalidated);
  if (!joined) {
    violation("a capture ends while a stream of it has work that its first does not wait for");
    return fail(cudaErrorStreamCaptureUnjoined);
  }
  most("work of the largest graph", static_cast<int64_t>(c->work.size()));
  auto* graph = new Graph;
  graph->work = std::move(c->work);
  *out = reinterpret_cast<cudaGraph_t>(graph);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  CALL;
  Stream* s = nullptr;
  TRY(find_stream(handle, __func__, &s));
  auto* c = capture_of(s);
  *status = c == nullptr ? cudaStreamCaptureStatusNone
            : c->spoilt  ? cudaStreamCaptureStatusInvalidated
                         : cudaStreamCaptureStatusActive;
  if (is_legacy_stream(s))
    for (auto* other : captures())
      if (blocking(other->origin)) return fail(cudaErrorStreamCaptureImplicit);
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** nodes, const cudaGraphEdgeData** edges,
                                     size_t* count) {
  TRY(cudaStreamIsCapturing(handle, status));
  Lock lock(everything);
  const auto* c = capture_of(handle);
  if (id != nullptr) *id = c != nullptr ? c->id : 0;
  if (graph != nullptr) *graph = nullptr;
  if (nodes != nullptr) *nodes = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t handle, unsigned long long) {
  CALL;
  FIND_GRAPH(graph, handle);
  if (int code; fault("instantiate", &code)) return fail(code);
  const auto bytes = kGraphBytes + kNodeBytes * static_cast<int64_t>(graph->work.size());
  if (!take(device(), bytes, __func__)) return fail(cudaErrorMemoryAllocation);
  auto* made = new Graph;
  made->work = graph->work;
  made->device = device();
  made->bytes = bytes;
  *out = reinterpret_cast<cudaGraphExec_t>(made);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(out, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream) {
  CALL;
  FIND_GRAPH(graph, handle);
  if (graph->device != device()) violation("a graph of device %d is launched on %d", graph->device, device());
  if (int code; fault("replay", &code)) return fail(code);
  if (int code; fault("later", &code)) lose_later(code);
  for (const auto& work : graph->work) {
    ++count(work.name).replayed;
    for (const auto& [at, bytes] : work.uses)
      if (!live(at, bytes)) {
        violation("a graph that is replayed uses freed memory: %s", work.name.c_str());
        return fail(cudaErrorIllegalAddress);
      }
  }
  auto effects = std::make_shared<std::vector<std::function<void()>>>();
  for (const auto& work : graph->work)
    if (work.effect) effects->push_back(work.effect);
  return send(stream, {"graph", {}, [effects] {
                         for (const auto& effect : *effects) effect();
                       }});
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  CALL;
  FIND_GRAPH(graph, handle);
  graph->destroyed = true;
  graph->work.clear();
  give_back(graph->device, graph->bytes);
  return cudaSuccess;
}

static cudaError_t destroy(cudaGraph_t handle, std::vector<std::pair<cudaHostFn_t, void*>>* objects) {
  CALL;
  FIND_GRAPH(graph, handle);
  graph->destroyed = true;
  graph->work.clear();
  objects->swap(graph->objects);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  std::vector<std::pair<cudaHostFn_t, void*>> objects;
  TRY(destroy(handle, &objects));
  for (const auto& [end, object] : objects) end(object);  // the caller's code, which may wait for others
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  CALL;
  FIND_GRAPH(graph, handle);
  for (size_t i = 0; nodes != nullptr && i < *count; i++) nodes[i] = reinterpret_cast<cudaGraphNode_t>(i + 1);
  *count = graph->work.size();
  return cudaSuccess;
}

// An object of the caller's, which lives as long as a graph does.
cudaError_t cudaUserObjectCreate(cudaUserObject_t* out, void* object, cudaHostFn_t end, unsigned, unsigned) {
  *out = reinterpret_cast<cudaUserObject_t>(new std::pair<cudaHostFn_t, void*>(end, object));
  return cudaSuccess;
}
cudaError_t cudaGraphRetainUserObject(cudaGraph_t handle, cudaUserObject_t object, unsigned, unsigned) {
  CALL;
  FIND_GRAPH(graph, handle);
  graph->objects.push_back(*reinterpret_cast<std::pair<cudaHostFn_t, void*>*>(object));
  return cudaSuccess;
}

}  // extern "C"
