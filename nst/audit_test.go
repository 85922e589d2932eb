package nst_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
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

// bands is features.Bands.
var bands = features.Bands

// An audit in place of a GPU: what an iteration sends to the pretend accelerator is
// read for what a CUDA graph, or one of CUDA's kernels, refuses or does badly.

// iteration is what a step and the evaluation after it send, a line each: see the
// journal in torch/csrc/testdevice/pretend.cc.
func iteration(t *testing.T, e *nst.Engine, pictures, size int, o nst.Options) []string {
	t.Helper()
	const at = 3 // L-BFGS has begun to remember
	o.Size, o.Iterations, o.Scales = new(size), new(at+2), nst.ScalesOff
	control := func(command string, value int64) {
		_, err := torch.ControlDevice(command, value)
		require.NoError(t, err)
	}
	control("graphs", 0)
	defer control("graphs", 1)
	var lines string
	progress := func(p nst.Progress) {
		switch {
		case p.Input < pictures-1:
		case p.Iteration == at:
			control("journal", 1)
		case p.Iteration == at+1 && lines == "":
			control("journal", 0)
			var err error
			lines, err = torch.DeviceJournal()
			require.NoError(t, err)
		}
	}
	_, err := e.StylizeBatch(context.Background(), demoInputs(t, pictures), o,
		nst.Hooks{StateEvery: 1, Progress: progress})
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(lines), "\n")
}

// demoInputs are the same pictures, so many times.
func demoInputs(t *testing.T, pictures int) (inputs []nst.Input) {
	for range pictures {
		inputs = append(inputs, nst.Input{Content: open(t, nsttest.Demo(t, "content.png")),
			Styles: []*picture.Picture{open(t, nsttest.Demo(t, "style.png"))}})
	}
	return inputs
}

// refused are operations that CUDA does not record, does in no fixed order, or not at
// all, by what is wrong with them.
var refused = map[string]*regexp.Regexp{
	"its result's size depends on values, which have to be read": regexp.MustCompile(`^aten::(nonzero|masked_select|` +
		`_?unique|index\.Tensor|bincount|repeat_interleave\.Tensor)`),
	"reads a value back": regexp.MustCompile(`^aten::(_local_scalar_dense|item|equal)`),
	"resizes with antialiasing, whose taps have to fit 48 KiB": regexp.MustCompile(`^aten::_upsample_\w+_aa`),
	"adds atomically, in no fixed order": regexp.MustCompile(`^aten::(upsample_\w+_backward|\w*pad[123]d_backward|` +
		`index_add|index_put|scatter_add|put_|_adaptive_\w+_backward)`),
	"computes the gradient from an input of full size": regexp.MustCompile(`^aten::(convolution_backward|` +
		`cudnn_convolution_backward)`),
	"is a pass of its own that a convolution takes along": regexp.MustCompile(`^aten::relu`),
}

// audit returns what is wrong with an iteration's lines. Its last line, the reading of
// the costs, may be a copy to the host. With exact, there is no fused kernel; what is
// tiled may send the same more than once.
func audit(lines []string, exact, tiled bool) (faults []string) {
	pools := map[string]int{}
	for i, line := range lines {
		name, _, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(name, "aten::") {
			if i < len(lines)-1 || line != "a copy to the host" {
				faults = append(faults, fmt.Sprintf("%q in line %d: the host has to wait", line, i+1))
			}
			continue
		}
		for why, pattern := range refused {
			if pattern.MatchString(line) && !(exact && strings.HasPrefix(name, "aten::relu")) {
				faults = append(faults, fmt.Sprintf("%s: %s", line, why))
			}
		}
		if name == "aten::max_pool2d_with_indices.out" && !tiled {
			if pools[line]++; pools[line] > 1 {
				faults = append(faults, line+": the same pool twice")
			}
		}
		for _, sizes := range shape.FindAllStringSubmatch(line, -1) {
			count := 1
			for n := range strings.SplitSeq(sizes[1], ",") {
				v, err := strconv.Atoi(n)
				if err != nil {
					continue // a scalar
				}
				count *= v
			}
			if count >= 1<<31 {
				faults = append(faults, fmt.Sprintf("%s: more values than 32 bits count", line))
			}
		}
	}
	return faults
}

var shape = regexp.MustCompile(`\[([\d,]*)\]`)

// operations counts what a GPU is sent: what comes to the host is none, and where the
// bias is not fused, libtorch adds it after the convolution.
func operations(lines []string) (n int, kinds map[string]int) {
	kinds = map[string]int{}
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(name, "aten::") {
			continue
		}
		kinds[name]++
		n++
		if name == "aten::convolution" && !strings.Contains(rest, "none") {
			kinds["aten::add (of a convolution's bias)"]++
			n++
		}
	}
	return n, kinds
}

func TestIterationIsFitForCUDA(t *testing.T) {
	nsttest.Long(t)
	e := slim(t, "pretend")
	for name, c := range features.All() {
		if c.Unrecorded && name != "tiles" {
			continue
		}
		for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
			t.Run(fmt.Sprint(name, " ", optimizer), func(t *testing.T) {
				c.Options.Optimizer = optimizer
				lines := iteration(t, e, max(1, c.Pictures), 48, c.Options)
				exact := c.Options.Precision == nst.Exact || c.Options.Precision == nst.Double
				assert.Empty(t, audit(lines, exact, name == "tiles"))
			})
		}
	}
}

// What can be recorded is replayed from the second iteration on, and makes the picture that
// is made piece by piece; what cannot makes it piece by piece. Where that is not for the
// objective, or nothing replays, it is said why, once.
func TestReplaysMakeTheSamePicture(t *testing.T) {
	nsttest.Long(t)
	e := slim(t, "pretend")
	for name, c := range features.All() {
		for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
			t.Run(fmt.Sprint(name, " ", optimizer), func(t *testing.T) {
				const iterations = 5
				o := c.Options
				o.Optimizer, o.Size, o.Iterations = optimizer, new(48), new(iterations)
				o.Scales = nst.ScalesOff
				var made [2][]*nst.Result
				for graphs := range int64(2) {
					_, err := torch.ControlDevice("graphs", graphs)
					require.NoError(t, err)
					defer torch.ControlDevice("graphs", 1)
					var warnings []string
					made[graphs], err = e.StylizeBatch(context.Background(), demoInputs(t, max(1, c.Pictures)), o,
						nst.Hooks{Warn: func(message string) { warnings = append(warnings, message) }})
					require.NoError(t, err)
					replayed := 0
					if graphs == 1 && !c.Unrecorded {
						replayed = iterations - 1
					}
					assert.Equal(t, replayed, made[graphs][0].Replayed)
					if c.Unrecorded || graphs == 1 {
						assert.Empty(t, warnings)
						continue
					}
					require.Len(t, warnings, 1)
					assert.Contains(t, warnings[0], "iterations are sent piece by piece: pretend:0 cannot record them "+
						"as a graph (libtorch: record: graphs are switched off)")
				}
				for i := range made[0] {
					assert.Equal(t, made[0][i].Picture, made[1][i].Picture)
				}
			})
		}
	}
}

// How CUDA's libraries are asked to compute, by the precision and by Options.Autotune.
func TestSettingsOfCUDA(t *testing.T) {
	nsttest.Long(t)
	e := slim(t, "pretend")
	for _, c := range []struct {
		precision   nst.Precision
		autotune    nst.Autotune
		convolution string
		product     string
	}{
		{nst.Fast, "", " tf32", " tf32"},
		{nst.TF32, "", " tf32", " tf32"},
		{nst.Fast, nst.AutotuneOn, " tf32 autotuned", " tf32"},
		{nst.Fast, nst.AutotuneOff, " tf32", " tf32"},
		{nst.BF16, "", "", ""},
		{nst.Exact, nst.AutotuneOn, " deterministic", ""},
		{nst.Double, nst.AutotuneOn, " deterministic", ""},
	} {
		lines := iteration(t, e, 1, 48, nst.Options{Precision: c.precision, Autotune: c.autotune,
			Optimizer: nst.Adam}) // what L-BFGS remembers is never rounded
		convolutions, products := 0, 0
		for _, line := range lines {
			want := c.product
			switch name, _, _ := strings.Cut(line, " "); name {
			case "aten::cudnn_convolution_relu", "aten::convolution", "aten::convolution_transpose":
				convolutions, want = convolutions+1, c.convolution
			case "aten::bmm.out", "aten::baddbmm.out", "aten::mm.out":
				products++
			default:
				continue
			}
			var asked string
			for _, word := range []string{" tf32", " autotuned", " deterministic"} {
				if strings.Contains(line, word) {
					asked += word
				}
			}
			assert.Equal(t, want, asked, "%s, autotune %q: %s", c.precision, c.autotune, line)
		}
		assert.Positive(t, convolutions)
		if c.precision != nst.BF16 {
			assert.Positive(t, products)
		}
	}
	for autotune, tuned := range map[nst.Autotune]bool{nst.AutotuneAuto: false, nst.AutotuneOn: true} {
		r, _ := run(t, e, nst.Options{Size: new(48), Iterations: new(2), Autotune: autotune})
		assert.Equal(t, tuned, r.AutotuneSeconds > 0, "%s", autotune)
	}
}

// An iteration of one tile sends no more than so much: at few pixels a GPU waits for
// what it is sent.
func TestOperationsOfAnIteration(t *testing.T) {
	nsttest.Long(t)
	e := slim(t, "pretend")
	for _, c := range []struct {
		precision nst.Precision
		size      int
		most      map[nst.Optimizer]int
	}{
		{nst.Fast, 256, map[nst.Optimizer]int{nst.Adam: 80, nst.LBFGS: 160}},
		{nst.TF32, 256, map[nst.Optimizer]int{nst.Adam: 80, nst.LBFGS: 160}},
		{nst.BF16, 64, map[nst.Optimizer]int{nst.Adam: 82, nst.LBFGS: 160}},
		// No fused kernel of cuDNN's says that it adds in a fixed order: bias and ReLU
		// are operations of their own.
		{nst.Exact, 256, map[nst.Optimizer]int{nst.Adam: 100, nst.LBFGS: 180}},
		{nst.Double, 64, map[nst.Optimizer]int{nst.Adam: 100, nst.LBFGS: 180}},
	} {
		for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
			n, kinds := operations(iteration(t, e, 1, c.size,
				nst.Options{Optimizer: optimizer, Precision: c.precision}))
			assert.LessOrEqual(t, n, c.most[optimizer], "%s %s", c.precision, optimizer)
			t.Logf("%s, %d px, %s: %d operations", c.precision, c.size, optimizer, n)
			var names []string
			for name := range kinds {
				names = append(names, name)
			}
			slices.Sort(names)
			for _, name := range names {
				t.Logf("  %3d %s", kinds[name], name)
			}
		}
	}
}

// The faults that were found by reading, put back, are found by the audit.
func TestAuditFindsFaults(t *testing.T) {
	ok := []string{"aten::cudnn_convolution_relu pretend:0/Float[1,3,8,8] -> pretend:0/Float[1,64,8,8]",
		"a copy to the host"}
	require.Empty(t, audit(ok, false, false))
	for name, line := range map[string]string{
		"a guess resized with antialiasing": "aten::_upsample_bilinear2d_aa.out pretend:0/Float[1,3,256,256] -> " +
			"pretend:0/Float[1,3,2,2]",
		"its gradient": "aten::_upsample_bilinear2d_aa_backward pretend:0/Float[1,3,2,2] -> " +
			"pretend:0/Float[1,3,256,256]",
		"a scalar read":        "reading a value back",
		"an upload":            "a copy from the host",
		"a synchronisation":    "a synchronisation",
		"a copy in the middle": "a copy to the host",
		"a shape of values":    "aten::nonzero pretend:0/Float[3] -> pretend:0/Long[2,1]",
		"a dummy input": "aten::convolution_backward pretend:0/Float[1,64,8,8] " +
			"pretend:0/Float[1,64,8,8] pretend:0/Float[64,64,3,3]",
		"a ReLU of its own": "aten::relu_ pretend:0/Float[1,64,8,8] -> pretend:0/Float[1,64,8,8]",
		"an edge's gradient": "aten::replication_pad2d_backward pretend:0/Float[1,3,8,8] -> " +
			"pretend:0/Float[1,3,6,6]",
		"a map too large": "aten::threshold_backward pretend:0/Float[1,64,8192,4096] -> " +
			"pretend:0/Float[1,64,8192,4096]",
	} {
		assert.NotEmpty(t, audit(slices.Insert(slices.Clone(ok), 1, line), false, false), name)
	}
	pool := "aten::max_pool2d_with_indices.out pretend:0/Float[1,64,8,8] -> pretend:0/Float[1,64,4,4]"
	assert.NotEmpty(t, audit([]string{pool, pool}, false, false), "a pool done twice")
}

// What CUDA's libraries say when memory is short is a shortage, after which the same is tried again.
func TestShortagesAreToldByTheirTexts(t *testing.T) {
	nsttest.Long(t)
	e := slim(t, "pretend")
	run(t, e, nst.Options{Size: new(64), Iterations: new(1)}) // once, the device is tried out
	for kind := int64(1); kind < 8; kind++ {
		warned := 0
		_, err := torch.ControlDevice("fault-kind", kind)
		require.NoError(t, err)
		_, err = torch.ControlDevice("fault", 60)
		require.NoError(t, err)
		r, err := e.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
			[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))},
			nst.Options{Size: new(64), Scales: nst.ScalesOff,
				Iterations: new(6)}, nst.Hooks{Warn: func(string) { warned++ }})
		require.NoError(t, err, "text %d", kind)
		assert.Zero(t, warned, "text %d", kind)
		assert.Equal(t, 1, r.Tiles, "text %d", kind)
	}
	_, err := torch.ControlDevice("fault-kind", 0)
	require.NoError(t, err)
	_, err = torch.ControlDevice("fault", 0)
	require.NoError(t, err)
}

// Maps that 32 bits do not count are a shortage, which smaller tiles mend; on meta
// tensors, which have sizes alone.
func TestMapsBeyond32Bits(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	const meta = torch.Device("meta")
	require.NoError(t, torch.Scoped(func() error {
		c := torch.NewConvolution(torch.Full(0, meta, 64, 64, 3, 3), torch.Full(0, meta, 64))
		defer c.Close()
		for side, fits := range map[int64]bool{5792: true, 5793: false} { // 64·5793² is above 2³¹
			maps := torch.Full(0, meta, 1, 64, side, side)
			for name, operation := range map[string]func(){
				"convolution":  func() { c.Forward(maps, torch.ConvolutionMode{}, true) },
				"its gradient": func() { c.Backward(maps, torch.Tensor{}, torch.ConvolutionMode{}) },
				"pool":         func() { torch.Pool(maps, 0) },
			} {
				err := torch.Scoped(func() error { operation(); return nil })
				if fits && name != "pool" {
					assert.NotErrorIs(t, err, torch.ErrOutOfMemory, name) // meta tensors have no convolution from C++
				} else if fits {
					assert.NoError(t, err, "%s of %d", name, side)
				} else {
					assert.ErrorIs(t, err, torch.ErrOutOfMemory, "%s of %d", name, side)
				}
			}
		}
		return nil
	}))
}
