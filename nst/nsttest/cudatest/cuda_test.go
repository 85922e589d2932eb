package cudatest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/nsttest/features"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

func TestMain(m *testing.M) { nsttest.RunWithPretendCUDA(m, "devices 2") }

// order gives the pretend CUDA an order, until the test ends the orders that are given after it.
func order(t testing.TB, name string, value int64) {
	t.Helper()
	_, err := torch.ControlDevice(name, value)
	require.NoError(t, err)
}

// count is how often something was sent, or is done, and was replayed.
type count struct{ direct, recorded, replayed int64 }

// journal returns what the pretend CUDA was sent since the last time, by name, and what it
// says against it.
func journal(t testing.TB) (counts map[string]count, said string) {
	t.Helper()
	text, err := torch.DeviceJournal()
	require.NoError(t, err)
	lines, said, _ := strings.Cut(text, "\n\n")
	counts = map[string]count{}
	for line := range strings.Lines(lines) {
		var c count
		_, err := fmt.Sscan(line, &c.direct, &c.recorded, &c.replayed)
		require.NoError(t, err, line)
		counts[strings.TrimSpace(strings.SplitN(line, " ", 4)[3])] = c
	}
	return counts, said
}

// clean fails the test if a rule of CUDA's was broken since the last time.
func clean(t testing.TB) map[string]count {
	t.Helper()
	counts, said := journal(t)
	assert.Empty(t, said)
	return counts
}

// child has the name of the test that a process was started for.
const child = "NST_TEST_CUDA"

// inAnotherProcess runs the test that calls it in a process of its own, where the pretend CUDA has
// other orders: what libtorch asks of a device once, and a lost device, are a process's. It says
// whether this is the process that started the other, which has nothing else to do.
func inAnotherProcess(t *testing.T, orders ...string) bool {
	t.Helper()
	if os.Getenv(child) == t.Name() {
		return false
	}
	var pattern []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(part)+"$")
	}
	c := exec.Command("/proc/self/exe", "-test.run", strings.Join(pattern, "/"), "-test.v")
	c.Env = append(os.Environ(), child+"="+t.Name(), "NST_PRETEND_CUDA="+strings.Join(orders, ";"))
	out, err := c.CombinedOutput()
	assert.NoError(t, err, string(out))
	assert.Contains(t, string(out), "--- PASS: "+t.Name())
	return true
}

func open(t testing.TB, path string) *picture.Picture {
	t.Helper()
	p, err := picture.Open(path)
	require.NoError(t, err)
	return p
}

// engine opens one, with a small network, that is closed when the test ends.
func engine(t testing.TB, device string) *nst.Engine {
	t.Helper()
	e, err := nst.Open(context.Background(), nsttest.Slim(t), nst.OpenOptions{Device: device})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// inputs are the same two pictures, so many times.
func inputs(t testing.TB, n int) (all []nst.Input) {
	one := nst.Input{Content: open(t, nsttest.Demo(t, "content.png")),
		Styles: []*picture.Picture{open(t, nsttest.Demo(t, "style.png"))}}
	return slices.Repeat([]nst.Input{one}, n)
}

var precisions = []nst.Precision{nst.Fast, nst.TF32, nst.BF16, nst.Exact, nst.Double}

// Every feature, in each precision and with each optimiser, comes to its end without breaking a
// rule of CUDA's, and is recorded once and replayed, where that can be.
func TestEveryFeature(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cuda")
	const iterations = 6
	pictures := inputs(t, 3)
	ready := func(precision nst.Precision) { // the network's layers are looked at once
		_, err := e.Stylize(context.Background(), pictures[0].Content, pictures[0].Styles,
			nst.Options{Precision: precision, Size: new(48), Iterations: new(1)}, nst.Hooks{})
		require.NoError(t, err)
	}
	runs := 0
	clean(t)
	for name, feature := range features.All() {
		for _, precision := range precisions {
			for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
				if feature.Options.Precision != "" && precision != nst.Fast { // it has its own
					continue
				}
				what := fmt.Sprintf("%s %s %s", name, precision, optimizer)
				o := feature.Options
				o.Optimizer, o.Size, o.Iterations, o.Scales = optimizer, new(48), new(iterations), nst.ScalesOff
				if o.Precision == "" {
					o.Precision = precision
				}
				// Regions that no kernel computes are not to be empty; what solves for eigenvalues is not to fail.
				if o.StyleLoss != nst.WassersteinLoss {
					ready(o.Precision)
					order(t, "read 1", 1<<40)
				}
				var warnings []string
				made, err := e.StylizeBatch(context.Background(), pictures[:max(1, feature.Pictures)], o,
					nst.Hooks{Warn: func(message string) { warnings = append(warnings, message) }})
				require.NoError(t, err, what)
				order(t, "read 0", 0)
				counts := clean(t)
				replayed, captures := iterations-1, int64(1)
				if feature.Unrecorded {
					replayed, captures = 0, 0
				}
				assert.Equal(t, replayed, made[0].Replayed, what)
				assert.Equal(t, captures, counts["cudaStreamBeginCapture"].direct, what)
				assert.Empty(t, warnings, what)
				runs++
			}
		}
	}
	t.Logf("%d runs", runs)
}
