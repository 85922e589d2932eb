// Devices, their properties, errors, and what libtorch asks the driver for by name.
#include <cuda.h>

#include <atomic>
#include <cstdio>
#include <cstring>

#include "pretend.h"

#undef cudaGetDeviceProperties

namespace pretend {

int shared_opt_in();  // launches.cc

namespace {

thread_local int current = 0;
thread_local cudaError_t last = cudaSuccess;
bool contexts[kDevices];
int lost_by[kDevices], coming[kDevices];  // codes; 0: none

// After these CUDA wants a new process: the context is gone.
bool is_final(int code) {
  return code == 214 || code == 220 || code == 226 || code == 700 || code == 702 || (code >= 710 && code <= 721);
}

cudaError_t may_use(int d) {
  if (card().devices == 0) return fail(cudaErrorNoDevice);
  return d < 0 || d >= card().devices ? fail(cudaErrorInvalidDevice) : cudaSuccess;
}

struct Text {
  int code;
  const char *name, *text;
};
// As NVIDIA's documents have them.
constexpr Text kTexts[] = {
    {0, "cudaSuccess", "no error"},
    {1, "cudaErrorInvalidValue", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "out of memory"},
    {3, "cudaErrorInitializationError", "initialization error"},
    {9, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {35, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {46, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {98, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {209, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
    {214, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {220, "cudaErrorNvlinkUncorrectable", "uncorrectable NVLink error detected during the execution"},
    {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {600, "cudaErrorNotReady", "device not ready"},
    {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {701, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {702, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {704, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"},
    {710, "cudaErrorAssert", "device-side assert triggered"},
    {714, "cudaErrorHardwareStackError", "hardware stack error"},
    {715, "cudaErrorIllegalInstruction", "an illegal instruction was encountered"},
    {716, "cudaErrorMisalignedAddress", "misaligned address"},
    {717, "cudaErrorInvalidAddressSpace", "operation not supported on global/shared address space"},
    {718, "cudaErrorInvalidPc", "invalid program counter"},
    {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {721, "cudaErrorContained", "Invalid access of peer GPU memory over nvlink or a hardware error"},
    {801, "cudaErrorNotSupported", "operation not supported"},
    {802, "cudaErrorSystemNotReady", "system not yet initialized"},
    {803, "cudaErrorSystemDriverMismatch", "system has unsupported display driver / cuda driver combination"},
    {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {902, "cudaErrorStreamCaptureMerge", "operation would result in a merge of separate capture sequences"},
    {903, "cudaErrorStreamCaptureUnmatched", "capture was not ended in the same stream as it began"},
    {904, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {905, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {906, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {908, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {999, "cudaErrorUnknown", "unknown error"}};

const Text* find_text(int code) {
  for (const auto& t : kTexts)
    if (t.code == code) return &t;
  return nullptr;
}

}  // namespace

int device() { return current; }

void use_device() { contexts[current] = true; }

cudaError_t fail(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}

cudaError_t fail(int code) {
  if (is_final(code)) lost_by[current] = code;
  return fail(static_cast<cudaError_t>(code));
}

cudaError_t lost() { return lost(current); }

cudaError_t lost(int of) { return lost_by[of] != 0 ? fail(static_cast<cudaError_t>(lost_by[of])) : cudaSuccess; }

void lose_later(int code) { coming[current] = code; }

cudaError_t outcome() {
  publish();
  if (coming[current] != 0) return fail(std::exchange(coming[current], 0));
  return lost();
}

}  // namespace pretend

using namespace pretend;

extern "C" {

cudaError_t cudaDriverGetVersion(int* version) {
  *version = card().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (card().driver < CUDART_VERSION / 1000 * 1000) return fail(cudaErrorInsufficientDriver);
  if (card().count_error != 0) return fail(static_cast<cudaError_t>(card().count_error));
  *count = card().devices;
  return card().devices == 0 ? fail(cudaErrorNoDevice) : cudaSuccess;
}

cudaError_t cudaGetDevice(int* d) {
  TRY(may_use(current));
  *d = current;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int d) {
  TRY(may_use(d));
  Lock lock(everything);
  current = d;
  use_device();
  return lost();
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int d) {
  TRY(may_use(d));
  const auto& c = card();
  *p = {};
  std::snprintf(p->name, sizeof p->name, "%s", c.name.c_str());
  for (int i = 0; i < 16; i++) p->uuid.bytes[i] = static_cast<char>(i * 7 + d);
  p->totalGlobalMem = c.memory;
  p->sharedMemPerBlock = 48 << 10;
  p->sharedMemPerBlockOptin = shared_opt_in();
  p->sharedMemPerMultiprocessor = shared_opt_in() + 1024;
  p->reservedSharedMemPerBlock = 1024;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->memPitch = 0x7fffffff;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = c.capability / 10;
  p->minor = c.capability % 10;
  p->textureAlignment = 512;
  p->multiProcessorCount = c.processors;
  p->maxThreadsPerMultiProcessor = c.capability == 75 ? 1024 : 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = p->managedMemory = p->cooperativeLaunch = 1;
  p->streamPrioritiesSupported = p->memoryPoolsSupported = 1;
  p->integrated = c.integrated;
  p->pciBusID = 0x10 + d;
  p->asyncEngineCount = 3;
  p->memoryBusWidth = 5120;
  p->l2CacheSize = 50 << 20;
  p->clusterLaunch = c.capability >= 90;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* p, int d) { return cudaGetDeviceProperties(p, d); }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int d) {
  cudaDeviceProp p;
  TRY(cudaGetDeviceProperties(&p, d));
  const std::map<int, int> values{
      {cudaDevAttrMaxThreadsPerBlock, p.maxThreadsPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlock, static_cast<int>(p.sharedMemPerBlock)},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(p.sharedMemPerBlockOptin)},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, static_cast<int>(p.sharedMemPerMultiprocessor)},
      {cudaDevAttrMultiProcessorCount, p.multiProcessorCount},
      {cudaDevAttrComputeCapabilityMajor, p.major},
      {cudaDevAttrComputeCapabilityMinor, p.minor},
      {cudaDevAttrWarpSize, p.warpSize},
      {cudaDevAttrMaxThreadsPerMultiProcessor, p.maxThreadsPerMultiProcessor},
      {cudaDevAttrMaxRegistersPerBlock, p.regsPerBlock},
      {cudaDevAttrMaxRegistersPerMultiprocessor, p.regsPerMultiprocessor},
      {cudaDevAttrMaxBlocksPerMultiprocessor, p.maxBlocksPerMultiProcessor},
      {cudaDevAttrL2CacheSize, p.l2CacheSize},
      {cudaDevAttrMaxGridDimX, p.maxGridSize[0]},
      {cudaDevAttrMaxGridDimY, p.maxGridSize[1]},
      {cudaDevAttrMaxGridDimZ, p.maxGridSize[2]},
      {cudaDevAttrMaxBlockDimX, p.maxThreadsDim[0]},
      {cudaDevAttrMaxBlockDimY, p.maxThreadsDim[1]},
      {cudaDevAttrMaxBlockDimZ, p.maxThreadsDim[2]},
      {cudaDevAttrClockRate, 1980000},
      {cudaDevAttrMemoryClockRate, 2619000},
      {cudaDevAttrGlobalMemoryBusWidth, p.memoryBusWidth},
      {cudaDevAttrIntegrated, p.integrated},
      {cudaDevAttrCooperativeLaunch, 1},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrManagedMemory, 1},
      {cudaDevAttrMemoryPoolsSupported, 1}};
  const auto found = values.find(attribute);
  if (found == values.end()) say("cudaDeviceGetAttribute %d is taken for 0", static_cast<int>(attribute));
  *value = found == values.end() ? 0 : found->second;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int d) {
  TRY(may_use(d));
  std::snprintf(text, length, "0000:%02X:00.0", 0x10 + d);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  CALL;
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int a, int b) {
  *can = a != b && card().peers;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int d, unsigned) {
  CALL;
  static bool enabled[kDevices][kDevices];
  if (!card().peers) return fail(cudaErrorPeerAccessUnsupported);
  return std::exchange(enabled[current][d], true) ? fail(cudaErrorPeerAccessAlreadyEnabled) : cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int d) {
  TRY(may_use(d));
  *pool = reinterpret_cast<cudaMemPool_t>(static_cast<uintptr_t>(d + 1));
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  TRY(lost());
  return std::exchange(last, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  TRY(lost());
  return last;
}
const char* cudaGetErrorString(cudaError_t e) {
  const auto* t = find_text(e);
  return t != nullptr ? t->text : "unrecognized error code";
}
const char* cudaGetErrorName(cudaError_t e) {
  const auto* t = find_text(e);
  return t != nullptr ? t->name : "unrecognized error code";
}

// The driver's functions, of which libtorch asks for some by name; pretend_driver is made by stubs.cmake.
void* pretend_driver(const char* name);
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  *function = pretend_driver(name);
  const bool is = *function != nullptr;
  if (found != nullptr) *found = is ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return is ? cudaSuccess : fail(cudaErrorSymbolNotFound);
}

CUresult cuLogsRegisterCallback(CUlogsCallback, void*, CUlogsCallbackHandle* handle) {
  if (handle != nullptr) *handle = reinterpret_cast<CUlogsCallbackHandle>(1);
  return CUDA_SUCCESS;
}
CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle) { return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxGetState(CUdevice d, unsigned* flags, int* active) {
  *flags = 0;
  *active = d >= 0 && d < kDevices && contexts[d];
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult e, const char** text) {
  *text = cudaGetErrorString(static_cast<cudaError_t>(e));
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* d, int ordinal) {
  *d = ordinal;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice d) {
  return static_cast<CUresult>(cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), d));
}
CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = contexts[current] ? reinterpret_cast<CUcontext>(static_cast<uintptr_t>(current + 1)) : nullptr;
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
  if (context != nullptr) current = static_cast<int>(reinterpret_cast<uintptr_t>(context)) - 1;
  return CUDA_SUCCESS;
}

}  // extern "C"
