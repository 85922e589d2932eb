package bench

import (
	"fmt"
	"math"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Workload is a recipe for what is measured. A recipe whose figures would change gets
// another version.
type Workload struct {
	Name    string
	Version int
	About   string
	// Size is the side of the square pictures, Batch how many are made at once.
	Size, Batch int
	Options     nst.Options
	// Whole has a whole picture made, of so many iterations. On a CPU only OnCPU of them are
	// run, if it is not 0, and the rest is extrapolated: not of a picture made from coarse to
	// fine, since fewer iterations have other scales.
	Whole, OnCPU int
	// Flags are what a workload that is no recipe (version 0) was asked for beside its size.
	Flags string
}

// gatysLayers are the style layers of Gatys et al. A recipe names them, since the default
// objective's may change.
func gatysLayers() (all []nst.LayerWeight) {
	for _, name := range []string{"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"} {
		all = append(all, nst.LayerWeight{Layer: name, Weight: new(0.2)})
	}
	return all
}

// Iteration is the workload of single iterations of a size, with the layers of Gatys et al.
// and Adam.
func Iteration(size, batch int) Workload {
	name := fmt.Sprintf("iteration-%d", size)
	about := "one iteration: one content layer, five style layers, Adam"
	if batch > 1 {
		name = fmt.Sprintf("batch-%dx%d", batch, size)
		about = fmt.Sprintf("one iteration of %d pictures at once", batch)
	}
	return Workload{Name: name, Version: 1, About: about, Size: size, Batch: batch,
		Options: nst.Options{Optimizer: nst.Adam, StyleLayers: gatysLayers(), StyleWeight: new(100.0)}}
}

// gatys is neural-style's figure: 500 iterations at 512 pixels, of the losses of Gatys et al.
func gatys(optimizer nst.Optimizer) Workload {
	return Workload{
		Name: "gatys-512-500", Version: 1,
		About: "neural-style's figure: 500 iterations at 512 px by " + string(optimizer),
		Size:  512, Batch: 1, Whole: 500, OnCPU: 50,
		Options: nst.Options{Preset: nst.Gatys, Optimizer: optimizer, Scales: nst.ScalesOff},
	}
}

// Suites are sets of workloads, by name.
var Suites = map[string][]Workload{
	"standard": {
		Iteration(256, 1), Iteration(512, 1), Iteration(1024, 1), Iteration(2048, 1), Iteration(256, 16),
		{Name: "tiles-4096", Version: 1, About: "one iteration at 4096 px in tiles of 1024", Size: 4096, Batch: 1,
			Options: nst.Options{Optimizer: nst.Adam, StyleLayers: gatysLayers(), StyleWeight: new(100.0),
				Tile: "1024"}},
		gatys(nst.Adam), gatys(nst.LBFGS),
		{Name: "balanced-1024", Version: 2, About: "the default picture at 1024 px, to the finished file", Size: 1024,
			Batch: 1, Whole: balancedIterations},
	},
}

// balancedIterations are the default preset's.
const balancedIterations = 200

// Pictures are the content and style that workloads are measured with, of 512×512 pixels:
// made up, because any will do for timing but constant ones, whose maxima are ties.
func Pictures() (content, style *picture.Picture) {
	made := func(seed int) *picture.Picture {
		p := picture.New(512, 512)
		for i := range p.Pixels {
			x, y, c := float64(i%512), float64(i/512%512), float64(i/512/512)
			v := math.Sin(x/float64(7+seed)+c) + math.Sin(y/float64(11+seed)-c) + math.Sin((x+y)/5) + math.Sin(x*y/9000)
			p.Pixels[i] = float32(0.5 + v/8)
		}
		return p
	}
	return made(1), made(5)
}

// iterations are how many of a whole picture are run on a device.
func (w Workload) iterations(device torch.Device) int {
	if device == torch.CPU && w.OnCPU > 0 {
		return w.OnCPU
	}
	return w.Whole
}
