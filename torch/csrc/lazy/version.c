// libnstversion.so: what libtorch the libraries beside it were compiled with. It needs none
// of libtorch, so that a program knows before it loads one (lazy.c).
#include <torch/version.h>

const char* nst_compiled_version(void) { return TORCH_VERSION; }
