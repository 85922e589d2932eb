package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Verify looks whether the store has the pictures of all jobs, and returns a line about
// each job that lost some. One that cannot be made any more, or whose result is lost, has
// Failed from then on. With all, pictures are read too, and what is damaged is lost.
func (q *Queue) Verify(ctx context.Context, all bool) (lost []string, err error) {
	known := q.List() // before what there is: all of them had been stored then
	objects, err := q.objects.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, fmt.Errorf("the store's pictures: %w", err)
	}
	stored, orphans := map[string]bool{}, map[string]bool{}
	for _, o := range objects {
		stored[o.Name] = true
		id, name, _ := strings.Cut(o.Name, "/")
		if !q.knows(id) && !(Job{}).leftover(name) { // what a worker wrote late is no loss
			orphans[id] = true
		}
	}
	for id := range orphans {
		lost = append(lost, fmt.Sprintf("job %s has pictures and no record: its record was lost, or it is being made",
			id))
	}
	for _, j := range known {
		// Of a finished job the result alone has to be there; the rest is shown.
		kept, needed := append(j.Inputs.names(), "result"), j.Inputs.names()
		switch {
		case j.State == Done:
			needed = []string{"result"}
		case j.State.Finished():
			needed = nil
		}
		why := ""
		for _, name := range kept {
			problem := ""
			stores := name
			if name == "result" {
				stores = j.result()
			}
			if !stored[object(j.ID, stores)] {
				problem = "was lost from the store"
			} else if all {
				switch err := q.copy(ctx, j.ID, stores, io.Discard); {
				case errors.Is(err, errDamaged), errors.Is(err, ErrNotFound):
					problem = "is damaged in the store"
				case err != nil:
					lost = append(lost, fmt.Sprintf("job %s: the %s picture could not be read: %v", j.ID, name, err))
				}
			}
			switch {
			case problem == "" || name == "result" && j.State != Done:
			case slices.Contains(needed, name):
				why = fmt.Sprintf("the %s picture %s", name, problem)
			case all:
				lost = append(lost, fmt.Sprintf("job %s, which is finished: the %s picture %s", j.ID, name, problem))
			}
		}
		if why == "" {
			continue
		}
		var now Job
		err := q.edit(ctx, j.ID, &now, func(now *Job) error {
			if now.State != j.State {
				return errNoChange // it went on meanwhile
			}
			now.Error, now.Result = why, nil
			now.finish(Failed)
			return nil
		})
		switch {
		case errors.Is(err, errNoChange), errors.Is(err, ErrNotFound):
		case err != nil:
			return lost, err
		default:
			lost = append(lost, fmt.Sprintf("job %s: %s", j.ID, why))
			_ = q.stream.Purge(ctx, jetstream.WithPurgeSubject(j.subject()))
		}
	}
	return lost, nil
}

func (q *Queue) knows(id string) bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	_, ok := q.known[id]
	return ok
}
