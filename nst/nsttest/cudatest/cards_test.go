package cudatest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/torch"
)

// Each precision on cards of each generation: bfloat16 is known from compute capability 8.0 on, and
// refused in a line before.
func TestCards(t *testing.T) {
	for _, capability := range []int{75, 80, 86, 87, 89, 90, 100, 103, 120, 121} {
		t.Run(fmt.Sprint(capability), func(t *testing.T) {
			if inAnotherProcess(t, fmt.Sprint("capability ", capability), "devices 2") {
				return
			}
			assert.Equal(t, capability, torch.ComputeCapability("cuda:0"))
			e, pictures := engine(t, "cuda"), inputs(t, 1)
			for _, precision := range precisions {
				o := nst.Options{Precision: precision, Size: new(64), Iterations: new(4), Scales: nst.ScalesOff}
				r, err := e.Stylize(context.Background(), pictures[0].Content, pictures[0].Styles, o, nst.Hooks{})
				if precision == nst.BF16 && capability < 80 {
					assert.ErrorIs(t, err, nst.ErrInvalidOption)
					assert.ErrorContains(t, err, "needs a card of compute capability 8.0 or higher, and cuda:0 is ")
					continue
				}
				if assert.NoError(t, err, precision) {
					assert.Equal(t, 3, r.Replayed, precision)
				}
				clean(t)
			}
		})
	}
}
