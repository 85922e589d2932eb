package nst

import (
	"time"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// refuge is the best pictures as they were a few seconds ago, in the host's memory: what is left
// of a run whose device fails.
type refuge struct {
	pictures []*picture.Picture // of the scale's size; none before the first were kept
	costs    []objective.Costs
	steps    int
	next     time.Time // when they are kept again
}

// They are kept every so often, and what that takes of the time is no more than a hundredth.
const (
	refugeEvery = 2 * time.Second
	refugeShare = 100
)

// keep keeps a descent's pictures, if it is time to. On the CPU there is no device that could fail.
func (k *refuge) keep(d *descent.Descent, eval *objective.Evaluator) error {
	begin := time.Now()
	if k.next.IsZero() {
		k.next = begin.Add(refugeEvery)
	}
	device := torch.DeviceOf(d.Pictures())
	if device == torch.CPU || begin.Before(k.next) {
		return nil
	}
	err := torch.Retry(device, func() error {
		var pictures []*picture.Picture
		for i := range torch.Shape(d.Best())[0] {
			pictures = append(pictures, pictureOf(objective.OnePicture(d.Best(), int(i))))
		}
		k.pictures, k.costs, k.steps = pictures, eval.Costs(d.BestValues()), d.Steps()
		return nil
	})
	now := time.Now()
	k.next = now.Add(max(refugeEvery, refugeShare*now.Sub(begin)))
	return err
}

// results are the run's, as far as they were kept; nil: they were not.
func (k *refuge) results(r *run) (all []*Result) {
	at := r.final()
	for i, p := range k.pictures {
		result := r.resultOf(k.costs[i], k.steps)
		result.Picture = r.items[i].finish(resized(p, at.width, at.height, r.settings.Wrap.Directions()))
		all = append(all, result)
	}
	return all
}
