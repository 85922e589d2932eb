package nst

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// A checkpoint whose checksum is right, but which no run has written, is refused before the run
// begins, whatever of it was forged.
func TestForgedCheckpoints(t *testing.T) {
	nsttest.NoLeaks(t)
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	layers := []LayerWeight{{Layer: "relu2_1"}}
	content, styles := noise(1, 48, 32), []*picture.Picture{noise(2, 40, 40)}
	for _, run := range []struct {
		optimizer Optimizer
		loss      StyleLoss
	}{{Adam, GramLoss}, {LBFGS, GramLoss}, {Adam, NeighboursLoss}} {
		o := Options{Size: new(0), Scales: "32", Iterations: new(12), Optimizer: run.optimizer, StyleLoss: run.loss,
			ContentLayers: layers, StyleLayers: layers}
		ctx, cancel := context.WithCancel(context.Background())
		var whole bytes.Buffer
		_, err := e.Stylize(ctx, content, styles, o, Hooks{Progress: func(p Progress) {
			if p.Iteration == 9 {
				cancel()
			}
			if p.Last {
				c, err := p.State.Checkpoint()
				require.NoError(t, err)
				_, err = c.WriteTo(&whole)
				require.NoError(t, err)
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
		try := func(forge func(c *Checkpoint)) error {
			c, err := ReadCheckpoint(bytes.NewReader(whole.Bytes()))
			require.NoError(t, err)
			for name, h := range c.tensors {
				h.data = bytes.Clone(h.data)
				c.tensors[name] = h
			}
			forge(c)
			var forged bytes.Buffer
			if _, err := c.WriteTo(&forged); err != nil {
				return nil // what cannot be written is no forgery
			}
			if c, err = ReadCheckpoint(&forged); err != nil {
				return err
			}
			o := o
			o.Resume = c
			_, err = e.Stylize(context.Background(), content, styles, o, Hooks{Progress: func(Progress) {
				t.Error("the run has begun")
			}})
			return err
		}
		c, err := ReadCheckpoint(&whole)
		require.NoError(t, err)
		whole.Reset()
		_, err = c.WriteTo(&whole)
		require.NoError(t, err)
		forgeries := map[string]func(c *Checkpoint){
			"scale -1":             func(c *Checkpoint) { c.state.Scale = -1 },
			"scale 7":              func(c *Checkpoint) { c.state.Scale = 7 },
			"before -1":            func(c *Checkpoint) { c.state.Before = -1 },
			"before 10⁹":           func(c *Checkpoint) { c.state.Before = 1e9 },
			"before":               func(c *Checkpoint) { c.state.Before++ },
			"steps -1":             func(c *Checkpoint) { c.state.Steps = -1 },
			"steps 10⁹":            func(c *Checkpoint) { c.state.Steps = 1e9 },
			"steps 2⁶²":            func(c *Checkpoint) { c.state.Steps = 1 << 62 },
			"seconds":              func(c *Checkpoint) { c.state.Seconds = -1 },
			"gradient's scale 0":   func(c *Checkpoint) { c.state.GradientScale = 0 },
			"gradient's scale < 0": func(c *Checkpoint) { c.state.GradientScale = -2 },
			"not started":          func(c *Checkpoint) { c.state.Started = false },
			"no numbers":           func(c *Checkpoint) { c.state.Numbers = append(c.state.Numbers, 3) },
			"numbers of steps":     func(c *Checkpoint) { c.state.Numbers = []float64{-3} },
			"many numbers":         func(c *Checkpoint) { c.state.Numbers = make([]float64, 1000) },
			"more tensors": func(c *Checkpoint) {
				for i := range 2000 {
					c.tensors[fmt.Sprintf(tensorOptimizer, i)] = c.tensors[tensorPicture]
				}
			},
			"another tensor": func(c *Checkpoint) { c.tensors["other"] = c.tensors[tensorPicture] },
			"one more nearest": func(c *Checkpoint) {
				c.tensors[fmt.Sprintf(tensorNearest, 1)] = hostTensor{torch.Int64, []int64{1, 1, 1, 1}, make([]byte, 8)}
			},
		}
		for name, h := range c.tensors {
			set := func(v float64) func(c *Checkpoint) {
				return func(c *Checkpoint) {
					data := c.tensors[name].data
					switch h.scalar {
					case torch.Float32:
						binary.LittleEndian.PutUint32(data[len(data)-4:], math.Float32bits(float32(v)))
					case torch.Int64:
						binary.LittleEndian.PutUint64(data[len(data)-8:], uint64(int64(v)))
					}
				}
			}
			if h.scalar == torch.Int64 {
				forgeries[name+" -1"], forgeries[name+" 10⁹"] = set(-1), set(1e9)
			} else {
				forgeries[name+" NaN"], forgeries[name+" infinite"] = set(math.NaN()), set(math.Inf(1))
			}
			if slices.Contains([]string{tensorPicture, tensorBest}, name) {
				forgeries[name+" -1"] = set(-1)
			}
			forgeries[name+" missing"] = func(c *Checkpoint) { delete(c.tensors, name) }
			forgeries[name+" empty"] = func(c *Checkpoint) { c.tensors[name] = hostTensor{h.scalar, []int64{0}, nil} }
			forgeries[name+" of another shape"] = func(c *Checkpoint) {
				width := int64(map[torch.ScalarType]int{torch.Float32: 4, torch.Int64: 8}[h.scalar])
				c.tensors[name] = hostTensor{h.scalar, []int64{7, 5}, make([]byte, 35*width)}
			}
			forgeries[name+" of another type"] = func(c *Checkpoint) {
				wide := h
				if wide.scalar = torch.Float64; h.scalar == torch.Float32 {
					wide.data = append(wide.data, wide.data...)
				}
				c.tensors[name] = wide
			}
		}
		for _, name := range slices.Sorted(maps.Keys(forgeries)) {
			err := try(forgeries[name])
			assert.ErrorIs(t, err, ErrCheckpoint, "%s %s: %s", run.optimizer, run.loss, name)
		}
	}
}
