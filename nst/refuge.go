package nst

import (
	"errors"
	"time"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// refuge is the best pictures as they were a few seconds ago, copied to where no device's failure
// reaches them: what is left of a run whose device is lost.
type refuge struct {
	pictures []*picture.Picture // of the scale's size; none before the first were kept
	costs    []objective.Costs
	steps    int
	next     time.Time // when they are kept again
}

// They are kept every two seconds, and at most 1 % of the time goes into it.
const (
	refugeEvery = 2 * time.Second
	refugeShare = 100
)

// keep keeps a descent's pictures, if it is time to, and the engine has a device that could be lost.
// For want of memory it does not.
func (k *refuge) keep(e *Engine, d *descent.Descent, eval *objective.Evaluator) error {
	begin := time.Now()
	if k.next.IsZero() {
		k.next = begin.Add(refugeEvery)
	}
	if e.Device() == torch.CPU || begin.Before(k.next) {
		return nil
	}
	err := torch.Retry(e.Device(), func() error {
		var pictures []*picture.Picture
		for i := range torch.Shape(d.Best())[0] {
			pictures = append(pictures, pictureOf(objective.OnePicture(d.Best(), int(i))))
		}
		k.pictures, k.costs, k.steps = pictures, eval.Costs(d.BestValues()), d.Steps()
		return nil
	})
	now := time.Now()
	k.next = now.Add(max(refugeEvery, refugeShare*now.Sub(begin)))
	if errors.Is(err, torch.ErrOutOfMemory) {
		return nil
	}
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
