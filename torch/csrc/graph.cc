// Recording what a device is sent, to send it again at once: CUDA graphs, or what
// another backend has of the kind.
#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#if __has_include(<ATen/accelerator/Graph.h>)
#include <ATen/accelerator/Graph.h>
#define NST_GRAPHS
#endif

#include <memory>

#include "cuda.h"
#include "guard.h"

using nst::guard;

namespace {

struct Graph {
  virtual ~Graph() = default;
  virtual void end() = 0;
  virtual void replay() = 0;
};

// CUDA's, by libnstcuda.so: libtorch has them behind its device-neutral interface
// only by name.
struct CudaGraph final : Graph {
  void* handle = nullptr;

  explicit CudaGraph(c10::Device device) {
    const auto& cuda = nst::cuda();
    TORCH_CHECK(cuda.graph_begin != nullptr, cuda.missing);
    nst::check(cuda.graph_begin(device.has_index() ? device.index() : 0, &handle));
  }
  ~CudaGraph() override { nst::cuda().graph_free(handle); }
  void end() override { nst::check(nst::cuda().graph_end(handle)); }
  void replay() override { nst::check(nst::cuda().graph_replay(handle)); }
};

#ifdef NST_GRAPHS
// Another backend's.
struct BackendGraph final : Graph {
  c10::impl::VirtualGuardImpl backend;
  c10::Device before;
  c10::Stream stream;
  std::unique_ptr<at::GraphImplInterface> graph;

  explicit BackendGraph(c10::Device device)
      : backend(device.type()),
        before(backend.exchangeDevice(device)),
        stream(backend.getStream(device)) {
    try {
      graph = at::create_graph_impl(device.type());
      TORCH_CHECK(graph != nullptr, "libtorch has no graphs for ", device);
      backend.synchronizeDevice(device.index());
      stream = backend.exchangeStream(backend.getNewStream(device));
      graph->capture_begin({0, 0}, at::GraphCaptureMode::ThreadLocal);
    } catch (...) {
      leave();
      throw;
    }
  }
  void leave() {
    backend.exchangeStream(stream);
    backend.exchangeDevice(before);
  }
  void end() override {
    try {
      graph->capture_end();
    } catch (...) {
      leave();
      throw;
    }
    leave();
  }
  void replay() override { graph->replay(); }
};
#endif

Graph* record(c10::Device device) {
  if (device.is_cuda()) return new CudaGraph(device);
#ifdef NST_GRAPHS
  return new BackendGraph(device);
#else
  TORCH_CHECK(false, "this libtorch is older than its graphs for ", device);
#endif
}

Graph& graph(nst_graph g) { return nst::object<Graph>(g, "graph"); }

}  // namespace

const char* nst_graph_begin(const char* device, nst_graph* out) {
  return guard([&] { *out = record(c10::Device(device)); });
}
const char* nst_graph_end(nst_graph g) {
  const nst::Silence of_what_fails;  // it is thrown, too
  return guard([&] { graph(g).end(); });
}
const char* nst_graph_replay(nst_graph g) {
  return guard([&] { graph(g).replay(); });
}
void nst_graph_free(nst_graph g) {
  const nst::Silence of_a_lost_device;
  delete static_cast<Graph*>(g);
}
