package jobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// The object store of the jobs' pictures, and how it lies in its stream (ADR-20 of
// NATS's architecture).
const (
	bucket       = "nst-pictures"
	objectStream = "OBJ_" + bucket
	chunkSubject = "$O." + bucket + ".C." // and the object's NUID
	metaSubject  = "$O." + bucket + ".M." // and its name, encoded
)

func object(id, name string) string { return id + "/" + name }

// read returns an object. The error is ErrNotFound, errDamaged, or the connection's.
func (q *Queue) read(ctx context.Context, id, name string) ([]byte, error) {
	var out bytes.Buffer
	err := q.copy(ctx, id, name, &out)
	return out.Bytes(), err
}

// errDamaged is the error of an object that is not what was stored.
var errDamaged = errors.New("what the store has of it is damaged")

// copy writes an object to w, which is to be fast. However long that takes, it goes on
// as long as a chunk comes at least every stall; each is asked for by itself, so that
// nothing is left behind when one does not. Some objects at a time are read.
func (q *Queue) copy(ctx context.Context, id, name string, w io.Writer) error {
	select {
	case q.reading <- struct{}{}:
		defer func() { <-q.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	info, err := q.objects.GetInfo(ctx, object(id, name))
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	store, err := q.js.Stream(ctx, objectStream)
	if err != nil {
		return err
	}
	digest, next := sha256.New(), uint64(1)
	for range info.Chunks {
		once, cancel := context.WithTimeout(ctx, stall)
		m, err := store.GetMsg(once, next, jetstream.WithGetMsgSubject(chunkSubject+info.NUID))
		cancel()
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return errDamaged
		}
		if err != nil {
			return err
		}
		next = m.Sequence + 1
		digest.Write(m.Data)
		if _, err := w.Write(m.Data); err != nil {
			return err
		}
	}
	if info.Digest != jetstream.GetObjectDigestValue(digest) {
		return errDamaged
	}
	return nil
}

// drop deletes an object and every trace of it.
func (q *Queue) drop(ctx context.Context, name string) error {
	info, err := q.objects.GetInfo(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	store, err := q.js.Stream(ctx, objectStream)
	if err != nil {
		return err
	}
	subject := metaSubject + base64.URLEncoding.EncodeToString([]byte(name))
	if err := store.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
		return err
	}
	return store.Purge(ctx, jetstream.WithPurgeSubject(chunkSubject+info.NUID))
}

const (
	chunkSize = 128 << 10
	inFlight  = 64 // chunks that are not acknowledged yet
	stall     = 15 * time.Second
	readers   = 4 // objects that are read at once
)

// write stores an object as ObjectStore.Put does, in place of an older one of its
// name. That makes a publisher for each object, and when this ends before its
// goroutine has begun, leaves the goroutine behind (nats.go 1.55); the queue has
// one for all. What a failed write leaves, sweep removes. Some chunks are in memory.
func (q *Queue) write(ctx context.Context, id, name string, data io.Reader) error {
	old, err := q.objects.GetInfo(ctx, object(id, name))
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return err
	}
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: object(id, name),
			Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}},
		Bucket: bucket, NUID: nuid.Next(),
	}
	var sent []jetstream.PubAckFuture
	stored := func() error { // the first of them is
		select {
		case <-sent[0].Ok():
			sent = sent[1:]
			return nil
		case err := <-sent[0].Err():
			return full(err)
		case <-time.After(stall):
			return nats.ErrTimeout
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	digest := sha256.New()
	for last := false; !last; {
		chunk := make([]byte, chunkSize) // which is the connection's until the server has it
		n, err := io.ReadFull(data, chunk)
		if last = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); err != nil && !last {
			return err
		}
		if n == 0 {
			break
		}
		digest.Write(chunk[:n])
		ack, err := q.js.PublishAsync(chunkSubject+info.NUID, chunk[:n])
		if err != nil {
			return full(err)
		}
		info.Chunks++
		info.Size += uint64(n)
		if sent = append(sent, ack); len(sent) == inFlight {
			if err := stored(); err != nil {
				return err
			}
		}
	}
	for len(sent) > 0 {
		if err := stored(); err != nil {
			return err
		}
	}
	info.Digest = jetstream.GetObjectDigestValue(digest)
	meta := nats.NewMsg(metaSubject + base64.URLEncoding.EncodeToString([]byte(info.Name)))
	meta.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	if meta.Data, err = json.Marshal(info); err != nil {
		return err
	}
	if _, err := q.js.PublishMsg(ctx, meta); err != nil || old == nil {
		return full(err)
	}
	// The new one is what is read now.
	store, err := q.js.Stream(ctx, objectStream)
	if err == nil {
		err = store.Purge(ctx, jetstream.WithPurgeSubject(chunkSubject+old.NUID))
	}
	return err
}

// sweep removes the chunks that belong to no object, if they did not when sweep
// looked before (seen): others may be being written. It returns those.
func (q *Queue) sweep(ctx context.Context, seen map[string]bool) (orphans map[string]bool, err error) {
	store, err := q.js.Stream(ctx, objectStream)
	if err != nil {
		return seen, err
	}
	objects, err := q.objects.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return seen, err
	}
	owned := map[string]bool{}
	for _, o := range objects {
		owned[chunkSubject+o.NUID] = true
	}
	info, err := store.Info(ctx, jetstream.WithSubjectFilter(chunkSubject+">"))
	if err != nil {
		return seen, err
	}
	orphans = map[string]bool{}
	for subject := range info.State.Subjects {
		if owned[subject] {
			continue
		}
		if seen[subject] && quiet(ctx, store, subject) {
			err = errors.Join(err, store.Purge(ctx, jetstream.WithPurgeSubject(subject)))
		} else {
			orphans[subject] = true
		}
	}
	return orphans, err
}

// quiet says whether nothing has been written to a subject for some time.
func quiet(ctx context.Context, s jetstream.Stream, subject string) bool {
	m, err := s.GetLastMsgForSubject(ctx, subject)
	return err == nil && time.Since(m.Time) > quietFor
}

// quietFor is how long a write may pause before it is taken for dead.
var quietFor = time.Minute
