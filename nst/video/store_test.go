package video

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// coloured is a picture in values of 8 bits, other for each seed.
func coloured(seed, width, height int) *picture.Picture {
	p := picture.New(width, height)
	for i := range p.Pixels {
		p.Pixels[i] = float32((i*7+seed*31)%256) / 255
	}
	return p
}

// A store has what was added, to the last bit, also after what was being added was cut off at
// any byte.
func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.mp4.nst")
	identity := map[string]string{"clip": "abc", "size": "64"}
	s, err := CreateStore(path, identity)
	require.NoError(t, err)
	var ends []int64
	for i := range 3 {
		made := Made{Index: i, Cut: i == 0, Known: 0.5, Iterations: 7, Result: coloured(i, 16, 12)}
		require.NoError(t, s.Add(1, &made))
		ends = append(ends, s.Bytes())
	}
	require.NoError(t, s.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, whole, int(ends[2]))
	for cut := ends[0] - 700; cut <= ends[2]; cut += 97 {
		require.NoError(t, os.WriteFile(path, whole[:cut], 0o600))
		s, err := OpenStore(path, identity)
		require.NoError(t, err)
		frames, shots := s.Count(0)
		want := 0
		for _, end := range ends {
			if cut >= end {
				want++
			}
		}
		assert.Equal(t, want, frames, "cut at %d of %v", cut, ends)
		assert.Equal(t, min(want, 1), shots)
		for i := range frames {
			made, ok := s.Made(1, i)
			assert.True(t, ok)
			assert.Equal(t, Made{Index: i, Cut: i == 0, Known: 0.5, Iterations: 7}, made)
			p, err := s.Result(1, i)
			require.NoError(t, err)
			assert.Equal(t, coloured(i, 16, 12).Pixels, p.Pixels)
		}
		// What is added next is whole, wherever it was cut.
		require.NoError(t, s.Add(1, &Made{Index: frames, Result: coloured(9, 16, 12)}))
		require.NoError(t, s.Close())
		s, err = OpenStore(path, identity)
		require.NoError(t, err)
		again, _ := s.Count(0)
		assert.Equal(t, frames+1, again)
		p, err := s.Result(1, frames)
		require.NoError(t, err)
		assert.Equal(t, coloured(9, 16, 12).Pixels, p.Pixels)
		require.NoError(t, s.Close())
	}
}

// What is not this run's is refused, and left as it is.
func TestStoreErrors(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a.nst")
	s, err := CreateStore(path, map[string]string{"clip": "abc", "size": "64"})
	require.NoError(t, err)
	require.NoError(t, s.Add(1, &Made{Result: coloured(1, 8, 8)}))
	_, err = s.Result(1, 5)
	require.ErrorIs(t, err, ErrStore)
	assert.ErrorContains(t, err, "no frame 6 of pass 1")
	require.NoError(t, s.Close())
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	used, err := OpenStore(path, map[string]string{"clip": "abc", "size": "64"})
	require.NoError(t, err)
	_, err = OpenStore(path, map[string]string{"clip": "abc", "size": "64"})
	require.ErrorIs(t, err, ErrStore)
	assert.ErrorContains(t, err, "is in use by another run")
	require.NoError(t, used.Close())
	_, err = CreateStore(path, nil)
	require.ErrorIs(t, err, ErrStore)
	_, err = OpenStore(path, map[string]string{"clip": "abc", "size": "128", "passes": "2"})
	require.ErrorIs(t, err, ErrStore)
	assert.ErrorContains(t, err, "was made with passes (none), not 2; size 64, not 128")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, before, after)

	other := filepath.Join(folder, "b.nst")
	require.NoError(t, os.WriteFile(other, []byte("not a store"), 0o600))
	_, err = OpenStore(other, nil)
	require.ErrorIs(t, err, ErrStore)
	assert.ErrorContains(t, err, "holds no frames of this program's")
	left, err := os.ReadFile(other)
	require.NoError(t, err)
	assert.Equal(t, "not a store", string(left))
	_, err = OpenStore(filepath.Join(folder, "none.nst"), nil)
	assert.ErrorIs(t, err, ErrStore)
}
