// Recording what a device is sent, to send it again at once: CUDA graphs, or what
// another backend has of the kind.
#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#if __has_include(<ATen/accelerator/Graph.h>)
#include <ATen/accelerator/Graph.h>
#define NST_GRAPHS
#endif

#include <memory>

#include "guard.h"

using nst::guard;

#ifdef NST_GRAPHS

namespace {

// A graph is recorded on a stream of its own: CUDA's default stream cannot be.
struct Graph {
  c10::impl::VirtualGuardImpl backend;
  c10::Device before;
  c10::Stream stream;
  std::unique_ptr<at::GraphImplInterface> graph;

  explicit Graph(c10::Device device)
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
  void end() {
    try {
      graph->capture_end();
    } catch (...) {
      leave();
      throw;
    }
    leave();
  }
};

Graph& graph(nst_graph g) { return nst::object<Graph>(g, "graph"); }

}  // namespace

const char* nst_graph_begin(const char* device, nst_graph* out) {
  return guard([&] { *out = new Graph(c10::Device(device)); });
}
const char* nst_graph_end(nst_graph g) {
  return guard([&] { graph(g).end(); });
}
const char* nst_graph_replay(nst_graph g) {
  return guard([&] { graph(g).graph->replay(); });
}
void nst_graph_free(nst_graph g) { delete static_cast<Graph*>(g); }

#else

const char* nst_graph_begin(const char*, nst_graph*) { return nst::copy("this libtorch is older than its graphs"); }
const char* nst_graph_end(nst_graph) { return nullptr; }
const char* nst_graph_replay(nst_graph) { return nullptr; }
void nst_graph_free(nst_graph) {}

#endif
