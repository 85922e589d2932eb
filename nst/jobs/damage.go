package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// DamageError is the error of Open where the store's files are damaged: what cannot be read any
// more would be waited for. Config.Repair goes on without.
type DamageError struct {
	// Stream is the name of the stream, and Lost what of it cannot be read: subjects, of which
	// "$KV.nst-jobs.ID" is a job's record.
	Stream string
	Lost   []string
}

// Error names the stream, and the first of what is lost.
func (e *DamageError) Error() string {
	const most = 5
	text := strings.Join(e.Lost[:min(most, len(e.Lost))], ", ")
	if more := len(e.Lost) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("the stream %s is damaged: %s cannot be read", e.Stream, text)
}

// tidied is a key of the records that is written again and again, so that the newest of them is
// always there: what is newer than all that can be read was cut off.
const tidied = "tidied.at"

// newest is what a DamageError says of it.
const newest = "what was written last"

const (
	recordStream  = "KV_nst-jobs"
	tidiedSubject = "$KV.nst-jobs." + tidied
)

// streams are those of the queue, as far as they are there. Of the object store, whose chunks are
// much and are looked at by Verify, the names alone are looked at.
var streams = map[string]string{recordStream: ">", "KV_nst-previews": ">", "KV_nst-workers": ">",
	"KV_" + sessionBucket: ">", "KV_" + spentBucket: ">", workStream: ">", objectStream: metaSubject + ">"}

// damage looks whether what the streams say that they have can be read.
func (q *Queue) damage(ctx context.Context) (all []*DamageError, err error) {
	for name, subjects := range streams {
		stream, err := q.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjects))
		if err != nil {
			return nil, err
		}
		d := &DamageError{Stream: name}
		for subject := range info.State.Subjects { // of each the newest is kept
			_, err := stream.GetLastMsgForSubject(ctx, subject)
			switch {
			case errors.Is(err, jetstream.ErrMsgNotFound):
				d.Lost = append(d.Lost, subject)
			case err != nil:
				return nil, err
			}
		}
		if slices.Sort(d.Lost); len(d.Lost) > 0 { // it may have been deleted since
			if d.Lost, err = stillLost(ctx, stream, subjects, d.Lost); err != nil {
				return nil, err
			}
		}
		if name == recordStream && info.State.Subjects[tidiedSubject] > 0 {
			cut, err := lacksNewest(ctx, stream)
			if err != nil {
				return nil, err
			}
			if cut {
				d.Lost = append(d.Lost, newest)
			}
		}
		if len(d.Lost) > 0 {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b *DamageError) int { return strings.Compare(a.Stream, b.Stream) })
	return all, nil
}

// lacksNewest says whether a stream does not have the message that it says is its last, where
// that is still the last, and the queue has been kept by a version that writes tidied.
func lacksNewest(ctx context.Context, stream jetstream.Stream) (bool, error) {
	mark, err := stream.GetLastMsgForSubject(ctx, tidiedSubject)
	if errors.Is(err, jetstream.ErrMsgNotFound) { // which is said already
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if stream.CachedInfo().State.LastTime.Sub(mark.Time) > 3*tidyEvery {
		return false, nil
	}
	for before := uint64(0); ; {
		info, err := stream.Info(ctx)
		if err != nil {
			return false, err
		}
		if before == info.State.LastSeq {
			return true, nil
		}
		before = info.State.LastSeq
		if _, err = stream.GetMsg(ctx, before); !errors.Is(err, jetstream.ErrMsgNotFound) {
			return false, err
		}
	}
}

// stillLost are those of the subjects that the stream still says it has.
func stillLost(ctx context.Context, stream jetstream.Stream, filter string, lost []string) ([]string, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(lost, func(subject string) bool { return info.State.Subjects[subject] == 0 }), nil
}

// Times that it may take to look for damage, and without a record while they are read.
const (
	damageTime = 10 * time.Minute
	recordTime = 30 * time.Second
)
