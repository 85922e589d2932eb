package descent

import "github.com/seed9bb5c928/nst/torch"

// Method is the method that changes the pictures.
type Method int

// The methods: see torch.NewAdam and torch.NewLBFGS.
const (
	Adam Method = iota
	LBFGS
)

// Settings are how a descent goes on.
type Settings struct {
	Method Method
	Rate   float64
	Beta2  float64 // Adam's β₂
	// Wrap is in which directions the pictures come round.
	Wrap torch.Wrap
	// Smooth has the pictures smoothed in those directions whenever they grow. Where the
	// grids of two sizes meet, a picture is smoothed least by being resized, and of noise
	// the differences are largest there: at the edges that is at all sizes, and would be
	// a seam.
	Smooth bool
	// Memory is what L-BFGS may remember its steps in.
	Memory Memory
	// StateEvery has the values be read at its multiples, counted in steps; 0: whenever
	// it is cheap.
	StateEvery int
	// ReadEvery is how many steps are sent before values are read; 0: see Run.
	ReadEvery int
	// OnUnrecorded, if it is there, is told why the device cannot record a graph.
	OnUnrecorded func(why error)
}

// String is the method's name.
func (m Method) String() string { return [...]string{"adam", "lbfgs"}[m] }

// gradientSize is the root mean square that the first gradient is scaled to. Adam's is
// so large that ε is nothing to the smallest component (pixels with a gradient of 1e-4
// of the mean are common), and so small that its square is far from float32's limit.
var gradientSize = map[Method]float64{Adam: 1 << 20, LBFGS: 1}

// averageDecay is the decay d of the exponential moving average of Adam's iterates,
// which go to and fro about where they are heading.
const averageDecay = 0.9

// L-BFGS runs without a line search, one evaluation a step, as in other
// style-transfer programs. What keeps it from running away is a trust region:
// lengths are root mean squares of the change of a pixel. (Half or twice as much
// makes no difference; 50 steps remembered save 2 % of the iterations, 10 cost 5 %.)
const (
	// History is how many steps L-BFGS remembers, if there is memory for them.
	History = 20

	firstLength  = 0.01 // of the first step, along the gradient
	radius       = 0.05 // of the longest step at first
	rollBackFrom = 2    // times the best total: back to the best picture
)

// Memory is what remembered steps may take: Bytes, but at least for Least steps. Of each
// step two pictures are kept.
type Memory struct{ Bytes, Least int64 }

// Steps is how many are remembered of pictures that take so many bytes together.
func (m Memory) Steps(pictures int64) int {
	return int(min(History, max(m.Least, m.Bytes/(2*pictures))))
}

// Held is how many times the memory of its pictures a descent on a device holds; of
// float32, the pictures have so many bytes.
func (s Settings) Held(device torch.Device, pictures int64) int64 {
	held := int64(2) // the pictures and their gradient
	if s.Method == Adam {
		return held + 4 // the best, m, v and the average
	}
	if device != torch.CPU {
		held += 3 // two pictures are preconditioned at once
	}
	return held + 8 + 2*int64(s.Memory.Steps(pictures)) // the best, the last gradient and step, and while it makes one
}

func (s Settings) newOptimizer(x torch.Tensor) *torch.Optimizer {
	if s.Method == Adam {
		return torch.NewAdam(x, s.Rate, 0.9, s.Beta2, 1e-8)
	}
	return torch.NewLBFGS(x, s.Rate, s.Memory.Steps(torch.Count(x)*4), firstLength, radius, s.Wrap)
}
