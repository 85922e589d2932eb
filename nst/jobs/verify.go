package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
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
		if id, _, _ := strings.Cut(o.Name, "/"); !q.knows(id) {
			orphans[id] = true
		}
	}
	for id := range orphans {
		lost = append(lost, fmt.Sprintf("job %s has pictures and no record: its record was lost, or it is being made", id))
	}
	for _, j := range known {
		needed := j.Inputs.names()
		if j.State.Finished() {
			needed = nil
		}
		if j.State == Done {
			needed = []string{"result"}
		}
		why := ""
		for _, name := range needed {
			switch {
			case !stored[object(j.ID, name)]:
				why = fmt.Sprintf("the %s picture was lost from the store", name)
			case all:
				if err := q.copy(ctx, j.ID, name, io.Discard); errors.Is(err, errDamaged) || errors.Is(err, ErrNotFound) {
					why = fmt.Sprintf("the %s picture is damaged in the store", name)
				} else if err != nil {
					return lost, err
				}
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
			_ = q.stream.Purge(ctx, jetstream.WithPurgeSubject(workSubject+j.ID))
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
