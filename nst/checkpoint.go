package nst

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/nlpodyssey/safetensors"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// ErrCheckpoint is matched (errors.Is) by the errors of checkpoints that cannot
// be gone on from: damaged ones, and those of other pictures or options.
var ErrCheckpoint = errors.New("unusable checkpoint")

// Checkpoint is the state of a run between two iterations. A run that goes on
// from it has the costs of one that was never interrupted, bit for bit, on the
// same machine. It is plain data in host memory: for Adam five times the
// picture's, for L-BFGS up to 45 times.
type Checkpoint struct {
	state   checkpointState
	tensors map[string]hostTensor
}

// checkpointState is the part of a checkpoint that is no tensor.
type checkpointState struct {
	Version int             `json:"version"`
	Options json.RawMessage `json:"options"` // resolved
	// Inputs are the hashes of the network and the pictures, by what they are.
	Inputs map[string]string `json:"inputs"`
	Scale  int               `json:"scale"` // of the schedule
	Before int               `json:"before"`
	Steps  int               `json:"steps"`

	Seconds       float64   `json:"seconds"`
	GradientScale float64   `json:"gradient_scale"`
	Started       bool      `json:"started"` // there is an optimiser
	Numbers       []float64 `json:"numbers"` // of its state
}

// checkpointVersion changes when an older program's checkpoints cannot be gone
// on from.
const checkpointVersion = 6

// Iteration is the number of steps that were done.
func (c *Checkpoint) Iteration() int { return c.state.Before + c.state.Steps }

// hostTensor is a copy of a tensor; it is a safetensors.View.
type hostTensor struct {
	scalar torch.ScalarType
	sizes  []int64
	data   []byte
}

func copyTensor(t torch.Tensor) hostTensor {
	return hostTensor{torch.TypeOf(t), torch.Shape(t), torch.Bytes(t)}
}

// tensor copies back to a device.
func (h hostTensor) tensor(device torch.Device) torch.Tensor {
	return torch.Local(func() torch.Tensor { return torch.To(torch.FromBytes(h.data, h.scalar, h.sizes...), device) })
}

// dtypes are the types of a state's tensors; L-BFGS has the place of its newest step as an integer.
var dtypes = map[torch.ScalarType]safetensors.DType{torch.Float32: safetensors.F32, torch.Float64: safetensors.F64,
	torch.Int64: safetensors.I64}

// DType is the element type.
func (h hostTensor) DType() safetensors.DType { return dtypes[h.scalar] }

// Shape is the sizes. A scalar is written as one element (of which this file has
// no other), since readers disagree about shapes of no dimension.
func (h hostTensor) Shape() (out []uint64) {
	if len(h.sizes) == 0 {
		return []uint64{1}
	}
	for _, s := range h.sizes {
		out = append(out, uint64(s))
	}
	return out
}

// Data is the elements, little-endian.
func (h hostTensor) Data() []byte { return h.data }

// DataLen is the number of bytes.
func (h hostTensor) DataLen() uint64 { return uint64(len(h.data)) }

// The names of a checkpoint's tensors.
const (
	tensorPicture    = "picture"
	tensorBest       = "best"
	tensorBestValues = "best.values"
	tensorAverage    = "average"
	tensorOptimizer  = "optimizer.%04d"
	tensorNearest    = "nearest.%04d"
)

// checkpoint copies the descent at scale i.
func (r *run) checkpoint(i int, now *descent.Descent) (*Checkpoint, error) {
	if len(r.items) > 1 {
		return nil, fmt.Errorf("%w: there is none of several pictures at once", ErrCheckpoint)
	}
	inputs, err := r.inputs()
	if err != nil {
		return nil, err
	}
	options, err := json.Marshal(r.settings.Options)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{
		state: checkpointState{
			Version: checkpointVersion, Options: options, Inputs: inputs,
			Scale: i, Seconds: r.seconds(),
		},
		tensors: map[string]hostTensor{},
	}
	err = torch.Scoped(func() error {
		s := now.Snapshot()
		c.state.Before, c.state.Steps = s.Before, s.Steps
		c.tensors[tensorPicture] = copyTensor(s.Pictures)
		c.tensors[tensorBest] = copyTensor(s.Best)
		c.tensors[tensorBestValues] = copyTensor(s.BestValues)
		if s.Average.T != nil {
			c.tensors[tensorAverage] = copyTensor(s.Average)
		}
		if r.eval != nil { // else nothing will be evaluated at this scale
			for k, t := range r.eval.Nearest() {
				c.tensors[fmt.Sprintf(tensorNearest, k)] = copyTensor(t)
			}
		}
		if s.GradientFactors == nil {
			return nil
		}
		c.state.Started, c.state.GradientScale, c.state.Numbers = true, s.GradientFactors[0], s.Numbers
		for k, t := range s.Optimizer {
			c.tensors[fmt.Sprintf(tensorOptimizer, k)] = copyTensor(t)
		}
		return nil
	})
	return c, err
}

// inputs are the hashes of all that a run depends on beside its options.
func (r *run) inputs() (map[string]string, error) {
	network, err := r.engine.networkID()
	if err != nil {
		return nil, err
	}
	m, s := r.items[0], r.settings
	hash := func(f fingerprint) string { return hex.EncodeToString(f[:]) }
	out := map[string]string{"network": network, "content picture": hash(fingerprintOf(m.content))}
	for _, one := range m.styles {
		out[one.name] = hash(one.id)
	}
	if m.contentMask != nil {
		out["content mask"] = hash(fingerprintOf(s.ContentMask))
		for i, mask := range s.StyleMasks {
			out["mask of the "+styleName(i, len(m.styles))] = hash(fingerprintOf(mask))
		}
	}
	if s.StrengthMask != nil {
		out["strength mask"] = hash(fingerprintOf(s.StrengthMask))
	}
	if p := s.Previous; p != nil {
		out["previous frames' picture"] = hash(fingerprintOf(&picture.Picture{Width: p.Picture.Width,
			Height: p.Picture.Height, Pixels: p.Picture.Pixels, Alpha: p.Weights}))
	}
	if s.Start == StartPicture {
		out["picture to start from"] = hash(fingerprintOf(s.Picture))
	}
	return out, nil
}

// checksum is of the state and all tensors.
func (c *Checkpoint) checksum(state []byte) string {
	h := sha256.New()
	h.Write(state)
	for _, name := range slices.Sorted(maps.Keys(c.tensors)) {
		fmt.Fprintf(h, "%s %v", name, c.tensors[name].sizes)
		h.Write(c.tensors[name].data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// The metadata of a checkpoint's file.
const (
	metadataState    = "nst.checkpoint"
	metadataChecksum = "nst.sha256"
)

// WriteTo writes the checkpoint as a safetensors file.
func (c *Checkpoint) WriteTo(w io.Writer) (int64, error) {
	state, err := json.Marshal(c.state)
	if err != nil {
		return 0, err
	}
	count := &counter{w: w}
	err = safetensors.SerializeToWriter(c.tensors, map[string]string{metadataState: string(state),
		metadataChecksum: c.checksum(state)}, count)
	return count.n, err
}

type counter struct {
	w io.Writer
	n int64
}

// Write counts what it passes on.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// ReadCheckpoint reads what WriteTo wrote. A file that is cut short or changed
// in any byte is an error that matches ErrCheckpoint.
func ReadCheckpoint(r io.Reader) (*Checkpoint, error) {
	var buffer bytes.Buffer
	if _, err := buffer.ReadFrom(r); err != nil {
		return nil, err
	}
	data := buffer.Bytes()
	file, err := safetensors.Deserialize(data)
	if err != nil {
		return nil, fmt.Errorf("%w: it is cut short or no checkpoint (%w)", ErrCheckpoint, err)
	}
	_, metadata, err := safetensors.ReadMetadata(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	c := &Checkpoint{tensors: map[string]hostTensor{}}
	for _, t := range file.Tensors() {
		h := hostTensor{data: t.TensorView.Data()}
		for scalar, dtype := range dtypes {
			if dtype == t.TensorView.DType() {
				h.scalar = scalar
			}
		}
		if shape := t.TensorView.Shape(); !slices.Equal(shape, []uint64{1}) {
			for _, s := range shape {
				h.sizes = append(h.sizes, int64(s))
			}
		}
		c.tensors[t.Name] = h
	}
	state := metadata.Metadata()[metadataState]
	if state == "" {
		return nil, fmt.Errorf("%w: it is a safetensors file, but no checkpoint", ErrCheckpoint)
	}
	if c.checksum([]byte(state)) != metadata.Metadata()[metadataChecksum] {
		return nil, fmt.Errorf("%w: it is damaged: its checksum does not fit", ErrCheckpoint)
	}
	if err := json.Unmarshal([]byte(state), &c.state); err != nil {
		return nil, fmt.Errorf("%w: its state cannot be read: %w", ErrCheckpoint, err)
	}
	const most = 1 << 30
	if s := c.state; min(s.Before, s.Steps) < 0 || max(s.Before, s.Steps) > most {
		return nil, fmt.Errorf("%w: no run of this program has written it: it is of %d and %d steps", ErrCheckpoint,
			s.Before, s.Steps)
	}
	return c, nil
}
