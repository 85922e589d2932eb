package video

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/torch"
)

// written is a .flo file of a flow.
func written(flow []float32, width, height int) []byte {
	var out bytes.Buffer
	for _, v := range []any{float32(flowMagic), int32(width), int32(height)} {
		_ = binary.Write(&out, binary.LittleEndian, v)
	}
	for i := range width * height {
		_ = binary.Write(&out, binary.LittleEndian, [2]float32{flow[i], flow[width*height+i]})
	}
	return out.Bytes()
}

// Flows of files are found by their frames, in the size of the pictures.
func TestFlowFiles(t *testing.T) {
	folder := t.TempDir()
	flow := constant(32, 24, 1.5, -2)
	flow[5], flow[32*24+6] = 2e9, float32(math.Inf(1))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "backward_2_1.flo"), written(flow, 32, 24), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "forward_1_2.flo"), written(flow, 32, 24)[:500], 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "forward_2_3.flo"), []byte("PNG"), 0o600))
	huge := written(flow, 32, 24)
	copy(huge[4:], []byte{255, 255, 255, 127})
	require.NoError(t, os.WriteFile(filepath.Join(folder, "forward_3_4.flo"), huge, 0o600))
	of := FlowFiles(folder)
	frame := func(i int) Numbered { return Numbered{i, waves(64, 48, 0, 0)} }

	got, err := of(context.Background(), frame(1), frame(0))
	require.NoError(t, err)
	require.Len(t, got, 2*64*48)
	assert.Equal(t, []float32{3, -4}, []float32{got[0], got[64*48]}, "twice the size is twice the way")
	assert.True(t, math.IsNaN(float64(got[10])), "what is not known is no number")
	assert.Zero(t, reliable(got, constant(64, 48, -3, 4), 64, 48)[10])
	for i, v := range warped(frame(0).Picture, got).Pixels {
		require.False(t, math.IsNaN(float64(v)), "value %d", i)
	}

	for _, c := range []struct {
		from, to int
		is       error
		says     string
	}{
		{0, 1, ErrFlow, "forward_1_2.flo is cut short: it has 1 of 24 rows"},
		{1, 2, ErrFlow, "forward_2_3.flo is no .flo file"},
		{2, 3, ErrFlow, "forward_3_4.flo says that it is 2147483647×24"},
		{4, 0, ErrNoFlow, "from frame 5 to frame 1"},
	} {
		_, err := of(context.Background(), frame(c.from), frame(c.to))
		require.ErrorIs(t, err, c.is)
		assert.ErrorContains(t, err, c.says)
	}
}

// A network's flow is that of the pictures, whatever their size.
func TestFlowModel(t *testing.T) {
	nsttest.NoLeaks(t)
	save := func(name, source string) string {
		path := filepath.Join(t.TempDir(), name)
		m, err := torch.NewModule("Flow")
		require.NoError(t, err)
		defer m.Close()
		require.NoError(t, m.Define(source))
		require.NoError(t, m.Save(path))
		return path
	}
	open := func(path string) *FlowModel {
		m, err := OpenFlowModel(context.Background(), path, "cpu")
		require.NoError(t, err)
		t.Cleanup(m.Close)
		return m
	}
	a, b := Numbered{0, waves(61, 45, 0, 0)}, Numbered{1, waves(61, 45, 1, 0)}
	// Its u is the red of the first picture, its v that of the second.
	m := open(save("list.pt", `
def forward(self, a, b):
    flow = torch.cat([a[:, :1], b[:, :1]], 1)
    return [flow * 0, flow]
`))
	flow, err := m.Flow(context.Background(), a, b)
	require.NoError(t, err)
	require.Len(t, flow, 2*61*45)
	for i := range 61 * 45 {
		require.InDelta(t, 2*a.Picture.Pixels[i]-1, flow[i], 1e-6)
		require.InDelta(t, 2*b.Picture.Pixels[i]-1, flow[61*45+i], 1e-6)
	}
	m = open(save("pair.pt", "\ndef forward(self, a, b):\n    return (a[:, :1], torch.cat([a[:, :1], b[:, :1]], 1))\n"))
	same, err := m.Flow(context.Background(), a, b)
	require.NoError(t, err)
	assert.Equal(t, flow, same)

	for source, says := range map[string]string{
		"\ndef forward(self, a, b):\n    return a\n":         "a tensor of shape [1 3 48 64], not [1,2,48,64]",
		"\ndef forward(self, a, b):\n    return 'words'\n":   "forward returned String",
		"\ndef forward(self, a):\n    return a\n":            "forward",
		"\ndef forward(self, a, b):\n    return a.view(7)\n": "shape",
	} {
		_, err := open(save("wrong.pt", source)).Flow(context.Background(), a, b)
		require.ErrorIs(t, err, ErrFlow)
		assert.ErrorContains(t, err, says)
	}
	_, err = OpenFlowModel(context.Background(), filepath.Join(t.TempDir(), "none.pt"), "cpu")
	require.ErrorIs(t, err, ErrFlow)
	_, err = OpenFlowModel(context.Background(), "none.pt", "cuda:77")
	require.ErrorIs(t, err, torch.ErrDevice)
}
