package vgg19

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/seed9bb5c928/nst/torch"
)

// The names of what the TorchScript module carries beside forward. A module
// from elsewhere needs forward alone.
const (
	attributePooling       = "pooling"
	attributePadding       = "padding"
	attributeSource        = "source"
	attributeNormalisation = "normalisation"
)

// header begins forward. depth is how far the layers asked for reach; found
// collects their features.
const header = `
def forward(self, image: Tensor, layers: List[str]) -> List[Tensor]:
    names = [%s]
    depth = -1
    for layer in layers:
        assert layer in names, "the network has no layer " + layer
        depth = max(depth, names.index(layer))
    found: Dict[str, Tensor] = {}
    x = image * self.input_scale - self.input_shift
`

// ReLU works in place (the convolution's gradient needs its input and weight,
// not its output) unless the convolution's own output was asked for.
const convolutionSource = `
    if depth >= %[2]d:
        if self.padding == "zeros":
            x = torch.conv2d(x, self.%[1]s_weight, self.%[1]s_bias, [1, 1], [1, 1])
        else:
            x = torch.replication_pad2d(x, [1, 1, 1, 1])
            x = torch.conv2d(x, self.%[1]s_weight, self.%[1]s_bias)
        if "%[1]s" in layers:
            found["%[1]s"] = x
            if depth > %[2]d:
                x = torch.relu(x)
        else:
            x = torch.relu_(x)
        if "%[3]s" in layers:
            found["%[3]s"] = x
`

const poolSource = `
    if depth >= %[2]d:
        if self.pooling == "max":
            x = torch.max_pool2d(x, [2, 2], [2, 2])
        else:
            divisor = 4 if self.pooling == "avg" else 2
            x = torch.avg_pool2d(x, [2, 2], [2, 2], [0, 0], False, True, divisor)
        if "%[1]s" in layers:
            found["%[1]s"] = x
`

const footer = `
    return [found[layer] for layer in layers]
`

// source is forward for the layers that w has the weights of.
func (w *Weights) source() string {
	var names []string
	var body strings.Builder
	for i, l := range Layers {
		if l.Kind == Conv {
			if _, ok := w.convolutions[l.Name]; !ok {
				break
			}
			fmt.Fprintf(&body, convolutionSource, l.Name, i, Layers[i+1].Name)
		} else if l.Kind == Pool {
			fmt.Fprintf(&body, poolSource, l.Name, i)
		}
		names = append(names, fmt.Sprintf("%q", l.Name))
	}
	return fmt.Sprintf(header, strings.Join(names, ", ")) + body.String() + footer
}

// WriteTorchScript writes the network as a TorchScript module with
//
//	forward(image: Tensor, layers: List[str]) -> List[Tensor]
//
// whose image is [N,3,H,W], RGB in [0,1]. The file appears whole or not at all.
func (w *Weights) WriteTorchScript(path string) error {
	return torch.Scoped(func() error {
		m, err := torch.NewModule("VGG19")
		if err != nil {
			return err
		}
		defer m.Close()
		if err := w.fill(m); err != nil {
			return err
		}
		f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", filepath.Dir(path), err)
		}
		defer f.Cleanup()
		if err := m.Save(f.Name()); err != nil {
			return fmt.Errorf("%s cannot be written: %w", path, err)
		}
		return f.CloseAtomicallyReplace()
	})
}

func (w *Weights) fill(m *torch.Module) error {
	n := w.Normalisation
	for name, values := range map[string][]float32{"input_scale": n.Scale[:], "input_shift": n.Shift[:]} {
		if err := m.AddBuffer(name, torch.FromFloats(values, torch.CPU, 1, 3, 1, 1)); err != nil {
			return err
		}
	}
	for _, l := range Layers {
		c, ok := w.convolutions[l.Name]
		if !ok {
			continue
		}
		weight := torch.FromFloats(c.weight, torch.CPU, int64(c.out), int64(c.in), 3, 3)
		if err := m.AddParameter(l.Name+"_weight", weight); err != nil {
			return err
		}
		if err := m.AddParameter(l.Name+"_bias", torch.FromFloats(c.bias, torch.CPU, int64(c.out))); err != nil {
			return err
		}
	}
	for name, value := range map[string]string{attributePooling: string(MaxPooling),
		attributePadding: string(ZeroPadding), attributeSource: w.Source, attributeNormalisation: n.Name} {
		if err := m.AddString(name, value); err != nil {
			return err
		}
	}
	return m.Define(w.source())
}
