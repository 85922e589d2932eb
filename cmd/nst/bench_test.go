package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/cmd/nst/internal/bench"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

func TestBench(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	chart := filepath.Join(t.TempDir(), "chart.svg")
	status, stdout, stderr := runNST(t, "bench", "--sizes", "32,64", "--batch", "1,2", "--iterations", "4", "--device",
		"cpu", "--json", "--chart", chart)
	require.Equal(t, exitDone, status, stderr)
	var got bench.Report
	require.NoError(t, bench.Validate([]byte(stdout)))
	require.NoError(t, json.Unmarshal([]byte(stdout), &got))
	assert.Equal(t, "fast", got.Precision)
	assert.Positive(t, got.Peak)
	require.Len(t, got.Results, 4)
	for i, r := range got.Results {
		assert.Equal(t, []int{32, 32, 64, 64}[i], r.Size)
		assert.Equal(t, []int{1, 2, 1, 2}[i], r.Batch)
		assert.InEpsilon(t, float64(r.Batch)/r.SecondsPerIteration, r.IterationsPerSecond, 1e-9)
		assert.LessOrEqual(t, r.Min, r.SecondsPerIteration)
		assert.Len(t, r.Burst.Seconds, 4, "every repetition is kept")
		for _, v := range []float64{r.Min, *r.GFLOPs, r.First, float64(r.PeakMemory), r.WarmUp.Seconds} {
			assert.Positive(t, v)
		}
	}
	// VGG-19's arithmetic at 224 pixels, to relu5_1, is 18.12 billion products
	// forward and as many back; the Gram matrices and their gradients are 0.873 each.
	assert.InEpsilon(t, 2*2*(18.12e9+0.873e9)*64*64/224/224,
		*got.Results[2].GFLOPs*1e9*got.Results[2].SecondsPerIteration, 1e-3)
	svg, err := os.ReadFile(chart)
	require.NoError(t, err)
	assert.Contains(t, string(svg), "<svg")
	assert.Contains(t, string(svg), "nst fast")

	script := filepath.Join(nsttest.Root(t), "scripts", "bench_pytorch.py")
	for _, c := range [][]string{
		{"--sizes", "--sizes", "0"}, {".svg", "--chart", "x.jpg"}, {"--python", "--peers", "--script", script,
			"--python", filepath.Join(t.TempDir(), "none")},
		{"--suite", "--suite", "mine"}, {"--suite", "--suite", "standard", "--tile", "64"}, {"--sustain", "--sustain",
			"-1s"},
		{"the folder of", "--chart", "nowhere/x.svg"}, {"--peer", "--peer", "torch", "--script", script, "--python",
			"false"},
		{"another-network.pt", "--model", "another-network.pt"}, {"--peers", "--peers", "--script", script, "--python",
			"false"}, {"--script", "--peers"},
	} {
		status, _, stderr = runNST(t, append([]string{"bench", "--sizes", "32", "--iterations", "1"}, c[1:]...)...)
		assert.Equal(t, exitUsage, status, stderr)
		assert.Contains(t, stderr, c[0])
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}
