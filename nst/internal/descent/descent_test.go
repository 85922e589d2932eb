package descent

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/torch"
)

func TestMain(m *testing.M) { nsttest.RunWithPretend(m) }

// quadratic is J = Σ (x−target)² of each picture; its values are the norm's square, and
// the gradient's.
type quadratic struct {
	target      torch.Tensor
	evaluations int
	fail        func(evaluation int) error
	recordable  bool
}

func (q *quadratic) Evaluate(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	return q.EvaluateOnce(x)
}

func (q *quadratic) EvaluateOnce(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	if q.fail != nil {
		if err := q.fail(q.evaluations); err != nil {
			return values, gradient, err
		}
	}
	q.evaluations++
	torch.NoGrad(func() {
		gradient = torch.Scale(torch.Sub(x, q.target), 2)
		squares := torch.SquareSums(gradient)
		values = torch.Stack([]torch.Tensor{torch.Scale(squares, 0.25), squares}, 1)
	})
	return values, gradient, nil
}

func (q *quadratic) Recordable() bool { return q.recordable }

func (q *quadratic) Totals(values torch.Tensor) torch.Tensor {
	return torch.Sums(torch.Slice(values, 1, 0, 1))
}

// picture is [n,3,height,width], of which the values are spread over [0.2,0.8].
func picture(device torch.Device, n, height, width int64) torch.Tensor {
	values := make([]float32, n*3*height*width)
	for i := range values {
		values[i] = 0.2 + 0.6*float32(i*7%len(values))/float32(len(values))
	}
	return torch.FromFloats(values, device, n, 3, height, width)
}

var all = map[string]Settings{
	"adam":  {Method: Adam, Rate: 0.02, Beta2: 0.99},
	"lbfgs": {Method: LBFGS, Rate: 1, Memory: Memory{Bytes: 1 << 30, Least: 5}},
}

// devices are the CPU and the pretend accelerator, which has graphs.
var devices = []torch.Device{torch.CPU, "pretend:0"}

// on runs f on a device's own thread, and fails the test with its error.
func on(t *testing.T, device torch.Device, f func() error) {
	t.Helper()
	nsttest.NoLeaks(t)
	_, err := torch.ParseDevice(string(device))
	require.NoError(t, err)
	thread := torch.StartThread(device)
	t.Cleanup(thread.Close)
	require.NoError(t, thread.Do(context.Background(), f))
}

// Both methods find the minimum, the best picture is the one with the lowest total that
// was read, and every step is read once, in order.
func TestDescentReachesTheMinimum(t *testing.T) {
	for name, settings := range all {
		for _, device := range devices {
			t.Run(name+" "+string(device), func(t *testing.T) {
				on(t, device, func() error {
					q := &quadratic{target: picture(device, 2, 8, 12), recordable: device != torch.CPU}
					d := New(q, settings, torch.Full(0.5, device, 2, 3, 8, 12), 120, 0)
					defer d.Close()
					lowest, steps := []float64{1e9, 1e9}, 0
					before, err := torch.ControlDevice("copies-to-host", 0)
					require.NoError(t, err)
					err = d.Run(context.Background(), false, func(r Reading) error {
						require.Equal(t, steps, r.Steps)
						require.Len(t, r.Values, 4)
						for i := range lowest {
							lowest[i] = min(lowest[i], r.Values[2*i])
						}
						assert.Equal(t, r.Steps == 120, r.Last)
						if !r.Last {
							steps++
						}
						return nil
					})
					require.NoError(t, err)
					after, err := torch.ControlDevice("copies-to-host", 0)
					require.NoError(t, err)
					assert.Less(t, after-before, int64(60), "an accelerator's values are read several at a time")
					assert.Equal(t, 120, steps)
					assert.Equal(t, 120, d.Steps())
					best := d.BestValues()
					for i := range lowest {
						assert.Less(t, best[2*i], 1e-3)
						assert.LessOrEqual(t, best[2*i], lowest[i]) // Adam's average may be lower
					}
					assert.InDeltaSlice(t, torch.Floats(q.target), torch.Floats(d.Best()), 0.01)
					assert.Equal(t, device != torch.CPU, d.Replayed() > 100, "%d replayed", d.Replayed())
					return nil
				})
			})
		}
	}
}

// A descent that is resumed from a snapshot goes the same way, to the last bit.
func TestSnapshot(t *testing.T) {
	for name, settings := range all {
		t.Run(name, func(t *testing.T) {
			on(t, torch.CPU, func() error {
				q := &quadratic{target: picture(torch.CPU, 1, 8, 12)}
				start := func() torch.Tensor { return torch.Full(0.5, torch.CPU, 1, 3, 8, 12) }
				whole := New(q, settings, start(), 12, 3)
				defer whole.Close()
				var want [][]float64
				require.NoError(t, whole.Run(context.Background(), false, func(r Reading) error {
					want = append(want, r.Values)
					return nil
				}))
				part := New(q, settings, start(), 12, 3)
				defer part.Close()
				ctx, cancel := context.WithCancel(context.Background())
				require.NoError(t, part.Run(ctx, false, func(r Reading) error {
					if r.Steps == 3+5 {
						cancel()
					}
					return nil
				}))
				assert.Equal(t, 3+6, part.Steps(), "the step that was begun is made")
				s := part.Snapshot()
				for _, copied := range []*torch.Tensor{&s.Pictures, &s.Best, &s.BestValues, &s.Average} {
					if copied.T != nil {
						*copied = torch.Clone(*copied)
					}
				}
				resumed := Resume(q, settings, 12, s)
				defer resumed.Close()
				torch.Close(s.Optimizer...)
				got := want[:6:6]
				require.NoError(t, resumed.Run(context.Background(), false, func(r Reading) error {
					assert.Equal(t, 3+len(got), r.Steps)
					got = append(got, r.Values)
					return nil
				}))
				assert.Equal(t, want, got)
				assert.Equal(t, torch.Floats(whole.Best()), torch.Floats(resumed.Best()))
				return nil
			})
		})
	}
}

// At another size the pictures go on, resized, and so do Adam's moments; the counting of
// steps too. Before another size the last step is not evaluated.
func TestUpsample(t *testing.T) {
	for name, settings := range all {
		t.Run(name, func(t *testing.T) {
			on(t, torch.CPU, func() error {
				small := &quadratic{target: torch.Full(0.7, torch.CPU, 1, 3, 8, 12)}
				d := New(small, settings, torch.Full(0.5, torch.CPU, 1, 3, 8, 12), 60, 0)
				defer d.Close()
				require.NoError(t, d.Run(context.Background(), true, func(Reading) error { return nil }))
				assert.Equal(t, 60, small.evaluations)
				large := &quadratic{target: torch.Full(0.8, torch.CPU, 1, 3, 16, 24)}
				next := d.Upsample(large, settings, 16, 24, 40, torch.Full(0.1, torch.CPU, 1, 3, 16, 24))
				defer next.Close()
				assert.InDelta(t, 0.8, torch.Floats(next.Pictures())[100], 0.01)
				assert.Equal(t, 60, next.Steps())
				first := -1
				require.NoError(t, next.Run(context.Background(), false, func(r Reading) error {
					if first < 0 {
						first = r.Steps
					}
					return nil
				}))
				assert.Equal(t, 60, first)
				assert.InDelta(t, 0.8, torch.Floats(next.Best())[100], 0.01)
				return nil
			})
		})
	}
}

// What reading says against it ends the run; so does an evaluation that fails, except
// after the context's end, when the best pictures are there.
func TestEndings(t *testing.T) {
	made := errors.New("made up")
	run := func(ctx context.Context, q *quadratic, read func(Reading) error) (err error) {
		on(t, torch.CPU, func() error {
			q.target = picture(torch.CPU, 1, 4, 4)
			d := New(q, all["adam"], torch.Full(0.5, torch.CPU, 1, 3, 4, 4), 10, 0)
			defer d.Close()
			err = d.Run(ctx, false, read)
			return nil
		})
		return err
	}
	nothing := func(Reading) error { return nil }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	assert.ErrorIs(t, run(ctx, &quadratic{}, func(r Reading) error {
		if r.Steps == 4 {
			return made
		}
		return nil
	}), made)
	late := func(n int) error {
		if n == 3 {
			return made
		}
		return nil
	}
	assert.ErrorIs(t, run(ctx, &quadratic{fail: late}, nothing), made)
	assert.ErrorIs(t, run(ctx, &quadratic{fail: func(int) error { return made }}, nothing), made)
	// What fails when the context is done is still an error.
	for _, failure := range []error{made, context.Canceled} {
		ctx, cancel := context.WithCancel(context.Background())
		err := run(ctx, &quadratic{fail: func(n int) error {
			if n == 3 {
				cancel()
				return failure
			}
			return nil
		}}, nothing)
		if failure == made {
			assert.ErrorIs(t, err, made)
		} else {
			assert.NoError(t, err)
		}
	}
}

// Steps are remembered as far as there is memory, and never fewer than the least.
func TestMemorySteps(t *testing.T) {
	for _, c := range []struct {
		memory   Memory
		pictures int64
		want     int
	}{
		{Memory{1 << 30, 5}, 1 << 20, 20},
		{Memory{100 << 20, 5}, 5 << 20, 10},
		{Memory{100 << 20, 5}, 50 << 20, 5},
		{Memory{0, 1}, 50 << 20, 1},
	} {
		assert.Equal(t, c.want, c.memory.Steps(c.pictures), c)
	}
}

// What comes round and is noise has no seam where the grids of all sizes meet.
func TestSmooth(t *testing.T) {
	roughness := func(smooth bool) (seam float64) { // across the edges, relative to the mean
		on(t, torch.CPU, func() error {
			const n = 256
			random := rand.New(rand.NewPCG(1, 0))
			values := make([]float32, 3*90*90)
			for i := range values {
				values[i] = 0.5 + 0.1*(random.Float32()-0.5)
			}
			settings := all["lbfgs"]
			settings.Wrap, settings.Smooth = torch.Wrap{X: true, Y: true}, smooth
			q := &quadratic{target: torch.Full(0.5, torch.CPU, 1, 3, 1, 1)}
			d := New(q, settings, torch.FromFloats(values, torch.CPU, 1, 3, 90, 90), 1, 0)
			defer func() { d.Close() }()
			for _, side := range []int64{128, 181, n} {
				next := d.Upsample(q, settings, side, side, 1, torch.Tensor{})
				d.Close()
				d = next
			}
			x := d.Pictures()
			difference := torch.Sub(x, torch.Crop(x, 0, 1, n, n)) // the last column's is across
			columns := torch.Float64s(torch.SquareSums(torch.Transpose(difference, 0, 3)))
			mean := 0.0
			for _, v := range columns {
				mean += v / n
			}
			seam = math.Sqrt(columns[n-1] / mean)
			return nil
		})
		return seam
	}
	assert.Greater(t, roughness(false), 1.3)
	assert.InDelta(t, 1, roughness(true), 0.15)
}
