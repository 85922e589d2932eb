package nsttest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed9bb5c928/nst/nst/vgg19"
)

// Slim is the file of a VGG-19 with an eighth of the channels, of random weights (He's
// initialisation, the same each time), until the test ends: for what does not depend on the
// weights. Small pictures take nearly all of their time to read the published ones.
func Slim(t testing.TB) string {
	t.Helper()
	random := rand.New(rand.NewPCG(19, 0))
	header, data := map[string]any{}, []byte{}
	add := func(name string, shape []int, value func() float64) {
		begin, count := len(data), 1
		for _, n := range shape {
			count *= n
		}
		for range count {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(value())))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(data)}}
	}
	in := 3
	for index, l := range vgg19.Layers {
		if l.Kind != vgg19.Conv {
			continue
		}
		out, deviation := l.Channels/8, math.Sqrt(2/float64(9*in))
		add(fmt.Sprintf("features.%d.weight", index), []int{out, in, 3, 3},
			func() float64 { return deviation * random.NormFloat64() })
		add(fmt.Sprintf("features.%d.bias", index), []int{out}, func() float64 { return 0.2*random.Float64() - 0.1 })
		in = out
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
	weights, model := filepath.Join(t.TempDir(), "slim.safetensors"), filepath.Join(t.TempDir(), "slim.pt")
	if err := os.WriteFile(weights, file, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := vgg19.ReadWeights(context.Background(), weights, vgg19.Torchvision.Name)
	if err == nil {
		err = w.WriteTorchScript(model)
	}
	if err != nil {
		t.Fatal(err)
	}
	return model
}
