/* A pretend NVIDIA driver for the tests (libcuda.so.1). It is for the CUDA of $PRETEND_CUDA
   (12020 is 12.2), and has no GPU to show. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

int cuInit(unsigned flags) { return 100; } /* no device */
int cuDriverGetVersion(int *version) {
  const char *chosen = getenv("PRETEND_CUDA");
  *version = chosen ? atoi(chosen) : 0;
  return 0;
}
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
  *function = dlsym(RTLD_DEFAULT, name);
  return *function ? 0 : 500; /* not found */
}
int cuGetExportTable(const void **table, const void *id) { return 500; }
