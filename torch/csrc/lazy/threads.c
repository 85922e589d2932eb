// gotorch's package initialisation asks for half as many threads as there are cores: half
// of them would idle, and on one core libtorch refuses none by an exception that nobody
// catches. libtorch's own default is one for each core, or OMP_NUM_THREADS; that stays,
// and nothing is loaded to say so.
#undef SetNumThreads
#include <stdint.h>

void SetNumThreads(int32_t n) { (void)n; }
