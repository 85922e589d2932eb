package cudatest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// What a run takes of a device stays within its limit, but for CUDA's own context: also what the cache
// keeps, what the libraries take, and a recording.
func TestMemoryLimitIsKept(t *testing.T) {
	nsttest.Long(t)
	const context520 = 520 << 20 // bytes of the pretend CUDA's
	for _, workspace := range []int{0, 50} {
		for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
			for _, limit := range []int{300, 500, 800, 1500} {
				t.Run(fmt.Sprint(workspace, " ", optimizer, " ", limit), func(t *testing.T) {
					if inAnotherProcess(t, fmt.Sprint("workspace ", workspace)) {
						return
					}
					e, err := nst.Open(context.Background(), nsttest.Model(t), nst.OpenOptions{Device: "cuda"})
					require.NoError(t, err)
					defer e.Close()
					pictures := inputs(t, 1)
					_, err = e.Stylize(context.Background(), pictures[0].Content, pictures[0].Styles,
						nst.Options{Optimizer: optimizer, Size: new(1024), Iterations: new(5), Scales: nst.ScalesOff,
							MemoryLimit: nst.Bytes(limit << 20)}, nst.Hooks{})
					require.NoError(t, err)
					taken := clean(t)["memory taken at most, device 0"].direct - context520
					t.Logf("%d MiB of %d", taken>>20, limit)
					assert.LessOrEqual(t, taken>>20, int64(limit))
				})
			}
		}
	}
}
