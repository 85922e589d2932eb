// Loads libnsttorch.so and libcgotorch.so, and libtorch with them, when one of their
// functions is called for the first time: what does not compute (help, a service's API)
// starts at once and has none of libtorch's 150 MB.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

// Of each function: where its address is kept, which is at first that of what loads it,
// and its name. See stubs.S.
struct entry {
  void** slot;
  const char* name;
};
extern struct entry nst_lazy_begin[], nst_lazy_end[];

// See limits.c; here, since what nothing refers to is not linked.
void nst_check_limits(void);
__attribute__((constructor)) static void check_limits(void) { nst_check_limits(); }

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char failure[4096]; // why they cannot be loaded; empty: they were

static void fail(void) {
  const char* why = dlerror();
  snprintf(failure, sizeof failure, "%s", why != NULL ? why : "a function is not in them");
}

// Of a function that has no way to say so: whoever asks nst_load first is told.
static void end(void) {
  fprintf(stderr, "nst: libtorch cannot be loaded: %s\n", failure);
  exit(1);
}

// OpenMP's threads spin while they wait for each other, by default for some milliseconds:
// beside any other work that wants the cores they then take most of the time from it and
// from each other (two transfers at once on two cores took 18.7 s in place of 6.0). That
// they spin briefly costs 1.5 % at 128 pixels, and nothing measurable at 256. It is read
// when OpenMP is loaded.
static void spin_briefly(void) {
  if (getenv("OMP_WAIT_POLICY") == NULL) setenv("GOMP_SPINCOUNT", "5000", 0);
}

// What libnsttorch.so needs of libtorch is what is loaded already under that name: so it
// can be of another folder than the one that the loader would find (torch.UseLibtorch).
static int load_libtorch(void) {
  static const char* const names[] = {"libc10.so", "libtorch_cpu.so"};
  const char* folder = getenv("NST_LIBTORCH");
  char path[4096];
  if (folder == NULL || folder[0] == 0) return 1;
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    if (dlopen(path, RTLD_NOW | RTLD_GLOBAL) == NULL) return 0;
  }
  return 1;
}

// The version that the libraries were compiled with, which loads none of them. It is not
// this file's own: a program that is packed runs with libraries compiled anew.
const char* nst_version(void) {
  void* library = dlopen("libnstversion.so", RTLD_NOW);
  const char* (*version)(void) = NULL;
  if (library != NULL) *(void**)&version = dlsym(library, "nst_compiled_version");
  return version == NULL ? "unknown" : version();
}

static void load(void) {
  spin_briefly();
  if (!load_libtorch()) {
    fail();
    return;
  }
  static const char* const names[] = {"libcgotorch.so", "libnsttorch.so"};
  void* libraries[2];
  for (int i = 0; i < 2; i++) {
    libraries[i] = dlopen(names[i], RTLD_NOW | RTLD_GLOBAL);
    if (libraries[i] == NULL) {
      fail();
      return;
    }
  }
  for (struct entry* e = nst_lazy_begin; e < nst_lazy_end; e++) {
    void* f = dlsym(libraries[1], e->name);
    if (f == NULL) f = dlsym(libraries[0], e->name);
    if (f == NULL) {
      fail();
      return;
    }
    __atomic_store_n(e->slot, f, __ATOMIC_RELEASE);
  }
}

const char* nst_load(void) {
  pthread_once(&once, load);
  return failure[0] != 0 ? failure : NULL;
}

// nst_lazy_resolve is called by a function's stub, the arguments being saved.
void* nst_lazy_resolve(void** slot) {
  if (nst_load() != NULL) end();
  return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}
