package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

func TestSeries(t *testing.T) {
	s := SeriesOf([]float64{4, 1, 3, 2, 5})
	assert.Equal(t, Series{Seconds: []float64{4, 1, 3, 2, 5}, Median: 3, Min: 1, Lower: 2, Upper: 4, Spread: 2.0 / 3},
		s)
	assert.Equal(t, 2.5, SeriesOf([]float64{1, 2, 3, 4}).Median)
	one := SeriesOf([]float64{7})
	assert.Equal(t, []float64{7, 7, 7, 0}, []float64{one.Median, one.Lower, one.Upper, one.Spread})
}

// Recipes say what they measure, and the default picture is the default one's.
func TestWorkloads(t *testing.T) {
	keys := map[string]bool{}
	for _, w := range Suites["standard"] {
		o, err := w.Options.Resolve()
		require.NoError(t, err, w.Name)
		key := Result{Workload: w.Name, Optimizer: string(o.Optimizer), Batch: w.Batch}.Key()
		assert.False(t, keys[key], "%s is there twice", key)
		keys[key] = true
		assert.NotEmpty(t, w.About)
		assert.Positive(t, w.Version)
	}
	o, err := nst.Options{}.Resolve()
	require.NoError(t, err)
	assert.Equal(t, balancedIterations, *o.Iterations)
}

// pretendNVML compiles and loads the pretend library.
func pretendNVML(t *testing.T) *nvml {
	library := filepath.Join(t.TempDir(), "libnvidia-ml.so")
	nsttest.Compile(t, "testdata/nvml.c", library)
	n, err := openNVML(library)
	require.NoError(t, err)
	return n
}

// What NVML says of a card is in the report; what it does not say is null.
func TestNVML(t *testing.T) {
	_, err := openNVML("libnothing-of-the-kind.so")
	require.Error(t, err)
	_, err = openNVML("libc.so.6")
	require.ErrorContains(t, err, "libc.so.6 is no NVML")
	n := pretendNVML(t)
	c := &card{bus: "00000000:65:00.0", torch: "Pretend Card, compute capability 9.0"}
	c.open(n)
	g := c.describe()
	assert.Equal(t, &GPU{Name: new("Pretend Card"), Capability: new("9.0"), Driver: new("580.65.06"),
		Bus: new("00000000:65:00.0"), Memory: new(int64(80) << 30), PowerLimit: nil, MaxClock: new(1980.0)}, g)

	w := watch(c, 2)
	for range 2 {
		w.resume()
		time.Sleep(6 * senseEvery)
		w.pause()
	}
	telemetry := w.telemetry(4)
	assert.Equal(t, 1900.0, telemetry.SMClock.Before)
	assert.Greater(t, telemetry.SMClock.Max, telemetry.SMClock.Min)
	assert.Greater(t, telemetry.SMClock.Min, telemetry.SMClock.After)
	assert.Equal(t, &Track{10501, 10501, 10501, 10501, 10501}, telemetry.MemoryClock)
	assert.Equal(t, 312.5, telemetry.Power.Median)
	assert.Equal(t, 61.0, telemetry.Temperature.Max)
	assert.Equal(t, []string{"power cap", "thermal (hardware)"}, telemetry.Throttled)
	assert.Equal(t, int64(3)<<30, *telemetry.MemoryUsed)
	assert.Equal(t, "nvml", *telemetry.EnergySource)
	assert.InDelta(t, 2, *telemetry.Energy, 1e-9, "a joule in each turn")
	assert.InDelta(t, 2.0/4, *telemetry.EnergyPerIteration, 1e-9)
	assert.Nil(t, telemetry.CPUClock, "it is the card that works")
	assert.Nil(t, telemetry.Others, "of so short a time nothing is known")
	from, to := w.fell("sm")
	assert.Greater(t, from, to)

	out := Result{}
	out.judge(SeriesOf([]float64{1, 1, 2, 2}), telemetry, w, "")
	assert.Contains(t, strings.Join(out.Warnings, "\n"),
		"the iterations are noisy: their quartiles are 67 % of the median")
	assert.Contains(t, strings.Join(out.Warnings, "\n"), "the card was held back: power cap, thermal (hardware)")

	// A card that NVML does not know, and a device that is none.
	c = &card{bus: "00000000:01:00.0", torch: "Pretend Card, compute capability 9.0"}
	c.open(n)
	assert.Equal(t, &GPU{Name: new("Pretend Card"), Capability: new("9.0"), Bus: new("00000000:01:00.0")}, c.describe())
	for _, c := range []*card{c, nil} {
		w = watch(c, 2)
		w.resume()
		w.pause()
		telemetry = w.telemetry(1)
		assert.Nil(t, telemetry.SMClock)
		assert.Nil(t, telemetry.Power)
		assert.Nil(t, telemetry.Throttled)
		assert.Nil(t, telemetry.MemoryUsed)
		text, err := json.Marshal(telemetry)
		require.NoError(t, err)
		assert.Contains(t, string(text), `"sm_clock_mhz":null`)
	}
}

// A counter that begins anew has still grown.
func TestJoules(t *testing.T) {
	got, known := joules(map[string]uint64{"a": 5_000_000, "b": 9_000_000},
		map[string]uint64{"a": 6_000_000, "b": 500_000},
		map[string]uint64{"b": 10_000_000})
	assert.True(t, known)
	assert.Equal(t, 2.5, got)
	_, known = joules(nil, nil, nil)
	assert.False(t, known)
	_, known = joules(map[string]uint64{"a": 1}, nil, nil)
	assert.False(t, known)
}

// report is of this machine, with small workloads.
func report(t *testing.T) *Report {
	e, err := nst.Open(context.Background(), nsttest.Model(t), nst.OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	content, style := Pictures()
	r := &Runner{Engine: e, Content: content, Style: style, Iterations: 4, Sustain: 300 * time.Millisecond}
	b, err := r.NewReport(context.Background(), "of the test")
	require.NoError(t, err)
	picture := gatys(nst.LBFGS)
	picture.Size, picture.Whole, picture.OnCPU = 96, 30, 10
	scales := Workload{Name: "whole", Version: 0, Flags: "--size 64", Size: 64, Batch: 1, Whole: 20, OnCPU: 0,
		Options: nst.Options{Scales: "32,64"}}
	for _, w := range []Workload{Iteration(32, 1), Iteration(32, 2), picture, scales} {
		result, err := r.Measure(context.Background(), w)
		require.NoError(t, err, w.Name)
		b.Results = append(b.Results, result)
	}
	return b
}

// A report says what was measured, as the schema has it, and goes through a file, a page and
// benchstat's format.
func TestReport(t *testing.T) {
	nsttest.NoLeaks(t)
	b := report(t)
	data, err := json.Marshal(b)
	require.NoError(t, err)
	require.NoError(t, Validate(data), string(data))
	folder := t.TempDir()
	path := filepath.Join(folder, "this machine.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	again, err := Read(path)
	require.NoError(t, err)
	assert.Equal(t, b, again)

	for i, r := range b.Results {
		if r.Whole == nil {
			assert.Len(t, r.Burst.Seconds, 4, r.Workload)
			assert.True(t, r.WarmUp.Iterations >= 4, r.Workload)
		} else { // groups of iterations, of the last scale
			assert.LessOrEqual(t, len(r.Burst.Seconds), []int{2: 10, 3: 19}[i], r.Workload)
			assert.Nil(t, r.WarmUp)
		}
		assert.Equal(t, r.Burst.Median, r.SecondsPerIteration)
		assert.Positive(t, r.PeakMemory)
		assert.Positive(t, r.First)
		assert.Nil(t, r.Ahead, "on the CPU there is none")
		assert.Nil(t, r.Telemetry.SMClock)
	}
	assert.Positive(t, b.Results[0].Sustained.Median)
	whole := b.Results[2].Whole
	assert.Equal(t, []any{30, 10, true}, []any{whole.Iterations, whole.Measured, whole.Extrapolated})
	assert.Greater(t, whole.Seconds, 30*b.Results[2].Min)
	assert.False(t, b.Results[3].Whole.Extrapolated)

	var page bytes.Buffer
	all, err := ReadFolder(folder)
	require.NoError(t, err)
	require.NoError(t, WritePage(&page, all))
	for _, part := range []string{"this machine", "iteration-32", "gatys-512-500 lbfgs", "from 10 of 30 iterations",
		"PyTorch"} {
		assert.Contains(t, page.String(), part)
	}
	assert.NotRegexp(t, `(?i)(src|href)=`, page.String(), "the page needs no other file")

	var text bytes.Buffer
	require.NoError(t, b.WriteBenchFormat(&text))
	reader := benchfmt.NewReader(&text, "report")
	counts := map[string]int{}
	for reader.Scan() {
		if r, ok := reader.Result().(*benchfmt.Result); ok {
			counts[string(r.Name.Base())]++
			assert.Equal(t, "cpu", r.GetConfig("device"))
			seconds, ok := r.Value("sec/op")
			assert.True(t, ok)
			assert.Positive(t, seconds)
		}
	}
	require.NoError(t, reader.Err())
	assert.Equal(t, map[string]int{"Iteration-32": 4, "Batch-2x32": 4, "Gatys-512-500": len(b.Results[2].Burst.Seconds),
		"Gatys-512-500Whole": 1, "Whole": len(b.Results[3].Burst.Seconds), "WholeWhole": 1}, counts)
}

// What is no report is refused in one line.
func TestForeignReports(t *testing.T) {
	folder := t.TempDir()
	write := nsttest.Writer(t, folder)
	someday := strings.Replace(string(small(t)), `"2026-`, `"someday-`, 1)
	for want, text := range map[string]string{
		"is no JSON":                           "{",
		"is of schema 7; this program reads 1": `{"schema":7}`,
		"is no report of nst bench: - at '': missing properties": `{"schema":1,"results":[]}`,
		"is no report of nst bench: - at '/time'":                someday,
	} {
		path := write("a.json", []byte(text))
		_, err := Read(path)
		var wrong UsageError
		require.ErrorAs(t, err, &wrong, text)
		assert.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "\n")
	}
	_, err := Read(filepath.Join(folder, "none.json"))
	assert.ErrorAs(t, err, new(UsageError))
	_, err = ReadFolder(t.TempDir())
	assert.ErrorContains(t, err, "has no reports")
}

// small is a report as JSON that was not measured.
func small(t *testing.T) []byte {
	b := Report{Schema: Version, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Device: "cpu", Precision: "fast",
		Threads: 1, Results: []Result{}}
	data, err := json.Marshal(b)
	require.NoError(t, err)
	require.NoError(t, Validate(data))
	return data
}

// Differences are told apart from noise.
func TestCompare(t *testing.T) {
	random := rand.New(rand.NewPCG(nsttest.Seed(t), 0))
	series := func(around float64) Series {
		var s []float64
		for range 40 {
			s = append(s, around*(1+0.004*(2*random.Float64()-1)))
		}
		return SeriesOf(s)
	}
	result := func(name string, s Series) Result {
		return Result{Workload: name, WorkloadVersion: 1, Optimizer: "adam", Batch: 1, Burst: s}
	}
	a := &Report{Results: []Result{result("same", series(1)), result("faster", series(1)), result("slower", series(1)),
		result("gone", series(1)), result("few", SeriesOf([]float64{1}))}}
	b := &Report{Results: []Result{result("slower", series(1.1)), result("same", a.Results[0].Burst),
		result("faster", series(0.8)), result("new", series(1)), result("few", SeriesOf([]float64{2}))}}
	before := slices.Clone(a.Results[0].Burst.Seconds)
	all, alone := Compare(a, b)
	require.Len(t, all, 4)
	assert.Equal(t, []bool{false, true, true, false}, []bool{all[0].Beyond, all[1].Beyond, all[2].Beyond,
		all[3].Beyond})
	assert.InDelta(t, 0.8, all[1].Ratio, 0.01)
	assert.Equal(t, []string{"gone@1/adam/batch=1 is in the first alone", "new@1/adam/batch=1 is in the second alone"},
		alone)
	var text bytes.Buffer
	require.NoError(t, WriteComparison(&text, a, b))
	assert.Equal(t, before, a.Results[0].Burst.Seconds, "nothing is put in another order")
	for _, part := range []string{"no difference beyond the noise", "faster by ", "slower by ",
		"is in the first alone"} {
		assert.Contains(t, text.String(), part)
	}
}

// A peer that dies says how and why, at once and at each later question; what torch.compile
// kept for another run is not what it finds.
func TestPeerThatDies(t *testing.T) {
	script := filepath.Join(t.TempDir(), "dies.py")
	require.NoError(t, os.WriteFile(script, []byte(`
import os, sys
print('{"configurations": ["compiled"], "torch": "2"}', flush=True)
input()
print("chunks\n" + os.environ["TORCHINDUCTOR_CACHE_DIR"], file=sys.stderr, flush=True)
os.abort()
`), 0o644))
	t.Setenv("TORCHINDUCTOR_CACHE_DIR", "another run's")
	p, err := picture.Open(nsttest.Content(t))
	require.NoError(t, err)
	folder := t.TempDir()
	peers, err := StartPeers(context.Background(), PeerOptions{Python: "python3", Script: script, Model: "none",
		Content: p, Style: p, Folder: folder, Stderr: t.Output()})
	require.NoError(t, err)
	defer peers.Close()
	for range 2 {
		var r PeerResult
		peers["compiled"].run("compiled", 64, 1, 3, &r)
		assert.Equal(t, "it ended (signal: aborted): "+filepath.Join(folder, "inductor"),
			strings.Replace(r.Error, " (core dumped)", "", 1))
	}
}

// Readings that this machine does not have are NaN or nil, and not zero.
func TestSensorsAreThereOrNot(t *testing.T) {
	if clock := (&watcher{threads: 2}).cpuClock(); !math.IsNaN(clock) {
		assert.Greater(t, clock, 100.0)
	}
	m := describe(nil, 2, "of the test")
	assert.Positive(t, m.CPU.Processors)
	assert.Positive(t, *m.Memory)
	assert.Nil(t, m.GPU)
	for _, text := range []*string{m.CPU.Model, m.CPU.Governor} {
		if text != nil {
			assert.NotEmpty(t, *text)
		}
	}
}

// Iterations that are told of together have one mean, and scales that are smaller none.
func TestGroups(t *testing.T) {
	var g groups
	at := 0.0
	tell := func(scale, iteration int, took float64, last bool) {
		at += took
		g.add(nst.Progress{Scale: scale, Iteration: iteration, Seconds: at, Last: last})
	}
	tell(32, 0, 0.5, false)
	for i := 1; i <= 5; i++ {
		tell(32, i, 1, false)
	}
	tell(64, 6, 9, false) // the step before and the evaluation of the scale's start
	for i := 7; i <= 70; i++ {
		took := 0.0
		if i%32 == 7 { // what a GPU has done since the last reading
			took = 3.2
		}
		tell(64, i, took, i == 70)
	}
	assert.InDeltaSlice(t, []float64{3.2, 0.1}, g.each, 1e-9)
	assert.InDelta(t, 5+3.2*2, g.sum, 1e-9)

	g = groups{}
	tell(16, 0, 1, false)
	tell(16, 1, 0.001, false)
	tell(16, 2, 0.001, true)
	assert.InDeltaSlice(t, []float64{0.001}, g.each, 1e-9, "a picture that is made in no time")
}
