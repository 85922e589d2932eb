// What has happened: counts, violations, and what stubs were called.
//
// Violations are kept, and written at once to the file that NST_PRETEND_CUDA_JOURNAL names, as
// are the counts: they are a mapping of the file PATH.counts.PID, a line each, since a Go program
// ends without telling its libraries.
#include <cxxabi.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <regex>
#include <unordered_map>

#include "pretend.h"

namespace pretend {

namespace {

struct Line {
  char text[256];
};
constexpr size_t kLines = 4096;

const char* path() {
  const char* p = std::getenv("NST_PRETEND_CUDA_JOURNAL");
  return p != nullptr && *p != 0 ? p : nullptr;
}

Line* lines() {
  static Line* mapped = [] {
    void* m = MAP_FAILED;
    if (path() != nullptr) {
      const auto name = std::string(path()) + ".counts." + std::to_string(getpid());
      const int file = open(name.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
      if (file >= 0 && ftruncate(file, sizeof(Line) * kLines) == 0)
        m = mmap(nullptr, sizeof(Line) * kLines, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
      if (file >= 0) close(file);
    }
    return m == MAP_FAILED ? nullptr : static_cast<Line*>(m);
  }();
  return mapped;
}

struct Counted : Count {
  Line* line = nullptr;
  std::string name;
};
std::unordered_map<std::string, Counted>& counted() {
  static auto* all = new std::unordered_map<std::string, Counted>;
  return *all;
}

std::string& kept() {
  static auto* text = new std::string;
  return *text;
}

void write_down(const char* kind, const char* format, va_list list) {
  char text[2000];
  int length = std::snprintf(text, sizeof text, "%s", kind);
  length += std::vsnprintf(text + length, sizeof text - length - 1, format, list);
  length = std::min<int>(length, sizeof text - 2);
  text[length++] = '\n';
  Lock lock(everything);
  kept().append(text, length);
  static const int file = path() ? open(path(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
  if (file >= 0) (void)!write(file, text, length);
}

}  // namespace

// The counts in the file are those of the last time that anything was counted.
void publish() {
  if (lines() == nullptr) return;
  static size_t used = 0;
  for (auto& [name, c] : counted()) {
    if (c.line == nullptr) {
      if (used == kLines) continue;
      c.line = &lines()[used++];
    }
    char text[sizeof(Line)];
    std::memset(text, ' ', sizeof text);
    const int length = std::snprintf(text, sizeof text - 1, "%12ld %12ld %12ld %s", c.direct, c.recorded, c.replayed,
                                     name.c_str());
    text[std::min<int>(length, sizeof text - 2)] = ' ';
    text[sizeof text - 1] = '\n';
    std::memcpy(c.line->text, text, sizeof text);
  }
}

Count& count(const std::string& name) {
  Lock lock(everything);
  return counted()[name];
}

void most(const std::string& name, int64_t value) {
  auto& c = count(name);
  c.direct = std::max(c.direct, value);
}

void say(const char* format, ...) {
  va_list list;
  va_start(list, format);
  write_down("", format, list);
  va_end(list);
}

void violation(const char* format, ...) {
  va_list list;
  va_start(list, format);
  write_down("VIOLATION ", format, list);
  va_end(list);
}

}  // namespace pretend

// What a stub says: libtorch calls what is not here.
extern "C" void pretend_missing(const char* name) { pretend::violation("%s is called, which is not pretended", name); }

// The counts, a line each ("direct recorded replayed name"), and then what was said, since the last time.
extern "C" const char* nst_device_library_journal() {
  using namespace pretend;
  Lock lock(everything);
  static std::string text;
  text.clear();
  for (auto& [name, c] : counted()) {
    for (const auto n : {c.direct, c.recorded, c.replayed}) text += std::to_string(n) + " ";
    text += name + "\n";
    static_cast<Count&>(c) = {};
  }
  text += "\n" + kept();
  kept().clear();
  return text.c_str();
}
