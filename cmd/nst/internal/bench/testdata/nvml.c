/* A pretend NVML for the tests: one card at 00000000:65:00.0, whose counter grows by a joule
   each time that it is read, and whose clock falls from reading to reading. $PRETEND_DRIVER is
   the version of the driver. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory;
static int card, clocks;

int nvmlInit_v2(void) { return 0; }
const char *nvmlErrorString(int status) { return status == 3 ? "Not Supported" : "Unknown Error"; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  const char *chosen = getenv("PRETEND_DRIVER");
  strncpy(version, chosen ? chosen : "580.65.06", length);
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = &card;
  return index == 0 ? 0 : 2;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
  strncpy(name, "Pretend Card", length);
  return handle == &card ? 0 : 2;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  *major = 8, *minor = 6;
  return handle == &card ? 0 : 2;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) {
  *handle = &card;
  return strcmp(bus, "00000000:65:00.0") == 0 ? 0 : 6; /* not found */
}
int nvmlDeviceGetClockInfo(void *handle, unsigned kind, unsigned *mhz) {
  *mhz = kind == 1 ? 1900 - 10 * clocks++ : 10501;
  return handle == &card ? 0 : 2;
}
int nvmlDeviceGetMaxClockInfo(void *handle, unsigned kind, unsigned *mhz) {
  *mhz = kind == 1 ? 1980 : 10501;
  return handle == &card ? 0 : 2;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
  *milliwatts = 312500;
  return handle == &card ? 0 : 2;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
  static unsigned long long spent = 5000000;
  *millijoules = spent += 1000;
  return handle == &card ? 0 : 2;
}
int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *celsius) {
  *celsius = 61;
  return sensor == 0 && handle == &card ? 0 : 2;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
  *reasons = 0x1 | 0x4 | 0x40; /* idle, power cap, thermal */
  return handle == &card ? 0 : 2;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory *m) {
  m->total = 80ull << 30, m->used = 3ull << 30, m->free = 77ull << 30;
  return handle == &card ? 0 : 2;
}
/* nvmlDeviceGetEnforcedPowerLimit is of cards that have a limit: this one says no. */
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) { return 3; }
