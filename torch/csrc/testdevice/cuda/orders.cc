// Orders: what card it is to be, and what is to fail. They come from the environment
// (NST_PRETEND_CUDA: orders, with ; between them), from a file that is read again when it
// changes (NST_PRETEND_CUDA_ORDERS: an order a line), and by calls
// (nst_device_library_control). An order is a name and a number:
//
//   devices N, memory BYTES, context BYTES, capability 75, processors N, driver 13020,
//   count-error CODE, peers 0, integrated 1, workspace PERCENT, fused 1|0|-1, name TEXT
//   fault KIND CODE N     the N-th call of a kind from now fails; N = 0: none does
//   faults KIND CODE N    it, and all after it
//   read VALUE N          the next N small reads give a value
//   forget 1              kernels that were launched are to be loaded anew
//
// Kinds: launch, load (a kernel's first launch), later (a launch that is well, of which the
// next who waits is told), wait, copy, malloc, hostalloc, capture, instantiate, replay, cublas,
// cublascreate, cudnn, cudnncreate, plan, cusolver.
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "pretend.h"

namespace pretend {

std::recursive_mutex everything;

namespace {

struct Fault {
  std::string kind;
  int code;
  int64_t left;  // calls until it
  bool stays;
};

struct {
  Card card;
  std::vector<Fault> faults;
  double read = 0;
  int64_t reads = 0;
} state;

// Does an order; false: there is none of that name.
bool order(const std::string& line) {
  std::istringstream text(line);
  std::string name;
  if (!(text >> name)) return true;
  auto& card = state.card;
  const std::map<std::string, int*> numbers{
      {"devices", &card.devices},   {"capability", &card.capability},   {"processors", &card.processors},
      {"driver", &card.driver},     {"count-error", &card.count_error}, {"workspace", &card.workspace},
      {"fused", &card.fused}};
  const std::map<std::string, int64_t*> sizes{{"memory", &card.memory}, {"context", &card.context}};
  const std::map<std::string, bool*> flags{{"peers", &card.peers}, {"integrated", &card.integrated}};
  if (const auto found = numbers.find(name); found != numbers.end()) return bool(text >> *found->second);
  if (const auto found = sizes.find(name); found != sizes.end()) return bool(text >> *found->second);
  if (const auto found = flags.find(name); found != flags.end()) return bool(text >> *found->second);
  if (name == "name") return bool(std::getline(text >> std::ws, card.name));
  if (name == "forget") {
    forget_kernels();
    return true;
  }
  if (name == "read") return bool(text >> state.read >> state.reads);
  if (name == "fault" || name == "faults") {
    Fault fault{"", 0, 0, name == "faults"};
    if (!(text >> fault.kind >> fault.code >> fault.left)) return false;
    std::erase_if(state.faults, [&](const Fault& f) { return f.kind == fault.kind; });
    if (fault.left > 0) state.faults.push_back(fault);
    return true;
  }
  return false;
}

void orders(const std::string& text, char between) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line, between);)
    if (!order(line)) say("there is no order \"%s\"", line.c_str());
}

// Reads the file of orders, if it has changed; once a millisecond at most.
void look_at_file() {
  static const char* path = std::getenv("NST_PRETEND_CUDA_ORDERS");
  if (path == nullptr || *path == 0) return;
  static std::chrono::steady_clock::time_point last;
  const auto now = std::chrono::steady_clock::now();
  if (now - last < std::chrono::milliseconds(1)) return;
  last = now;
  static struct timespec changed{};
  struct stat s;
  if (stat(path, &s) != 0 || (s.st_mtim.tv_sec == changed.tv_sec && s.st_mtim.tv_nsec == changed.tv_nsec)) return;
  changed = s.st_mtim;
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  orders(text.str(), '\n');
}

}  // namespace

Card& card() {
  static const bool read = [] {
    if (const char* text = std::getenv("NST_PRETEND_CUDA")) orders(text, ';');
    return true;
  }();
  (void)read;
  look_at_file();
  return state.card;
}

bool fault(const char* kind, int* code) {
  Lock lock(everything);
  card();
  for (auto& f : state.faults) {
    if (f.kind != kind) continue;
    if (f.left > 1) {
      --f.left;
      continue;
    }
    if (f.left == 0 && !f.stays) continue;
    f.left = 0;
    *code = f.code;
    ++count(std::string("fault ") + kind).direct;
    return true;
  }
  return false;
}

bool read_as(double* value) {
  Lock lock(everything);
  card();
  if (state.reads <= 0) return false;
  --state.reads;
  *value = state.read;
  return true;
}

}  // namespace pretend

extern "C" const char* nst_device_library_control(const char* command, int64_t value, int64_t* result) {
  pretend::Lock lock(pretend::everything);
  pretend::card();
  const std::string name = command;
  if (name.rfind("count ", 0) == 0) {
    const auto& found = pretend::count(name.substr(6));
    *result = found.direct + found.replayed;
    return nullptr;
  }
  *result = 0;
  return pretend::order(name + " " + std::to_string(value)) ? nullptr : "the pretend CUDA knows no such order";
}
