package vgg19

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/torch"
)

// Pooling is how the network shrinks its feature maps. Gatys et al. 2016
// (section 2) replace the network's maximum by the average for smoother
// pictures.
type Pooling string

const (
	// MaxPooling takes the largest of 2×2 values, as the network was trained.
	MaxPooling Pooling = "max"
	// AveragePooling takes their mean.
	AveragePooling Pooling = "avg"
	// RescaledAveragePooling is twice the average, which is about as large as
	// the maximum that the network was trained with: see nst/README.md.
	RescaledAveragePooling Pooling = "avg-rescaled"
)

// Padding is what convolutions see beyond a picture's edge.
type Padding string

const (
	// ZeroPadding is zeros, which the network was trained with.
	ZeroPadding Padding = "zeros"
	// ReplicatePadding repeats the outermost values, so that an edge is no
	// feature.
	ReplicatePadding Padding = "replicate"
)

// ErrNetwork is matched (errors.Is) by the errors of files that are no feature
// network, or lack a layer that was asked for.
var ErrNetwork = errors.New("unusable feature network")

// Network is a loaded feature network on one device. It is used on its device's
// torch.Thread; of a network on the CPU, several threads may run passes at once
// (what changes it is for one alone). The owner closes it.
type Network struct {
	path    string
	device  torch.Device
	module  *torch.Module
	scalar  torch.ScalarType // of the module's parameters
	pooling Pooling
	padding Padding
	fast    bool
	fused   bool
	keep    torch.KeptWeights
	chain   *chain // nil for a module that is not just VGG-19
	linked  bool   // it is what it can be: making it did not fail
}

// contract is forward's signature, whatever the module's class and argument
// names.
var contract = regexp.MustCompile(`^forward\(\S+ self, Tensor \w+, str\[\] \w+\) -> Tensor\[\]$`)

// Load reads a TorchScript module that has
//
//	forward(image: Tensor, layers: List[str]) -> List[Tensor]
//
// onto device. The error matches ErrNetwork and says what the file lacks, or is
// that of opening it.
func Load(path string, device torch.Device) (*Network, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%w: %s is a directory", ErrNetwork, path)
	}
	module, err := torch.LoadModule(path, device)
	if torch.OfDevice(err) {
		return nil, err
	}
	if err != nil {
		first, _, _ := strings.Cut(err.(*torch.Error).Message, "\n")
		return nil, fmt.Errorf("%w: %s is not a whole TorchScript file (%s); nst weights makes one", ErrNetwork, path,
			first)
	}
	schema, err := module.Schema("forward")
	if err == nil && !contract.MatchString(schema) {
		err = fmt.Errorf("%w: %s is TorchScript, but not a feature network: its forward is %q, not forward(image: "+
			"Tensor, layers: List[str]) -> List[Tensor]", ErrNetwork, path, schema)
	}
	if err == nil && !answers(module, device) {
		// The module is left to the thread that it keeps.
		return nil, fmt.Errorf("%w: the forward of %s has not returned in %d seconds, of a picture of %d×%d pixels",
			ErrNetwork, path, int(answerTime.Seconds()), probeSide, probeSide)
	}
	if err != nil {
		module.Close()
		return nil, err
	}
	n := &Network{path: path, device: device, module: module, scalar: torch.Float32, pooling: MaxPooling,
		padding: ZeroPadding}
	for _, err := range []error{n.SetPooling(MaxPooling), n.SetPadding(ZeroPadding), n.link(torch.Float32)} {
		if err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// What a network is tried with, and how long it may take.
const (
	probeSide  = 32
	answerTime = 30 * time.Second
)

// answers says whether a module's forward returns, with features or an error: TorchScript can do
// what it likes. It runs on a thread of its own, which is lost if not.
func answers(module *torch.Module, device torch.Device) bool {
	thread := torch.StartThread(device)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_ = thread.Do(context.Background(), func() error {
			torch.NoGrad(func() {
				deepest := []string{Layers[len(Layers)-1].Name}
				module.Forward(torch.Full(0.5, device, 1, 3, probeSide, probeSide), deepest)
			})
			return nil
		})
	}()
	select {
	case <-answered:
		thread.Close()
		return true
	case <-time.After(answerTime):
		return false
	}
}

// Close frees the network.
func (n *Network) Close() {
	n.unlink()
	n.module.Close()
}

// SetFast chooses the fast convolutions (see torch.ConvolutionMode), if the
// network is computed layer by layer.
func (n *Network) SetFast(fast bool) { n.fast = fast }

// SetFused chooses kernels that are a convolution with its bias and ReLU (see
// torch.ConvolutionMode), if the network is computed layer by layer.
func (n *Network) SetFused(fused bool) { n.fused = fused }

// SetKeep chooses what is kept of what the fast convolutions make of their weights, for
// which Memory has the bytes. Passes over small images are faster with it.
func (n *Network) SetKeep(keep torch.KeptWeights) { n.keep = keep }

// LayerByLayer says whether the network was recognised as VGG-19, and is
// computed from its parameters. Others run as the TorchScript they are.
func (n *Network) LayerByLayer() bool { return n.chain != nil }

// SetPooling chooses the pooling. Asking a network that does not offer the
// choice for any but the maximum is an error that matches ErrNetwork.
func (n *Network) SetPooling(p Pooling) error {
	if err := choose(n, attributePooling, p, MaxPooling, AveragePooling, RescaledAveragePooling); err != nil {
		return err
	}
	n.pooling = p
	return nil
}

// SetPadding chooses the padding. Asking a network that does not offer the
// choice for any but zeros is an error that matches ErrNetwork.
func (n *Network) SetPadding(p Padding) error {
	if err := choose(n, attributePadding, p, ZeroPadding, ReplicatePadding); err != nil {
		return err
	}
	n.padding = p
	return nil
}

// choose sets an attribute to one of its choices, of which the first is what a
// network without the attribute is taken to do.
func choose[T ~string](n *Network, attribute string, value T, choices ...T) error {
	if !slices.Contains(choices, value) {
		return fmt.Errorf("unknown %s %q", attribute, value)
	}
	_, ok, err := n.module.Attribute(attribute)
	if err != nil {
		return err
	}
	if ok {
		return n.module.SetAttribute(attribute, string(value))
	}
	if value != choices[0] {
		return fmt.Errorf("%w: %s has a fixed %s; only a network with an attribute %q can change it", ErrNetwork,
			n.path, attribute, attribute)
	}
	return nil
}

// Cast converts the network's parameters, and images are to be of the same type.
// To half precision only a network that is computed layer by layer is converted,
// for which images are float32; Features stays in float32.
func (n *Network) Cast(scalar torch.ScalarType) error {
	half := scalar == torch.Float16 || scalar == torch.BFloat16
	module := scalar
	if half { // the module keeps its own weights, to come back to
		module = torch.Float32
	}
	if module == n.scalar && n.linked && (n.chain == nil || n.chain.scalar == scalar) && !(half && n.chain == nil) {
		return nil
	}
	if module != n.scalar {
		if err := n.module.Cast(module); err != nil {
			return err
		}
		n.scalar = module
	}
	if err := n.link(scalar); err != nil {
		return err
	}
	if half && n.chain == nil {
		return fmt.Errorf("%w: %s cannot run in half precision: it is not VGG-19 layer by layer", ErrNetwork, n.path)
	}
	return nil
}

// Features returns the layers' feature maps [N,C,H,W] of an image
// [N,3,H,W], RGB in [0,1], as the TorchScript module computes them: autograd can
// differentiate them. (Run does the same in less time and memory.) It computes
// no further than the deepest layer. It is numeric code in torch's sense: called
// in a scope, it panics with a *torch.Error.
func (n *Network) Features(image torch.Tensor, layers []Layer) []torch.Tensor {
	return n.module.Forward(image, names(layers))
}

// Require checks, on a tiny image, that the network has every layer and
// that each is one picture's feature maps at the table's stride. It returns
// their numbers of channels. It must run on the device's thread.
func (n *Network) Require(device torch.Device, layers []Layer) (channels map[Layer]int64, err error) {
	const side = probeSide
	probe := func(layers []Layer) error {
		return torch.Scoped(func() error {
			var features []torch.Tensor
			torch.NoGrad(func() {
				image := torch.Cast(torch.Full(0.5, device, 1, 3, side, side), n.scalar)
				features = n.Features(image, layers)
			})
			channels = map[Layer]int64{}
			for i, f := range features {
				shape, layer := torch.Shape(f), layers[i]
				expected := int64(side / layer.Stride)
				if len(shape) != 4 || shape[0] != 1 || shape[2] != expected || shape[3] != expected {
					return fmt.Errorf("%w: %s answers with shape %v for %s of a %d×%d image, not [1,C,%d,%d]",
						ErrNetwork, n.path, shape, layer.Name, side, side, expected, expected)
				}
				channels[layer] = shape[1]
			}
			return nil
		})
	}
	err = probe(layers)
	if err == nil || errors.Is(err, ErrNetwork) || torch.OfDevice(err) {
		return channels, err
	}
	for _, l := range layers { // which one?
		if one := probe([]Layer{l}); torch.OfDevice(one) {
			return nil, one
		} else if one != nil {
			return nil, fmt.Errorf("%w: %s has no layer %s (%w)", ErrNetwork, n.path, l.Name, one)
		}
	}
	return nil, err
}

// Parameter is one tensor of a network's file.
type Parameter struct {
	Name  string
	Shape []int64
}

// Description is what a network's file says of itself.
type Description struct {
	// Source, Normalisation and Pooling are empty for a network that does not
	// say.
	Source, Normalisation, Pooling string
	// LayerByLayer is that of the network.
	LayerByLayer bool
	// Layers are the table's layers that the network answers for.
	Layers     []string
	Parameters []Parameter
}

// Describe reads the network's own account and tries every layer of the table.
func (n *Network) Describe(device torch.Device) (*Description, error) {
	d := &Description{LayerByLayer: n.LayerByLayer()}
	for name, field := range map[string]*string{attributeSource: &d.Source, attributeNormalisation: &d.Normalisation,
		attributePooling: &d.Pooling} {
		value, _, err := n.module.Attribute(name)
		if err != nil {
			return nil, err
		}
		*field = value
	}
	names, err := n.module.Parameters()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	err = torch.Scoped(func() error {
		for _, name := range names {
			d.Parameters = append(d.Parameters, Parameter{name, torch.Shape(n.module.Parameter(name))})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, l := range Layers {
		if _, err := n.Require(device, []Layer{l}); err == nil {
			d.Layers = append(d.Layers, l.Name)
		} else if torch.OfDevice(err) {
			return nil, err
		}
	}
	return d, nil
}
