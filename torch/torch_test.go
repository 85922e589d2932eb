package torch_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/ebitengine/purego"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/wangkuiyi/gotorch"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/torch"
)

func TestMain(m *testing.M) { nsttest.RunWithPretend(m) }

// scoped runs numeric code that must succeed.
func scoped(t *testing.T, f func()) {
	t.Helper()
	require.NoError(t, torch.Scoped(func() error { f(); return nil }))
}

// ---- Scopes

func TestScopeReleasesHoweverItEnds(t *testing.T) {
	own := errors.New("own")
	work := func() torch.Tensor {
		a := torch.Full(2, torch.CPU, 3, 3)
		return torch.Add(torch.MM(a, a), a)
	}
	for name, c := range map[string]struct {
		f     func() error
		check func(t *testing.T, err error)
	}{
		"success": {func() error { work(); return nil }, func(t *testing.T, err error) { assert.NoError(t, err) }},
		"error":   {func() error { work(); return own }, func(t *testing.T, err error) { assert.ErrorIs(t, err, own) }},
		"libtorch error": {func() error { torch.MM(work(), torch.Full(1, torch.CPU, 2, 2)); return nil },
			func(t *testing.T, err error) {
				var e *torch.Error
				require.ErrorAs(t, err, &e)
				assert.Equal(t, "mm", e.Op)
			}},
		"gotorch panic": {func() error { a := work(); gotorch.MM(a, torch.Full(1, torch.CPU, 2)); return nil },
			func(t *testing.T, err error) {
				var e *torch.Error
				require.ErrorAs(t, err, &e)
				assert.NotContains(t, err.Error(), "frame #", "no C++ stack")
			}},
		"nested": {func() error {
			work()
			return torch.Scoped(func() error { work(); return own })
		}, func(t *testing.T, err error) { assert.ErrorIs(t, err, own) }},
	} {
		t.Run(name, func(t *testing.T) {
			before := torch.Live()
			c.check(t, torch.Scoped(c.f))
			assert.Equal(t, before, torch.Live())
		})
	}
	t.Run("a panic of other code goes on", func(t *testing.T) {
		before := torch.Live()
		assert.PanicsWithValue(t, 42, func() { _ = torch.Scoped(func() error { work(); panic(42) }) })
		assert.Equal(t, before, torch.Live())
	})
}

func TestKeepAndClose(t *testing.T) {
	before := torch.Live()
	var kept, inner torch.Tensor
	require.NoError(t, torch.Scoped(func() error {
		kept = torch.Keep(torch.Full(7, torch.CPU, 2))
		return torch.Scoped(func() error {
			inner = torch.Full(1, torch.CPU)
			return nil
		})
	}))
	assert.Equal(t, before+1, torch.Live())
	scoped(t, func() { assert.Equal(t, []float32{7, 7}, torch.Floats(kept)) })

	err := torch.Scoped(func() error { torch.Add(inner, inner); return nil })
	assert.ErrorContains(t, err, "closed", "a tensor of a scope that has ended")
	torch.Close(kept, kept, torch.Tensor{})
	assert.Equal(t, before, torch.Live())
	assert.ErrorContains(t, torch.Scoped(func() error { torch.Floats(kept); return nil }), "closed")
}

func TestForgottenTensorsAreCollected(t *testing.T) {
	before := torch.Live()
	scoped(t, func() { torch.Keep(torch.Full(1, torch.CPU, 10)) })
	require.Eventually(t, func() bool { runtime.GC(); return torch.Live() == before }, 5e9, 1e7)
}

// residentBytes is the process's memory now.
func residentBytes(t *testing.T) int64 {
	m, err := torch.MemoryOf(torch.CPU)
	require.NoError(t, err)
	require.Positive(t, m.Peak)
	return m.Allocated
}

func TestMemoryIsFlatOverThousandsOfIterations(t *testing.T) {
	iterate := func(n int) {
		scoped(t, func() {
			x := torch.Full(0.5, torch.CPU, 64, 64)
			torch.RequireGrad(x, true)
			adam := torch.NewAdam(x, 0.01, 0.9, 0.999, 1e-8)
			defer adam.Close()
			for range n {
				scoped(t, func() {
					torch.ClearGradient(x)
					torch.Backward([]torch.Tensor{torch.Sum(torch.Pow(torch.MM(x, x), 2))}, nil)
					adam.Step(torch.Gradient(x))
				})
			}
		})
	}
	iterate(500) // pools and arenas fill
	before := residentBytes(t)
	iterate(3000)
	// One leaked 64×64 tensor an iteration would be 49 MB.
	assert.Less(t, residentBytes(t)-before, int64(4<<20))
}

// ---- Errors

func TestExceptionsAreErrors(t *testing.T) {
	for name, c := range map[string]struct {
		f    func()
		part string
	}{
		"backward without a graph": {func() { torch.Backward([]torch.Tensor{torch.Full(1, torch.CPU)}, nil) },
			"does not require grad"},
		"backward twice": {func() {
			x := torch.Full(1, torch.CPU, 2)
			torch.RequireGrad(x, true)
			y := torch.Sum(torch.Pow(x, 2))
			torch.Backward([]torch.Tensor{y}, nil)
			torch.Backward([]torch.Tensor{y}, nil)
		}, "backward through the graph a second time"},
		"a gradient of another shape": {func() {
			x := torch.Full(1, torch.CPU, 2)
			torch.RequireGrad(x, true)
			torch.Backward([]torch.Tensor{torch.Pow(x, 2)}, []torch.Tensor{torch.Full(1, torch.CPU, 3)})
		}, "shape"},
		"L-BFGS of what is no picture in row order": {func() {
			torch.NewLBFGS(torch.ChannelsLast(torch.Full(1, torch.CPU, 1, 3, 4, 4)), 1, 5, 0.1, 1, torch.Wrap{})
		}, "row order"},
		"a step by a gradient of another shape": {func() {
			lbfgs := torch.NewLBFGS(torch.Full(1, torch.CPU, 1, 3, 4, 4), 1, 5, 0.1, 1, torch.Wrap{})
			defer lbfgs.Close()
			lbfgs.Step(torch.Full(1, torch.CPU, 1, 3, 4, 5))
		}, "shape"},
		"data that do not fit": {func() { torch.FromFloats([]float32{1, 2, 3}, torch.CPU, 2, 2) }, "do not fit"},
		"a closed optimiser": {func() {
			x := torch.Full(1, torch.CPU, 2)
			adam := torch.NewAdam(x, 0.1, 0.9, 0.999, 1e-8)
			adam.Close()
			adam.Close()
			adam.Step(x)
		}, "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			before := torch.Live()
			err := torch.Scoped(func() error { c.f(); return nil })
			var e *torch.Error
			require.ErrorAs(t, err, &e)
			assert.Contains(t, e.Message, c.part)
			assert.NotContains(t, e.Message, "frame #")
			assert.Equal(t, before, torch.Live())
		})
	}
}

func TestOutOfMemory(t *testing.T) {
	const petabyte = 1 << 48 // of float32
	for name, f := range map[string]func(){
		"shim":    func() { torch.Full(0, torch.CPU, petabyte) },
		"gotorch": func() { torch.Join(gotorch.Full([]int64{petabyte}, 0, false)) },
	} {
		t.Run(name, func(t *testing.T) {
			err := torch.Scoped(func() error { f(); return nil })
			assert.ErrorIs(t, err, torch.ErrOutOfMemory)
		})
	}
	assert.NotErrorIs(t, torch.Scoped(func() error { torch.Floats(torch.Tensor{}); return nil }), torch.ErrOutOfMemory)
}

// ---- TorchScript

func newModule(t *testing.T, source string) *torch.Module {
	m, err := torch.NewModule("Test")
	require.NoError(t, err)
	t.Cleanup(m.Close)
	require.NoError(t, m.AddString("mode", "one"))
	scoped(t, func() {
		require.NoError(t, m.AddParameter("w", torch.Full(3, torch.CPU, 2)))
		require.NoError(t, m.AddBuffer("b", torch.Full(1, torch.CPU, 2)))
	})
	require.NoError(t, m.Define(source))
	path := filepath.Join(t.TempDir(), "m.pt")
	require.NoError(t, m.Save(path))
	loaded, err := torch.LoadModule(path, torch.CPU)
	require.NoError(t, err)
	t.Cleanup(loaded.Close)
	return loaded
}

const twice = `
def forward(self, image: Tensor, layers: List[str]) -> List[Tensor]:
    assert "bad" not in layers, "no layer bad"
    x = image * self.w + self.b
    if self.mode == "two":
        x = x * 2
    return [x for layer in layers]
`

func TestModule(t *testing.T) {
	m := newModule(t, twice)
	before := torch.Live()
	scoped(t, func() {
		x := torch.FromFloats([]float32{1, 2}, torch.CPU, 2)
		torch.RequireGrad(x, true)
		out := m.Forward(x, []string{"a", "b"})
		require.Len(t, out, 2)
		assert.Equal(t, []float32{4, 7}, torch.Floats(torch.Detach(out[1])))
		torch.Backward(out, []torch.Tensor{torch.Full(1, torch.CPU, 2), torch.Full(2, torch.CPU, 2)})
		assert.Equal(t, []float32{9, 9}, torch.Floats(torch.Gradient(x)))

		require.NoError(t, m.SetAttribute("mode", "two"))
		assert.Equal(t, []float32{8, 14}, torch.Floats(torch.Detach(m.Forward(x, []string{"a"})[0])))
		assert.Equal(t, []float32{3, 3}, torch.Floats(m.Parameter("w")))
		assert.Nil(t, m.Forward(x, nil))
	})
	assert.Equal(t, before, torch.Live())
	mode, ok, err := m.Attribute("mode")
	require.NoError(t, err)
	assert.True(t, ok)
	assert.Equal(t, "two", mode)
	_, ok, err = m.Attribute("none")
	require.NoError(t, err)
	assert.False(t, ok)
	names, err := m.Parameters()
	require.NoError(t, err)
	assert.Equal(t, []string{"w", "b"}, names)
	schema, err := m.Schema("forward")
	require.NoError(t, err)
	assert.Contains(t, schema, "Tensor image, str[] layers) -> Tensor[]")
}

func TestModuleErrors(t *testing.T) {
	m := newModule(t, twice)
	before := torch.Live()
	err := torch.Scoped(func() error {
		m.Forward(torch.Full(1, torch.CPU, 2), []string{"bad"})
		return nil
	})
	require.ErrorContains(t, err, "no layer bad")
	assert.NotContains(t, err.Error(), "Traceback", "libtorch's message alone")
	err = torch.Scoped(func() error {
		m.Forward(torch.Full(1, torch.CPU, 5), []string{"a"})
		return nil
	})
	require.ErrorContains(t, err, "must match the size")
	assert.Equal(t, before, torch.Live())

	_, err = torch.LoadModule(filepath.Join(t.TempDir(), "none.pt"), torch.CPU)
	assert.Error(t, err)
	text := filepath.Join(t.TempDir(), "text.pt")
	require.NoError(t, os.WriteFile(text, []byte("no TorchScript"), 0o600))
	_, err = torch.LoadModule(text, torch.CPU)
	assert.Error(t, err)
	empty, err := torch.NewModule("Empty")
	require.NoError(t, err)
	assert.Error(t, empty.Define("def forward(self: no syntax"))
	empty.Close()
	empty.Close()
	assert.ErrorContains(t, empty.Define("x"), "closed")
}

// ---- Threads

// osThreads counts the process's threads.
func osThreads(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(entries)
}

func TestOneThreadServesManyGoroutines(t *testing.T) {
	thread := torch.StartThread(torch.CPU)
	defer thread.Close()
	work := func() error {
		a := torch.Full(1.5, torch.CPU, 256, 256)
		torch.MM(a, a) // large enough for OpenMP to share
		return nil
	}
	all := func() {
		var wait sync.WaitGroup
		for range 64 {
			wait.Go(func() { assert.NoError(t, thread.Do(context.Background(), work)) })
		}
		wait.Wait()
	}
	for range 5 {
		all() // Go's own threads and the OpenMP pool are there after this
	}
	before, live := osThreads(t), torch.Live()
	for range 10 {
		all()
	}
	// Go's scheduler may add a thread of its own now and then. A goroutine that
	// called libtorch from where it happens to run would add a pool for each.
	assert.LessOrEqual(t, osThreads(t), before+2)
	assert.Equal(t, live, torch.Live())
}

func TestThread(t *testing.T) {
	thread := torch.StartThread(torch.CPU)
	ctx := context.Background()
	own := errors.New("own")
	assert.ErrorIs(t, thread.Do(ctx, func() error { return own }), own)
	assert.NoError(t, thread.Do(ctx, func() error {
		return thread.Do(ctx, func() error { return nil }) // no deadlock
	}))

	before := torch.Live()
	func() {
		defer func() {
			p, ok := recover().(*torch.ThreadPanic)
			require.True(t, ok)
			assert.Equal(t, "boom", p.Value.(error).Error())
			assert.Contains(t, string(p.Stack), "TestThread", "the stack of the thread")
		}()
		_ = thread.Do(ctx, func() error { torch.Full(1, torch.CPU, 9); panic(errors.New("boom")) })
	}()
	assert.Equal(t, before, torch.Live())
	assert.ErrorContains(t, thread.Do(ctx, func() error { runtime.Goexit(); return nil }), "ended")
	assert.NoError(t, thread.Do(ctx, func() error { return nil }), "the thread goes on")

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	assert.ErrorIs(t, thread.Do(cancelled, func() error { return nil }), context.Canceled)
	thread.Close()
	thread.Close()
	assert.ErrorIs(t, thread.Do(ctx, func() error { return nil }), torch.ErrThreadClosed)
}

// ---- Devices

func TestParseDevice(t *testing.T) {
	d, err := torch.ParseDevice("cpu")
	require.NoError(t, err)
	assert.Equal(t, torch.CPU, d)
	for _, name := range []string{"", "tpu", "cpu:x", "cuda:-1", "cuda:x", ":1", "cpu:1"} {
		_, err := torch.ParseDevice(name)
		assert.ErrorIs(t, err, torch.ErrDevice, name)
	}
	if torch.HasNVIDIADriver() {
		return // what follows is about a machine without a GPU
	}
	_, err = torch.ParseDevice("cuda")
	require.ErrorIs(t, err, torch.ErrDevice)
	// scripts/test --cuda has fetched CUDA's libraries: libtorch_cuda.so and
	// libnstcuda.so load, every symbol is found, and it is the driver that is missing.
	if os.Getenv("NST_CUDA") != "" {
		assert.ErrorContains(t, err, "there is no NVIDIA driver")
		// libtorch loads this one when it first needs it, for eigenvalues (--style-loss w2).
		folder, err := torch.LibraryFolder()
		require.NoError(t, err)
		_, err = purego.Dlopen(filepath.Join(folder, "libtorch_cuda_linalg.so"), purego.RTLD_NOW)
		assert.NoError(t, err)
	} else {
		assert.Regexp(t, "there is no NVIDIA driver|libtorch's CUDA library cannot be loaded", err.Error())
	}
	// An operation sent to a GPU that is not there is an error, not the process's end.
	assert.Error(t, torch.Scoped(func() error { torch.Full(1, "cuda:0", 1); return nil }))
	_, err = torch.Record("cuda:0", func() {})
	assert.Error(t, err)
	auto, err := torch.ParseDevice("auto")
	require.NoError(t, err)
	assert.Equal(t, torch.CPU, auto)
}

// A card that libtorch has no code for says so at its first kernel, when the device is
// readied; what else fails there is left as it is.
func TestParseDeviceTriesTheCard(t *testing.T) {
	order := func(command string, value int64) {
		_, err := torch.ControlDevice(command, value)
		require.NoError(t, err)
	}
	defer order("fault-kind", 0)
	for kind, want := range map[int64]string{
		0: "no such device: pretend:0: the fault ordered for this operation, aten::fill_.Scalar",
		8: "no such device: pretend:0: this card is older or newer than the cards that libtorch " + torch.Version() +
			" has code for; a Python torch made for it will do (pip install torch, then NST_PYTHON), or --device cpu",
	} {
		order("fault-kind", kind)
		order("fault", 1)
		_, err := torch.ParseDevice("pretend")
		assert.ErrorIs(t, err, torch.ErrDevice)
		assert.EqualError(t, err, want)
	}
	_, err := torch.ParseDevice("pretend")
	assert.NoError(t, err)
}

func TestVersion(t *testing.T) {
	assert.True(t, strings.HasPrefix(torch.Version(), "2."), torch.Version())
}

// Products of matrices are rounded as the thread wants that asks for them, whatever another's
// were before.
func TestProductsAreTheThreadsOwn(t *testing.T) {
	defer torch.SetMath(torch.Math{})
	device, err := torch.ParseDevice("pretend:1")
	require.NoError(t, err)
	for name, product := range map[string]func(a torch.Tensor){
		"nearest": func(a torch.Tensor) { torch.Nearest(a, a) },
		"product": func(a torch.Tensor) { torch.Bmm(a, a) },
	} {
		for _, tf32 := range []bool{true, false} {
			scoped(t, func() {
				a := torch.Full(1, device, 4, 4)
				other := torch.StartThread(device)
				defer other.Close()
				require.NoError(t, other.Do(context.Background(), func() error {
					torch.SetMath(torch.Math{TF32: !tf32})
					return torch.Scoped(func() error { product(torch.Full(1, device, 4, 4)); return nil })
				}))
				torch.SetMath(torch.Math{TF32: tf32})
				_, err := torch.ControlDevice("journal", 1)
				require.NoError(t, err)
				product(a)
				_, err = torch.ControlDevice("journal", 0)
				require.NoError(t, err)
				lines, err := torch.DeviceJournal()
				require.NoError(t, err)
				assert.Contains(t, lines, "aten::mm", name)
				assert.Equal(t, tf32, strings.Contains(lines, " tf32"), "%s: %s", name, lines)
			})
		}
	}
}

// The pretend accelerator refuses to resize with antialiasing where CUDA's kernel has no room for
// its taps.
func TestAntialiasingBeyondSharedMemory(t *testing.T) {
	device, err := torch.ParseDevice("pretend:1")
	require.NoError(t, err)
	m, err := torch.NewModule("Resize")
	require.NoError(t, err)
	require.NoError(t, m.Define("def forward(self, image: Tensor, layers: List[str]) -> List[Tensor]:\n"+
		"    return [torch._upsample_bilinear2d_aa(image, [4, 4], False)]\n"))
	path := filepath.Join(t.TempDir(), "resize.pt")
	require.NoError(t, m.Save(path))
	m.Close()
	loaded, err := torch.LoadModule(path, device)
	require.NoError(t, err)
	defer loaded.Close()
	for size, fits := range map[int64]bool{4 * 90: true, 4 * 100: false} {
		err := torch.Scoped(func() error {
			loaded.Forward(torch.Full(1, device, 1, 3, size, size), []string{"x"})
			return nil
		})
		if fits {
			assert.NoError(t, err, "a factor of %d", size/4)
		} else {
			assert.ErrorContains(t, err, "Provided interpolation parameters", "a factor of %d", size/4)
		}
	}
}

// The pretend accelerator is loaded as a vendor's backend is, and is as strict
// as CUDA.
func TestPretendAccelerator(t *testing.T) {
	device, err := torch.ParseDevice("pretend:1")
	require.NoError(t, err)
	_, err = torch.ParseDevice("pretend:2")
	assert.ErrorIs(t, err, torch.ErrDevice)
	count := func(what string) int64 {
		n, err := torch.ControlDevice(what, 0)
		require.NoError(t, err)
		return n
	}
	before := torch.Live()
	scoped(t, func() {
		a := torch.Full(2, device, 2, 2)
		assert.Equal(t, device, torch.DeviceOf(torch.MM(a, a)))
		host := count("copies-to-host")
		assert.Equal(t, []float32{8, 8, 8, 8}, torch.Floats(torch.MM(a, a)))
		assert.Equal(t, host+1, count("copies-to-host"))

		for name, other := range map[string]torch.Device{"a CPU tensor": torch.CPU,
			"another device's tensor": "pretend:0"} {
			err := torch.Scoped(func() error { torch.Add(a, torch.Full(1, other, 2, 2)); return nil })
			assert.ErrorContains(t, err, "same device", name)
		}
		torch.Mul(a, torch.Full(1, torch.CPU)) // a scalar may be on the CPU, as on CUDA
		synchronisations := count("synchronisations")
		torch.Synchronize(device)
		assert.Equal(t, synchronisations+1, count("synchronisations"))
	})
	require.NoError(t, torch.ResetPeak(device))
	_, err = torch.ControlDevice("memory-limit", 1<<20)
	require.NoError(t, err)
	err = torch.Scoped(func() error { torch.Full(1, device, 1<<20); return nil })
	assert.ErrorIs(t, err, torch.ErrOutOfMemory)
	m, err := torch.MemoryOf(device)
	require.NoError(t, err)
	assert.Equal(t, torch.Memory{Free: 1 << 20, Total: 1 << 20}, m, "all of it came back")
	_, err = torch.ControlDevice("memory-limit", 0)
	require.NoError(t, err)
	require.NoError(t, torch.EmptyCache(device))

	_, err = torch.ControlDevice("fault", 1)
	require.NoError(t, err)
	assert.ErrorContains(t, torch.Scoped(func() error { torch.Full(1, device, 2); return nil }), "the fault ordered")
	_, err = torch.ControlDevice("nonsense", 0)
	assert.Error(t, err)
	assert.Equal(t, before, torch.Live())
}

// gotorch asks for NumCPU/2 threads, which is none on one core.
func TestOneCore(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := exec.Command("taskset", "-c", "0", self, "-test.run", "^(TestVersion|TestNoGrad)$").CombinedOutput()
	require.NoError(t, err, string(out))
}

// Without a number in the environment libtorch uses every core that it may.
func TestThreadsAreLibtorchsOwn(t *testing.T) {
	if os.Getenv("OMP_NUM_THREADS") == "" && os.Getenv("MKL_NUM_THREADS") == "" {
		assert.GreaterOrEqual(t, torch.Threads(), (runtime.NumCPU()+1)/2, "physical cores at least")
	}
	assert.Equal(t, os.Getenv("OMP_NUM_THREADS"), childEnvironment(t, "OMP_NUM_THREADS"),
		"what gotorch's init was shown is taken back")
}

func childEnvironment(t *testing.T, name string) string {
	out, err := exec.Command("printenv", name).Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return strings.TrimSpace(string(out))
}

// ---- Numbers

func TestOps(t *testing.T) {
	scoped(t, func() {
		a := torch.FromFloats([]float32{1, 2, 3, 4, 5, 6}, torch.CPU, 2, 3)
		b := torch.FromFloats([]float32{1, 0, 0, 1, 1, 1}, torch.CPU, 3, 2)
		for name, c := range map[string]struct {
			got   torch.Tensor
			shape []int64
			want  []float32
		}{
			"add":       {torch.Add(a, a), []int64{2, 3}, []float32{2, 4, 6, 8, 10, 12}},
			"sub":       {torch.Sub(a, a), []int64{2, 3}, []float32{0, 0, 0, 0, 0, 0}},
			"mul":       {torch.Mul(a, a), []int64{2, 3}, []float32{1, 4, 9, 16, 25, 36}},
			"mm":        {torch.MM(a, b), []int64{2, 2}, []float32{4, 5, 10, 11}},
			"sum":       {torch.Sum(a), []int64{}, []float32{21}},
			"transpose": {torch.Transpose(a, 0, 1), []int64{3, 2}, []float32{1, 4, 2, 5, 3, 6}},
			"view":      {torch.View(a, 3, 2), []int64{3, 2}, []float32{1, 2, 3, 4, 5, 6}},
			"flatten":   {torch.Flatten(a, 0, 1), []int64{6}, []float32{1, 2, 3, 4, 5, 6}},
			"stack": {torch.Stack([]torch.Tensor{torch.Full(1, torch.CPU), torch.Full(2, torch.CPU)}, 0),
				[]int64{2}, []float32{1, 2}},
			"scale": {torch.Scale(a, 0.5), []int64{2, 3}, []float32{0.5, 1, 1.5, 2, 2.5, 3}},
			"pow":   {torch.Pow(a, 2), []int64{2, 3}, []float32{1, 4, 9, 16, 25, 36}},
			"flip":  {torch.Flip(a, 1), []int64{2, 3}, []float32{3, 2, 1, 6, 5, 4}},
			"slice": {torch.Slice(a, 1, 1, 3), []int64{2, 2}, []float32{2, 3, 5, 6}},
			"to":    {torch.To(a, torch.CPU), []int64{2, 3}, []float32{1, 2, 3, 4, 5, 6}},
			"cast":  {torch.Cast(a, torch.Float64), []int64{2, 3}, []float32{1, 2, 3, 4, 5, 6}},
			"bytes": {torch.FromBytes([]byte{1, 2}, torch.Uint8, 2), []int64{2}, []float32{1, 2}},
		} {
			assert.Equal(t, c.shape, torch.Shape(c.got), name)
			assert.Equal(t, c.want, torch.Floats(c.got), name)
		}
		c := torch.Clone(a)
		torch.ScaleInPlace(c, 2)
		torch.ClampInPlace(c, 3, 8)
		assert.Equal(t, []float32{3, 4, 6, 8, 8, 8}, torch.Floats(c))
		torch.Copy(c, a)
		assert.Equal(t, torch.Floats(a), torch.Floats(c))
		assert.Equal(t, torch.CPU, torch.DeviceOf(c))

		// Resizing a constant keeps it; shrinking a fine chequerboard averages
		// it, where a sampled kernel would alias.
		assert.InDeltaSlice(t, []float32{2, 2, 2, 2}, torch.Floats(torch.Resize(torch.Full(2, torch.CPU, 1, 1, 7, 5), 2,
			2, torch.Wrap{})), 1e-5)
		board := make([]float32, 64*64)
		for i := range board {
			board[i] = float32((i + i/64) % 2)
		}
		for _, v := range torch.Floats(torch.Resize(torch.FromFloats(board, torch.CPU, 1, 1, 64, 64), 8, 8,
			torch.Wrap{})) {
			assert.InDelta(t, 0.5, v, 0.02)
		}
	})
}

func TestNoGrad(t *testing.T) {
	scoped(t, func() {
		x := torch.Full(2, torch.CPU, 2)
		torch.RequireGrad(x, true)
		var y torch.Tensor
		torch.NoGrad(func() { y = torch.Sum(x) })
		assert.ErrorContains(t, torch.Scoped(func() error { torch.Backward([]torch.Tensor{y}, nil); return nil }),
			"does not require grad")
		torch.Backward([]torch.Tensor{torch.Sum(x)}, nil)
		assert.Equal(t, []float32{1, 1}, torch.Floats(torch.Gradient(x)))
		torch.ClearGradient(x)
		assert.Error(t, torch.Scoped(func() error { torch.Gradient(x); return nil }))
	})
}

// Both optimisers find the minimum of (x−0.3)² + 50·(mean x − 0.3)², L-BFGS for
// each picture by itself.
func TestOptimisers(t *testing.T) {
	for name, start := range map[string]func(x torch.Tensor) *torch.Optimizer{
		"adam":  func(x torch.Tensor) *torch.Optimizer { return torch.NewAdam(x, 0.02, 0.9, 0.999, 1e-8) },
		"lbfgs": func(x torch.Tensor) *torch.Optimizer { return torch.NewLBFGS(x, 1, 5, 0.01, 0.2, torch.Wrap{}) },
	} {
		t.Run(name, func(t *testing.T) {
			scoped(t, func() {
				values := make([]float32, 2*3*4*4)
				for i := range values {
					values[i] = float32(i%7) / 7
				}
				x := torch.FromFloats(values, torch.CPU, 2, 3, 4, 4)
				o := start(x)
				defer o.Close()
				for i := range 300 {
					scoped(t, func() {
						off := torch.Sub(x, torch.Full(0.3, torch.CPU, 1))
						mean := torch.Scale(torch.Sums(off), 100./48)
						if i == 250 {
							o.SetRate(0.01)
						}
						o.Step(torch.Add(torch.Scale(off, 2), torch.View(mean, 2, 1, 1, 1)))
					})
				}
				for _, v := range torch.Floats(x) {
					assert.InDelta(t, 0.3, v, 1e-2)
				}
			})
		})
	}
}

// An optimiser that is given another's state goes on as the other does, bit for
// bit.
func TestOptimizerState(t *testing.T) {
	for name, make := range map[string]func(x torch.Tensor) *torch.Optimizer{
		"adam":  func(x torch.Tensor) *torch.Optimizer { return torch.NewAdam(x, 0.1, 0.9, 0.999, 1e-8) },
		"lbfgs": func(x torch.Tensor) *torch.Optimizer { return torch.NewLBFGS(x, 0.5, 3, 0.01, 0.1, torch.Wrap{}) },
	} {
		t.Run(name, func(t *testing.T) {
			nsttest.NoLeaks(t)
			require.NoError(t, torch.Scoped(func() error {
				step := func(o *torch.Optimizer, x torch.Tensor) { // towards 0.3 along a quartic
					o.Step(torch.Scale(torch.Pow(torch.Sub(x, torch.Full(0.3, torch.CPU, 1, 1, 2, 2)), 3), 4))
				}
				begin := func(values []float32) (torch.Tensor, *torch.Optimizer) {
					x := torch.FromFloats(values, torch.CPU, 1, 1, 2, 2)
					return x, make(x)
				}
				x, o := begin([]float32{0, 1, 0.5, 0.9})
				defer o.Close()
				tensors, numbers := o.State()
				assert.Empty(t, tensors)
				assert.Empty(t, numbers)
				for range 5 {
					step(o, x)
				}
				tensors, numbers = o.State()
				assert.NotEmpty(t, tensors)
				y, other := begin(torch.Floats(x))
				defer other.Close()
				other.SetState(tensors, numbers)
				for range 5 {
					step(o, x)
					step(other, y)
					assert.Equal(t, torch.Floats(x), torch.Floats(y))
				}
				return nil
			}))
			assert.Error(t, torch.Scoped(func() error {
				x := torch.Full(1, torch.CPU, 1, 1, 2, 2)
				o := make(x)
				defer o.Close()
				o.SetState([]torch.Tensor{x}, []float64{1, 2})
				return nil
			}), "a state of something else")
		})
	}
}

func TestBytesAndTypes(t *testing.T) {
	nsttest.NoLeaks(t)
	require.NoError(t, torch.Scoped(func() error {
		x := torch.FromFloats([]float32{1, 2, 3, 4.5}, torch.CPU, 2, 2)
		for scalar, size := range map[torch.ScalarType]int{torch.Float32: 4, torch.Float64: 8, torch.BFloat16: 2} {
			c := torch.Cast(x, scalar)
			assert.Equal(t, scalar, torch.TypeOf(c))
			data := torch.Bytes(torch.Transpose(c, 0, 1)) // in row order, however it lies
			assert.Len(t, data, 4*size)
			assert.Equal(t, []float32{1, 3, 2, 4.5}, torch.Floats(torch.FromBytes(data, scalar, 2, 2)))
		}
		half := torch.AvgPool2d(torch.FromFloats([]float32{1, 2, 9, 3, 4, 9, 9, 9, 9}, torch.CPU, 1, 1, 3, 3))
		assert.Equal(t, []int64{1, 1, 1, 1}, torch.Shape(half), "an odd row and column are left out")
		assert.Equal(t, []float32{2.5}, torch.Floats(half))
		torch.LerpInPlace(x, torch.Full(0, torch.CPU, 2, 2), 0.5)
		assert.Equal(t, []float32{0.5, 1, 1.5, 2.25}, torch.Floats(x))
		wide := torch.ResizeLinear(torch.FromFloats([]float32{0, 1}, torch.CPU, 1, 1, 1, 2), 1, 4, torch.Wrap{})
		assert.InDeltaSlice(t, []float32{0, 0.25, 0.75, 1}, torch.Floats(wide), 1e-6)
		return nil
	}))
	// What Local makes beside its result is released.
	before := torch.Live()
	require.NoError(t, torch.Scoped(func() error {
		kept := torch.Local(func() torch.Tensor { return torch.Scale(torch.Full(1, torch.CPU, 3), 2) })
		assert.Equal(t, before+1, torch.Live())
		assert.Equal(t, []float32{2, 2, 2}, torch.Floats(kept))
		return nil
	}))
	assert.Equal(t, before, torch.Live())
	assert.Error(t, torch.Scoped(func() error {
		torch.Local(func() torch.Tensor { return torch.MM(torch.Full(1, torch.CPU, 3), torch.Full(1, torch.CPU, 3)) })
		return nil
	}))
}

// What comes round is cropped, added to and resized beyond its edges.
func TestWrap(t *testing.T) {
	scoped(t, func() {
		x := torch.FromFloats([]float32{0, 1, 2, 3, 4, 5}, torch.CPU, 1, 1, 2, 3)
		part := torch.Crop(x, -1, -2, 4, 5)
		assert.Equal(t, []float32{
			4, 5, 3, 4, 5,
			1, 2, 0, 1, 2,
			4, 5, 3, 4, 5,
			1, 2, 0, 1, 2,
		}, torch.Floats(part))
		near, far := torch.Crop(x, 1, 1, 1, 2), torch.Crop(x, -3, 7, 1, 2)
		assert.Equal(t, torch.Floats(near), torch.Floats(far), "periods away")
		host := torch.FromPart([]float32{0, 1, 2, 3, 4, 5}, 2, 3, -1, -2, 4, 5)
		assert.Equal(t, torch.Floats(part), torch.Floats(host))

		sum := torch.FromFloats(make([]float32, 6), torch.CPU, 1, 1, 2, 3)
		torch.AddAround(sum, torch.Full(1, torch.CPU, 1, 1, 4, 5), -1, -2)
		assert.Equal(t, []float32{2, 4, 4, 2, 4, 4}, torch.Floats(sum), "how often each was cropped")

		// A wave of whole periods stays one, whatever the sizes have in common.
		for _, sizes := range [][2]int64{{48, 64}, {64, 48}, {50, 71}, {97, 24}} {
			wave := func(n int64) []float32 {
				out := make([]float32, n)
				for i := range out {
					out[i] = float32(math.Sin(2*math.Pi*(float64(i)+0.5)/float64(n) + 1))
				}
				return out
			}
			from := torch.FromFloats(wave(sizes[0]), torch.CPU, 1, 1, 1, sizes[0])
			to := torch.Floats(torch.Resize(from, 1, sizes[1], torch.Wrap{X: true}))
			assert.InDeltaSlice(t, wave(sizes[1]), to, 0.03, "%v", sizes)
			assert.InDelta(t, wave(sizes[1])[0], to[0], 0.01, "also at the seam: %v", sizes)
		}
	})
}

// The first guess M of L-BFGS's inverse Hessian is symmetric and positive, on every device: of a
// gradient g the first step is along −M·g, so that columns of M are known but for their lengths
// n. With c_i = M·e_i/n_i, symmetry is n_i/n_j = c_j[i]/c_i[j], of which three have the product 1.
func TestFirstGuessIsSymmetricAndPositive(t *testing.T) {
	const h, w = 22, 17
	for _, device := range []torch.Device{torch.CPU, "pretend:1"} {
		_, err := torch.ParseDevice(string(device))
		require.NoError(t, err)
		step := func(gradient []float32) (out []float32) {
			scoped(t, func() {
				x := torch.Full(0.5, device, 1, 1, h, w)
				o := torch.NewLBFGS(x, 1, 5, 0.02, 0.05, torch.Wrap{})
				defer o.Close()
				o.Step(torch.FromFloats(gradient, device, 1, 1, h, w))
				for _, v := range torch.Floats(x) {
					out = append(out, 0.5-v)
				}
			})
			return out
		}
		column := func(i int) []float32 {
			spike := make([]float32, h*w)
			spike[i] = 1
			return step(spike)
		}
		ratio := func(i, j int) float64 { return float64(column(j)[i]) / float64(column(i)[j]) }
		for _, c := range [][3]int{{0, 5, 3*w + 2}, {h*w - 1, h*w - 4, 15*w + 9}, {7*w + 8, 9*w + 8, 8*w + 3}} {
			assert.InEpsilon(t, 1, ratio(c[0], c[1])*ratio(c[1], c[2])*ratio(c[2], c[0]), 1e-3, "%s %v", device, c)
		}
		for seed := range 5 {
			g, along := make([]float32, h*w), 0.0
			for i := range g {
				g[i] = float32(math.Sin(float64((i+1)*(seed*7+3)*911))) - 0.1
			}
			for i, v := range step(g) {
				along += float64(v) * float64(g[i])
			}
			assert.Positive(t, along, device)
		}
	}
}

// L-BFGS of a picture that comes round knows no seam: a shift by a power of two, which its
// smooth parts are aligned to, shifts its steps.
func TestWrapOfLBFGS(t *testing.T) {
	for _, wrap := range []torch.Wrap{{}, {X: true, Y: true}} {
		scoped(t, func() {
			const side = 32
			gradient := func(shift int64) torch.Tensor {
				values := make([]float32, side*side)
				for i := range values {
					values[i] = float32(math.Sin(float64(i%side*i%side)) + math.Cos(float64(i/side)))
				}
				t := torch.FromFloats(values, torch.CPU, 1, 1, side, side)
				return torch.Crop(t, -shift, -shift, side, side)
			}
			stepped := func(shift int64) torch.Tensor {
				x := torch.Full(0.5, torch.CPU, 1, 1, side, side)
				o := torch.NewLBFGS(x, 1, 5, 0.01, 0.05, wrap)
				defer o.Close()
				o.Step(gradient(shift))
				return x
			}
			plain := torch.Crop(stepped(0), -16, -16, side, side)
			difference := torch.Floats(torch.Norms(torch.Sub(plain, stepped(16))))[0]
			if wrap.X {
				assert.Less(t, difference, float32(1e-5))
			} else {
				assert.Greater(t, difference, float32(1e-3), "without it the edges are its own")
			}
		})
	}
}

// Eigenvalues, diagonals and quantiles, and what they make of values that are none.
func TestMatricesAndQuantiles(t *testing.T) {
	scoped(t, func() {
		m := torch.FromFloats([]float32{2, 1, 1, 2, 3, 0, 0, 1}, torch.CPU, 2, 2, 2)
		values, vectors := torch.Eigh(m)
		assert.InDeltaSlice(t, []float32{1, 3, 1, 3}, torch.Floats(values), 1e-6)
		back := torch.Bmm(torch.Mul(vectors, torch.View(values, 2, 1, 2)), torch.Transpose(vectors, 1, 2))
		assert.InDeltaSlice(t, torch.Floats(m), torch.Floats(back), 1e-6)
		torch.AddInPlace(torch.Diagonal(m), torch.Full(1, torch.CPU), 1)
		assert.Equal(t, []float32{3, 1, 1, 3, 4, 0, 0, 2}, torch.Floats(m), "a view")
		none, _ := torch.Eigh(torch.Full(math.NaN(), torch.CPU, 1, 2, 2))
		for _, v := range torch.Floats(none) {
			assert.True(t, math.IsNaN(float64(v)))
		}

		x := torch.FromFloats([]float32{3, 1, 2, 0}, torch.CPU, 1, 1, 4)
		assert.InDeltaSlice(t, []float32{0.5, 2.5}, torch.Floats(torch.Quantiles(x, torch.Tensor{}, 2)), 1e-6)
		weights := torch.FromFloats([]float32{0, 0.5, 0, 0.5}, torch.CPU, 1, 4)
		assert.InDeltaSlice(t, []float32{0, 1}, torch.Floats(torch.Quantiles(x, weights, 2)), 1e-6)
		table := torch.FromFloats([]float32{10, 11, 12, 13}, torch.CPU, 1, 1, 4)
		assert.InDeltaSlice(t, []float32{-10, -10, -10, -10},
			torch.Floats(torch.QuantileDifferences(x, torch.Tensor{}, table)), 1e-6, "each to its own rank")
	})
}

// Directions, what is nearest, and the ways to lay maps out.
func TestDirectionsAndPlaces(t *testing.T) {
	scoped(t, func() {
		f := torch.FromFloats([]float32{4, 1, 0, 1, 5, 1}, torch.CPU, 1, 2, 3) // (4,1), (1,5), (0,1)
		mean := torch.FromFloats([]float32{1, 1}, torch.CPU, 1, 2, 1)
		units, lengths := torch.Units(f, mean)
		assert.Equal(t, []float32{3, 4, 1}, torch.Floats(lengths))
		assert.Equal(t, []float32{1, 0, -1, 0, 1, 0}, torch.Floats(units))
		// A direction does not change along itself, and the less the longer it is.
		gradient := torch.FromFloats([]float32{6, 8, 5, 12, 8, 5}, torch.CPU, 1, 2, 3)
		torch.UnitsBackwardInPlace(gradient, units, lengths)
		assert.Equal(t, []float32{0, 2, 0, 4, 0, 5}, torch.Floats(gradient))
		units, _ = torch.Units(torch.Full(0, torch.CPU, 1, 2, 1), torch.Tensor{})
		assert.Equal(t, []float32{0, 0}, torch.Floats(units), "of no length")

		candidates := torch.FromFloats([]float32{1, 0, -1, 0, 1, 0}, torch.CPU, 2, 3)
		queries := torch.FromFloats([]float32{-2, 0.1, 3, 1, 0.2, -1}, torch.CPU, 2, 3)
		nearest := torch.Nearest(queries, candidates)
		assert.Equal(t, torch.Int64, torch.TypeOf(nearest))
		chosen := torch.IndexSelect(torch.FromFloats([]float32{10, 11, 12}, torch.CPU, 3), 0, nearest)
		assert.Equal(t, []float32{12, 11, 10}, torch.Floats(chosen))

		maps := torch.FromFloats([]float32{0, 1, 2, 3, 4, 5, 6, 7}, torch.CPU, 1, 1, 2, 4)
		squares := torch.PixelUnshuffle(maps, 2)
		assert.Equal(t, []int64{1, 4, 1, 2}, torch.Shape(squares))
		assert.Equal(t, []float32{0, 2, 1, 3, 4, 6, 5, 7}, torch.Floats(squares))
		assert.Equal(t, torch.Floats(maps), torch.Floats(torch.PixelShuffle(squares, 2)))
		torch.AddInPlace(torch.Every(maps, 3, 1, 2), torch.Full(10, torch.CPU), 1)
		assert.Equal(t, []float32{0, 11, 2, 13, 4, 15, 6, 17}, torch.Floats(maps), "a view")
	})
}

// What is nearest is found in pieces of any size.
func TestNearestInPieces(t *testing.T) {
	scoped(t, func() {
		const queries, candidates = 700, 50_000 // 336 queries at a time
		values := make([]float32, candidates)
		for i := range values {
			values[i] = float32(i)
		}
		sign := make([]float32, queries)
		for i := range sign {
			sign[i] = float32(1 - i%2*2)
		}
		nearest := torch.Nearest(torch.FromFloats(sign, torch.CPU, 1, queries), torch.FromFloats(values, torch.CPU, 1,
			candidates))
		found := torch.Floats(torch.Cast(nearest, torch.Float32))
		for i, v := range found {
			require.InDelta(t, []float64{candidates - 1, 0}[i%2], v, 0.5)
		}
	})
}
