package nst

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/torch"
)

// Going on from a checkpoint: whether it is of this run, and whole. Its checksum shows that it
// is not damaged, but not that this program wrote it.

// checkResume says whether the checkpoint is of this run, and what differs.
func (r *run) checkResume() error {
	c := r.settings.Resume
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: it %s", ErrCheckpoint, fmt.Sprintf(format, args...))
	}
	if c.state.Version != checkpointVersion {
		return refuse("is of version %d, not %d: another version of this program wrote it", c.state.Version,
			checkpointVersion)
	}
	now, err := json.Marshal(r.settings.Options)
	if err != nil {
		return err
	}
	var theirs, ours map[string]any
	if err := errors.Join(json.Unmarshal(c.state.Options, &theirs), json.Unmarshal(now, &ours)); err != nil {
		return refuse("has no options: %v", err)
	}
	names := slices.Collect(maps.Keys(ours))
	names = slices.AppendSeq(names, maps.Keys(theirs))
	slices.Sort(names)
	var differ []string
	for _, name := range slices.Compact(names) {
		if name == "tile" || name == "memory_limit" {
			continue // they change no cost but by rounding
		}
		if !reflect.DeepEqual(theirs[name], ours[name]) {
			differ = append(differ, fmt.Sprintf("%s %v, not %v", strings.ReplaceAll(name, "_", "-"),
				given(theirs[name]), given(ours[name])))
		}
	}
	if len(differ) > 0 {
		return refuse("was made with %s", strings.Join(differ, "; "))
	}
	inputs, err := r.inputs()
	if err != nil {
		return err
	}
	names = slices.Collect(maps.Keys(inputs))
	names = slices.AppendSeq(names, maps.Keys(c.state.Inputs))
	slices.Sort(names)
	for _, name := range names {
		if inputs[name] != c.state.Inputs[name] {
			return refuse("was made with another %s", name)
		}
	}
	if n := c.state.Scale; n < 0 || n >= len(r.schedule) {
		return refuse("is of scale %d; there are %d", n, len(r.schedule))
	}
	return nil
}

// restore goes on from the checkpoint, at its scale.
func (r *run) restore(eval *objective.Evaluator, settings descent.Settings, at scale) (*descent.Descent, error) {
	c := r.settings.Resume
	if err := r.checkState(at, eval, settings); err != nil {
		return nil, err
	}
	tensor := func(name string) (t torch.Tensor, ok bool) {
		h, ok := c.tensors[name]
		if ok {
			t = h.tensor(r.pool.Primary)
		}
		return t, ok
	}
	all := func(name string) (out []torch.Tensor) {
		for k := 0; ; k++ {
			t, ok := tensor(fmt.Sprintf(name, k))
			if !ok {
				return out
			}
			out = append(out, t)
		}
	}
	if nearest := all(tensorNearest); len(nearest) > 0 {
		eval.SetNearest(nearest)
	}
	s := descent.Snapshot{Before: c.state.Before, Steps: c.state.Steps}
	s.Pictures, _ = tensor(tensorPicture)
	s.Best, _ = tensor(tensorBest)
	s.BestValues, _ = tensor(tensorBestValues)
	s.Average, _ = tensor(tensorAverage)
	if c.state.Started {
		s.GradientFactors, s.Numbers = []float64{c.state.GradientScale}, c.state.Numbers
		s.Optimizer = all(tensorOptimizer)
	}
	r.earlier = c.state.Seconds
	now := descent.Resume(eval, settings, at.iterations, s)
	torch.Close(s.Optimizer...)
	return now, nil
}

// given is an option's value in a text.
func given(value any) any {
	if value == nil {
		return "by default"
	}
	return value
}

// checkState says whether the checkpoint has what a run at its scale can go on from: each tensor
// with the shape, the type and the range that it would have been written with, and no other.
func (r *run) checkState(at scale, eval *objective.Evaluator, settings descent.Settings) error {
	c, s := r.settings.Resume, r.settings.Resume.state
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: no run of this program has written it: %s", ErrCheckpoint, fmt.Sprintf(format, args...))
	}
	before := 0
	for _, earlier := range r.schedule[:s.Scale] {
		before += earlier.iterations
	}
	switch {
	case s.Before != before:
		return refuse("%d steps before scale %d; there are %d", s.Before, s.Scale, before)
	case s.Steps < 0 || s.Steps > at.iterations:
		return refuse("%d steps at a scale of %d", s.Steps, at.iterations)
	case !(s.Seconds >= 0 && s.Seconds < 1e12):
		return refuse("%v seconds", s.Seconds)
	case s.Started && !(s.GradientScale > 0 && s.GradientScale <= math.MaxFloat64):
		return refuse("a gradient's scale of %v", s.GradientScale)
	}
	numbers, wanted := r.stateOf(at, eval, settings)
	if len(s.Numbers) != numbers {
		return refuse("%d numbers of an optimizer, not %d", len(s.Numbers), numbers)
	}
	for _, n := range s.Numbers {
		if n != math.Trunc(n) || n < 1 || n > float64(s.Before+s.Steps) {
			return refuse("an optimizer's count of %v after %d steps", n, s.Before+s.Steps)
		}
	}
	for name, want := range wanted {
		has, ok := c.tensors[name]
		if !ok {
			return refuse("%s is missing", name)
		}
		if !slices.Equal(has.sizes, want.sizes) && !(len(has.sizes) == 0 && product(want.sizes) == 1) {
			return refuse("%s has the shape %v, not %v", name, has.sizes, want.sizes)
		}
		if has.scalar != want.scalar {
			return refuse("%s is of type %s, not %s", name, has.DType(), dtypes[want.scalar])
		}
		if v, ok := has.within(want.least, want.most); !ok {
			return refuse("%s has a value of %v; %v to %v will do", name, v, want.least, want.most)
		}
	}
	for name := range c.tensors {
		if _, known := wanted[name]; !known {
			return refuse("%s is there", name)
		}
	}
	return nil
}

// wantedTensor is what a tensor of a checkpoint is to be.
type wantedTensor struct {
	scalar      torch.ScalarType
	sizes       []int64
	least, most float64
}

// stateOf is what a checkpoint at a scale has: how many numbers, and which tensors.
func (r *run) stateOf(at scale, eval *objective.Evaluator, settings descent.Settings) (numbers int,
	tensors map[string]wantedTensor) {
	scalar := torch.Float32
	if r.settings.Precision == Double {
		scalar = torch.Float64
	}
	picture := []int64{1, 3, int64(at.height), int64(at.width)}
	values := func(least, most float64, sizes ...int64) wantedTensor {
		return wantedTensor{scalar, sizes, least, most}
	}
	const any = math.MaxFloat64
	tensors = map[string]wantedTensor{tensorPicture: values(0, 1, picture...), tensorBest: values(0, 1, picture...),
		tensorBestValues: values(-any, any, 1, int64(eval.Terms()))}
	_, matched := r.settings.Resume.tensors[fmt.Sprintf(tensorNearest, 0)]
	if matched || r.settings.Resume.state.Steps < at.iterations { // else nothing more is compared
		shape, candidates := eval.Choices()
		for k, n := range candidates {
			tensors[fmt.Sprintf(tensorNearest, k)] = wantedTensor{torch.Int64, shape, 0, float64(n - 1)}
		}
	}
	if !r.settings.Resume.state.Started {
		return 0, tensors
	}
	if settings.Method == descent.Adam {
		// An average is kept from the first step at a scale on.
		if r.settings.Resume.state.Steps > 0 {
			tensors[tensorAverage] = values(0, 1+1e-5, picture...) // as it is rounded
		}
		tensors[fmt.Sprintf(tensorOptimizer, 0)] = values(-any, any, picture...)
		tensors[fmt.Sprintf(tensorOptimizer, 1)] = values(0, any, picture...)
		return 1, tensors
	}
	pixels := product(picture)
	steps := int64(settings.Memory.Steps(4 * pixels))
	for i, sizes := range [][]int64{{1, 1}, {1, 1}, {1, 1}, {1, pixels}, {1, pixels}, {1, steps, pixels},
		{1, steps, pixels}, {1, steps, steps}, {1, steps}, {1, 1}} { // see torch.NewLBFGS
		tensors[fmt.Sprintf(tensorOptimizer, i)] = values(-any, any, sizes...)
		if i == 9 { // the place of the newest step
			tensors[fmt.Sprintf(tensorOptimizer, i)] = wantedTensor{torch.Int64, sizes, 0, float64(steps - 1)}
		}
	}
	return 0, tensors
}

func product(sizes []int64) int64 {
	n := int64(1)
	for _, s := range sizes {
		n *= s
	}
	return n
}

// within returns the first value that is not within a range.
func (h hostTensor) within(least, most float64) (v float64, ok bool) {
	width := map[torch.ScalarType]int{torch.Float32: 4, torch.Float64: 8, torch.Int64: 8}[h.scalar]
	for at := 0; at+width <= len(h.data); at += width {
		switch h.scalar {
		case torch.Float32:
			v = float64(math.Float32frombits(binary.LittleEndian.Uint32(h.data[at:])))
		case torch.Float64:
			v = math.Float64frombits(binary.LittleEndian.Uint64(h.data[at:]))
		case torch.Int64:
			v = float64(int64(binary.LittleEndian.Uint64(h.data[at:])))
		}
		if !(v >= least && v <= most) {
			return v, false
		}
	}
	return 0, true
}
