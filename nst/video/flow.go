package video

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Numbered is one of a clip's pictures with its place among them, from 0.
type Numbered struct {
	Index   int
	Picture *picture.Picture
}

// Flow finds the optical flow between two frames of one size: two planes, u to the right and
// v down, so that what is at (x,y) of from is at (x+u, y+v) of to. The error matches ErrNoFlow
// where there is none: a frame is then not held to one farther back than the nearest that it
// is to be. A Run with several engines calls it from several goroutines at once.
type Flow func(ctx context.Context, from, to Numbered) ([]float32, error)

// ErrNoFlow is matched (errors.Is) by the error of a flow that is not there.
var ErrNoFlow = errors.New("there is no flow")

// ErrFlow is matched by the error of a flow's file, or of a network, that cannot be used.
var ErrFlow = errors.New("unusable flow")

// OwnFlow is torch.Flow.
func OwnFlow(_ context.Context, from, to Numbered) (flow []float32, err error) {
	p := from.Picture
	err = torch.Scoped(func() error { // whose error a shortage of memory is
		flow = torch.Flow(p.Pixels, to.Picture.Pixels, p.Height, p.Width)
		return nil
	})
	return flow, err
}

// FlowFiles reads flows from Middlebury's files (.flo) in a folder, named as artistic-videos
// does: forward_1_2.flo is from frame 1 to frame 2, the first two, and backward_2_1.flo from 2
// to 1. A file of another size is resized.
func FlowFiles(folder string) Flow {
	return func(_ context.Context, from, to Numbered) ([]float32, error) {
		kind := "forward"
		if from.Index > to.Index {
			kind = "backward"
		}
		path := filepath.Join(folder, fmt.Sprintf("%s_%d_%d.flo", kind, from.Index+1, to.Index+1))
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w from frame %d to frame %d: %s is missing", ErrNoFlow, from.Index+1, to.Index+1,
				path)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFlow, err)
		}
		defer f.Close()
		flow, width, height, err := readFlow(f)
		if err != nil {
			return nil, fmt.Errorf("%w: %s %w", ErrFlow, path, err)
		}
		return resizedFlow(flow, width, height, from.Picture.Width, from.Picture.Height), nil
	}
}

// flowMagic is what a .flo file begins with: "PIEH".
const flowMagic = 202021.25

// readFlow reads a .flo file (Baker et al. 2011): a float, the width, the height, and for each
// pixel u and v, all little-endian. The error completes "FILE …".
func readFlow(r io.Reader) (flow []float32, width, height int, err error) {
	var head struct {
		Magic         float32
		Width, Height int32
	}
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil || head.Magic != flowMagic {
		return nil, 0, 0, errors.New("is no .flo file")
	}
	width, height = int(head.Width), int(head.Height)
	if width < 1 || height < 1 || width > picture.MaxSide || height > picture.MaxSide ||
		int64(width)*int64(height) > picture.MaxPixels {
		return nil, 0, 0, fmt.Errorf("says that it is %d×%d", width, height)
	}
	plane := width * height
	flow = make([]float32, 2*plane)
	row := make([]byte, 8*width)
	for y := range height {
		if _, err := io.ReadFull(r, row); err != nil {
			return nil, 0, 0, fmt.Errorf("is cut short: it has %d of %d rows", y, height)
		}
		for x := range width {
			for k := range 2 {
				v := math.Float32frombits(binary.LittleEndian.Uint32(row[8*x+4*k:]))
				if math.Abs(float64(v)) > unknownFlow { // which is how files say that it is not known
					v = float32(math.NaN())
				}
				flow[k*plane+y*width+x] = v
			}
		}
	}
	return flow, width, height, nil
}

// unknownFlow is the largest motion of a .flo file that is one.
const unknownFlow = 1e9

// resizedFlow is a flow at another size, whose pixels are as much smaller or larger.
func resizedFlow(flow []float32, width, height, toWidth, toHeight int) []float32 {
	if width == toWidth && height == toHeight {
		return flow
	}
	out := make([]float32, 2*toWidth*toHeight)
	scale := [2]float32{float32(toWidth) / float32(width), float32(toHeight) / float32(height)}
	for y := range toHeight {
		for x := range toWidth {
			// The nearest: at an edge of motion there is nothing between.
			fromX, fromY := (2*x+1)*width/(2*toWidth), (2*y+1)*height/(2*toHeight)
			for k := range 2 {
				out[(k*toHeight+y)*toWidth+x] = scale[k] * flow[(k*height+fromY)*width+fromX]
			}
		}
	}
	return out
}

// FlowModel is a network for optical flow, a TorchScript file such as torchvision's RAFT makes
// with torch.jit.script. Its forward takes two pictures [1,3,H,W] with values from −1 to 1 and
// sides that are multiples of 8, and returns a flow [1,2,H,W], or several, of which the last
// counts. The owner closes it.
type FlowModel struct {
	thread *torch.Thread
	module *torch.Module
}

// OpenFlowModel loads a network onto a device (see torch.ParseDevice). The error matches
// ErrFlow or torch.ErrDevice.
func OpenFlowModel(ctx context.Context, path, device string) (*FlowModel, error) {
	d, err := torch.ParseDevice(device)
	if err != nil {
		return nil, err
	}
	m := &FlowModel{thread: torch.StartThread(d)}
	err = m.thread.Do(ctx, func() (err error) {
		m.module, err = torch.LoadModule(path, d)
		return err
	})
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%w: %s is no network that can be loaded: %w", ErrFlow, path, err)
	}
	return m, nil
}

// Flow is a Flow.
func (m *FlowModel) Flow(ctx context.Context, from, to Numbered) (flow []float32, err error) {
	const multiple = 8
	up := func(n int) int { return (n + multiple - 1) / multiple * multiple }
	width, height := from.Picture.Width, from.Picture.Height
	wide, high := up(width), up(height)
	err = m.thread.Do(ctx, func() error {
		return torch.Scoped(func() error {
			tensor := func(p *picture.Picture) torch.Tensor {
				return torch.FromFloats(padded(p, wide, high), m.thread.Device(), 1, 3, int64(high), int64(wide))
			}
			out := m.module.ForwardPair(tensor(from.Picture), tensor(to.Picture))
			if shape := torch.Shape(out); !slices.Equal(shape, []int64{1, 2, int64(high), int64(wide)}) {
				return fmt.Errorf("%w: the network made of two pictures [1,3,%d,%d] a tensor of shape %v, not "+
					"[1,2,%d,%d]", ErrFlow, high, wide, shape, high, wide)
			}
			flow = torch.Floats(torch.Cast(out, torch.Float32))
			return nil
		})
	})
	if err != nil && !errors.Is(err, ErrFlow) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrFlow, err)
	}
	if err != nil {
		return nil, err
	}
	cut := make([]float32, 0, 2*width*height)
	for row := range 2 * high {
		if row%high < height {
			cut = append(cut, flow[row*wide:row*wide+width]...)
		}
	}
	return cut, nil
}

// padded is a picture's values from −1 to 1, with its last column and row repeated.
func padded(p *picture.Picture, width, height int) []float32 {
	out := make([]float32, 0, 3*width*height)
	for k := range 3 {
		for y := range height {
			for x := range width {
				v := p.Pixels[(k*p.Height+min(y, p.Height-1))*p.Width+min(x, p.Width-1)]
				out = append(out, 2*v-1)
			}
		}
	}
	return out
}

// Close frees the network.
func (m *FlowModel) Close() {
	if m.module != nil {
		_ = m.thread.Do(context.Background(), func() error { m.module.Close(); return nil })
	}
	m.thread.Close()
}
