package cudatest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// fault is something that fails, and CUDA's or a library's code for how.
type fault struct {
	kind string
	code int
}

func (f fault) String() string { return fmt.Sprintf("fault %s %d", f.kind, f.code) }

// shortages are the ways in which CUDA and its libraries lack memory.
var shortages = []fault{{"malloc", 2}, {"load", 2}, {"launch", 2}, {"hostalloc", 2}, {"instantiate", 2}, {"replay", 2},
	{"cublas", 3}, {"cudnn", 4004}, {"plan", 4004}}

// positions are calls that are to fail, one at a time, of those that a run makes: a few at random,
// or all with NST_FAULTS=all. The first are among them.
func positions(random *rand.Rand) func(yield func(n int64) bool) {
	return func(yield func(n int64) bool) {
		for n := int64(1); ; n++ {
			if os.Getenv("NST_FAULTS") != "all" && n > 2 {
				n += random.Int64N(1 + n)
			}
			if !yield(n) {
				return
			}
		}
	}
}

// A single shortage of memory, wherever it comes, ends in a picture.
func TestOneShortage(t *testing.T) {
	nsttest.Long(t)
	model, pictures := nsttest.Slim(t), inputs(t, 1)
	random := rand.New(rand.NewPCG(nsttest.Seed(t), 0))
	for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
		for _, fault := range shortages {
			runs := 0
			for n := range positions(random) {
				_, _ = journal(t)
				order(t, "forget", 1) // kernels are loaded by each run
				order(t, fault.String(), n)
				var warnings []string
				err := func() error {
					e, err := nst.Open(context.Background(), model, nst.OpenOptions{Device: "cuda"})
					if err != nil {
						return fmt.Errorf("opening: %w", err)
					}
					defer e.Close()
					_, err = e.Stylize(context.Background(), pictures[0].Content, pictures[0].Styles,
						nst.Options{Optimizer: optimizer, Size: new(64), Iterations: new(4), Scales: nst.ScalesOff},
						nst.Hooks{Warn: func(message string) { warnings = append(warnings, message) }})
					return err
				}()
				order(t, fault.String(), 0)
				counts := clean(t)
				if counts["fault "+fault.kind].direct == 0 {
					break // the run makes fewer calls
				}
				runs++
				assert.NoError(t, err, "%s, the %s's call %d", optimizer, fault, n)
				for _, warning := range warnings { // a single one makes no smaller tiles
					assert.Contains(t, warning, "piece by piece", "%s, the %s's call %d", optimizer, fault, n)
				}
			}
			t.Logf("%s %s: %d runs", optimizer, fault, runs)
			assert.Equal(t, fault.kind != "hostalloc", runs > 0, "%s: page-locked memory is had once", fault)
		}
	}
}
