package nst

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// What an evaluation is estimated to need is within 15 % of what it takes.
func TestMemoryEstimate(t *testing.T) {
	e, err := Open(context.Background(), nsttest.Model(t), "cpu")
	require.NoError(t, err)
	defer e.Close()
	for _, c := range []struct{ width, height, side, passes int }{{400, 300, 0, 1}, {520, 300, 160, 1}, {520, 300, 160, 100}} {
		for name, o := range map[string]Options{
			"balanced":      {},
			"classic exact": {Preset: Classic, Precision: Exact},
			"avg":           {Pooling: vgg19.AveragePooling},
			"few layers":    {StyleLayers: []LayerWeight{{"relu3_1", nil}}, ContentLayers: []LayerWeight{{"relu2_2", nil}}},
		} {
			t.Run(fmt.Sprint(c, " ", name), func(t *testing.T) {
				o.Size, o.Scales = new(0), ScalesOff
				tr, err := e.newTransfer(noise(1, c.width, c.height), []*picture.Picture{noise(2, 64, 64)}, o, nil)
				require.NoError(t, err)
				require.NoError(t, e.thread().Do(context.Background(), func() error {
					require.NoError(t, tr.prepare(context.Background()))
					tr.farm.size, tr.farm.passes = size{side: c.side}, c.passes
					ev, err := tr.evaluator(tr.schedule[0])
					require.NoError(t, err)
					defer ev.close()
					x := tr.start(tr.schedule[0])
					_, _, err = ev.evaluate(x) // the network keeps what it will
					require.NoError(t, err)
					before, _ := torch.HostTensors()
					require.NoError(t, torch.ResetPeak(torch.CPU))
					_, _, err = ev.evaluate(x)
					require.NoError(t, err)
					_, peak := torch.HostTensors()
					var most, passes int64
					for _, part := range ev.tiles {
						need := ev.memory(e.workers[0].network, part, 1, false)
						if c.passes > 1 { // all that went before are kept
							passes += need.Pass
							need.Most += passes - need.Pass
						}
						most = max(most, need.Most)
					}
					if c.side > 0 {
						most += 4 * torch.Count(x) // the gradient
					}
					t.Logf(t.Name()+" %.1f MiB estimated, %.1f measured, ratio %.3f", float64(most)/(1<<20), float64(peak-before)/(1<<20), float64(most)/float64(peak-before))
					assert.InEpsilon(t, float64(peak-before), float64(most), 0.15)
					return nil
				}))
			})
		}
	}
}
