package picture_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// A file of each kind that people bring is what a colour-managed viewer shows of it,
// or is refused where testdata/kinds/index.json allows it: testdata/kinds/make.py made them.
// testdata/found has what came out wrong once.
func TestKinds(t *testing.T) {
	for folder, least := range map[string]int{"testdata/kinds": 112, "testdata/found": 20} {
		text, err := os.ReadFile(filepath.Join(folder, "index.json"))
		require.NoError(t, err)
		var kinds map[string]struct {
			Kind    string
			Mean    float64 // difference allowed, in levels of 255
			Refuse  bool    `json:"may_refuse"`
			Refused bool    // it has to be
		}
		require.NoError(t, json.Unmarshal(text, &kinds))
		require.GreaterOrEqual(t, len(kinds), least)
		for name, kind := range kinds {
			t.Run(name, func(t *testing.T) {
				p, err := picture.Open(filepath.Join(folder, name))
				if kind.Refused || err != nil && kind.Refuse {
					require.ErrorIs(t, err, picture.ErrPicture)
					assert.NotContains(t, err.Error(), "\n")
					return
				}
				require.NoError(t, err)
				require.NoError(t, p.Check())
				p = p.OverWhite()
				want, err := picture.Open(filepath.Join(folder, "expected", name+".png"))
				require.NoError(t, err)
				require.Equal(t, [2]int{want.Width, want.Height}, [2]int{p.Width, p.Height})
				sum := 0.0
				for i, v := range want.Pixels {
					sum += math.Abs(float64(v - p.Pixels[i]))
				}
				assert.LessOrEqual(t, 255*sum/float64(len(want.Pixels)), kind.Mean, kind.Kind)
			})
		}
	}
}
