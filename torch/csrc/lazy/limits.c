// What the program nst cannot live with, said in a line before Go's runtime, which would end with
// a trace: too few addresses (ulimit -v), too few threads (ulimit -u, a container's pids). Other
// programs that use the package are left alone.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { kMiB = 1 << 20, kLeastMiB = 1024, kMostThreads = 48 };

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static void* wait(void* unused) {
  pthread_mutex_lock(&held);
  pthread_mutex_unlock(&held);
  return unused;
}

// How many threads can be started at once, up to so many.
static int startable(int wanted) {
  pthread_t threads[kMostThreads];
  pthread_attr_t small;
  int count = 0;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 << 10);
  pthread_mutex_lock(&held);
  while (count < wanted && pthread_create(&threads[count], &small, wait, NULL) == 0) count++;
  pthread_mutex_unlock(&held);
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  pthread_attr_destroy(&small);
  return count;
}

// Whether the command is one that starts libtorch's threads: the others may be where there is room for
// few, such as a probe of a container's readiness.
static int computes(void) {
  static const char* const commands[] = {"stylize", "texture", "batch", "video", "bench", "check", "worker", "serve"};
  char text[4096];
  FILE* file = fopen("/proc/self/cmdline", "r");
  if (file == NULL) return 0;
  const size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = 0;
  for (size_t at = strlen(text) + 1; at < length; at += strlen(text + at) + 1) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
      if (strcmp(text + at, commands[i]) == 0) return 1;
    }
    if (text[at] != '-') return 0;  // another command
  }
  return 0;
}

void nst_check_limits(void);
void nst_check_limits(void) {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = 0;
  const char* name = strrchr(path, '/');
  if (name == NULL || strcmp(name, "/nst") != 0 || getenv("NST_DECODES") != NULL) return; // counted for it
  struct rlimit addresses;
  if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur / kMiB < kLeastMiB) {
    fprintf(stderr, "nst: the limit of addresses (ulimit -v) is %llu MiB; 4096 or more will do\n",
            (unsigned long long)(addresses.rlim_cur / kMiB));
    _exit(2);
  }
  if (!computes()) return;
  // Of this program and of one that decodes for it: Go's, and libtorch's, one for each processor.
  long wanted = 28 + 2 * sysconf(_SC_NPROCESSORS_ONLN);
  if (wanted > kMostThreads) wanted = kMostThreads;
  const int threads = startable((int)wanted);
  if (threads < wanted) {
    fprintf(stderr, "nst: %d more threads can be started, and %ld are needed: allow more processes (ulimit -u, or a "
            "container's limit of pids)\n", threads, wanted);
    _exit(2);
  }
}
