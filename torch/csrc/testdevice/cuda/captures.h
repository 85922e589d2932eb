// What streams.cc and captures.cc know of each other.
#pragma once

#include "pretend.h"

namespace pretend {

// How much of each stream's recorded work comes before something.
using Clock = std::map<Stream*, int64_t>;

// captures.cc
cudaError_t record(Stream* stream, Work work);
// What a thread that captures must not send elsewhere.
cudaError_t may_send(Stream* stream, const char* call);
// What the host must not ask of an event that was recorded in a capture.
cudaError_t may_ask(int64_t capture, const char* call);
// Has a stream that captures, or begins to by this, wait for a recorded event.
cudaError_t join(Stream* stream, int64_t capture, const Clock& clock);
// The capture that a stream is in, and where it is there.
int64_t clock_of(Stream* stream, Clock* clock);

// streams.cc
cudaStream_t handle_of(Stream* stream);
Capture*& capture_of(Stream* stream);
bool blocking(const Stream* stream);
bool is_legacy_stream(const Stream* stream);
int device_of(const Stream* stream);

}  // namespace pretend
