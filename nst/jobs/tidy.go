package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// tidyEvery is how often tidy looks.
const tidyEvery = 5 * time.Minute

// tidy deletes jobs that have been finished for long, sends messages that were
// never sent, and removes what writers that died have left in the object store.
func (q *Queue) tidy(ctx context.Context) {
	orphans := map[string]bool{}
	for wait := 2 * time.Minute; ; wait = tidyEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		var err error
		if orphans, err = q.tidyOnce(ctx, orphans); err != nil && ctx.Err() == nil {
			q.config.Log.Warn("tidying failed", "error", err)
		}
	}
}

// tidyOnce does so once; seen and orphans are sweep's.
func (q *Queue) tidyOnce(ctx context.Context, seen map[string]bool) (orphans map[string]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, j := range q.List() {
		switch {
		case j.Finished != nil && time.Since(*j.Finished) > q.config.Retention:
			q.log(j).Info("deleted, being old")
			err = errors.Join(err, q.remove(ctx, j))
		case !j.State.Finished() && time.Since(j.Created) > time.Minute:
			if _, e := q.stream.GetLastMsgForSubject(ctx, j.subject()); errors.Is(e, jetstream.ErrMsgNotFound) {
				_, e := q.js.Publish(ctx, j.subject(), nil) // with no id, which may have been used
				err = errors.Join(err, full(e))
			}
		}
	}
	_, e := q.records.Put(ctx, tidied, nil)
	err = errors.Join(err, e, q.renew(ctx), q.tidyKeys(ctx), q.records.PurgeDeletes(ctx))
	orphans, e = q.sweep(ctx, seen)
	return orphans, errors.Join(err, e, q.forgotten(ctx))
}

// leftoverTime is how long a worker may take from writing something to saying so in the record.
const leftoverTime = time.Hour

// forgotten deletes what was stored for jobs that have no record, as a worker may do that
// has not heard yet that its job was deleted: when it is as old as what is kept may be.
func (q *Queue) forgotten(ctx context.Context) error {
	all, err := q.objects.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		err = nil
	}
	for _, o := range all {
		id, name, _ := strings.Cut(o.Name, "/")
		if j, e := q.Get(ctx, id); e == nil && j.leftover(name) && time.Since(o.ModTime) > leftoverTime {
			err = errors.Join(err, q.drop(ctx, o.Name))
			continue
		}
		if q.knows(id) || time.Since(o.ModTime) < q.config.Retention {
			continue
		}
		if _, e := q.load(ctx, id); errors.Is(e, ErrNotFound) {
			q.config.Log.Warn("deleted, having no job", "object", o.Name)
			err = errors.Join(err, q.drop(ctx, o.Name))
		}
	}
	keys, e := q.previews.ListKeys(ctx)
	if e != nil {
		return errors.Join(err, e)
	}
	for id := range keys.Keys() {
		if _, e := q.load(ctx, id); errors.Is(e, ErrNotFound) {
			err = errors.Join(err, q.previews.Purge(ctx, id))
		}
	}
	return errors.Join(err, q.previews.PurgeDeletes(ctx))
}

// tidyKeys forgets the keys of requests whose jobs are gone.
func (q *Queue) tidyKeys(ctx context.Context) error {
	keys, err := q.records.ListKeysFiltered(ctx, "key.*")
	if err != nil {
		return err
	}
	for key := range keys.Keys() {
		e, err := q.records.Get(ctx, key)
		if err != nil {
			continue
		}
		var c claimRecord
		_ = json.Unmarshal(e.Value(), &c)
		if _, err := q.load(ctx, c.ID); errors.Is(err, ErrNotFound) && time.Since(c.Made) > time.Hour {
			if err := q.records.Purge(ctx, key, jetstream.LastRevision(e.Revision())); err != nil {
				return err
			}
		}
	}
	return nil
}
