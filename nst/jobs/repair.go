package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A damaged stream is made anew of what can be read of it. That is copied to another stream first,
// and back when the damaged one is deleted: whatever ends the program meanwhile, the next Open goes
// on from the copy if that is whole, and from the damaged stream if not. So the store needs room
// for what is repaired twice.
const (
	copyPrefix  = "REPAIR_"   // the stream's name follows
	copySubject = "repair."   // the stream's name, a point and the subject follow
	copyWhole   = "repaired." // the stream's name follows: the message, a replaced, says that the copy is whole
)

// replaced is the stream that is made anew.
type replaced struct {
	Config jetstream.StreamConfig
	Next   uint64 // the number of the next message: numbers that others know are used once
}

// repair makes a damaged stream anew.
func (q *Queue) repair(ctx context.Context, name string) error {
	stream, err := q.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	if _, err := q.js.CreateStream(ctx, jetstream.StreamConfig{Name: copyPrefix + name,
		Subjects: []string{copySubject + name + ".>", copyWhole + name}, Storage: info.Config.Storage,
		Replicas: info.Config.Replicas}); err != nil {
		return full(err)
	}
	err = q.copyMessages(ctx, stream, func(subject string) string { return copySubject + name + "." + subject })
	if err != nil {
		return err
	}
	data, err := json.Marshal(replaced{info.Config, info.State.LastSeq + 1})
	if err != nil {
		return err
	}
	if _, err := q.js.Publish(ctx, copyWhole+name, data); err != nil {
		return full(err)
	}
	return q.restore(ctx, name)
}

// restore makes a stream anew of its copy. One that is not whole goes: the stream is still there.
func (q *Queue) restore(ctx context.Context, name string) error {
	copied, err := q.js.Stream(ctx, copyPrefix+name)
	if err != nil {
		return err
	}
	whole, err := copied.GetLastMsgForSubject(ctx, copyWhole+name)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return q.js.DeleteStream(ctx, copyPrefix+name)
	}
	if err != nil {
		return err
	}
	var was replaced
	if err := json.Unmarshal(whole.Data, &was); err != nil {
		return err
	}
	if err := q.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	was.Config.FirstSeq = was.Next
	if _, err := q.js.CreateStream(ctx, was.Config); err != nil {
		return err
	}
	err = q.copyMessages(ctx, copied, func(subject string) string {
		subject, _ = strings.CutPrefix(subject, copySubject+name+".")
		return subject
	})
	if err != nil {
		return err
	}
	return q.js.DeleteStream(ctx, copyPrefix+name)
}

// copyMessages publishes a stream's messages, as far as they can be read, under other subjects.
func (q *Queue) copyMessages(ctx context.Context, from jetstream.Stream, rename func(string) string) error {
	info, err := from.Info(ctx)
	if err != nil {
		return err
	}
	for next := max(1, info.State.FirstSeq); next <= info.State.LastSeq; next++ {
		m, err := from.GetMsg(ctx, next, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if next = m.Sequence; strings.HasPrefix(m.Subject, copyWhole) {
			continue
		}
		message := &nats.Msg{Subject: rename(m.Subject), Data: m.Data, Header: nats.Header{}}
		if operation := m.Header.Get(kvOperation); operation != "" { // other headers were about its publishing
			message.Header.Set(kvOperation, operation)
		}
		if _, err := q.js.PublishMsg(ctx, message); err != nil {
			return full(err)
		}
	}
	return nil
}

const kvOperation = "KV-Operation" // of a key-value bucket's message: a deletion

// endRepairs ends what was begun by a program that has ended since.
func (q *Queue) endRepairs(ctx context.Context) error {
	names := q.js.StreamNames(ctx)
	var unfinished []string
	for name := range names.Name() {
		if name, ok := strings.CutPrefix(name, copyPrefix); ok {
			unfinished = append(unfinished, name)
		}
	}
	if err := names.Err(); err != nil {
		return err
	}
	for _, name := range unfinished {
		q.config.Log.Info("the repair of a stream goes on", "stream", name)
		if err := q.restore(ctx, name); err != nil {
			return fmt.Errorf("the stream %s cannot be repaired: %w", name, err)
		}
	}
	return nil
}

// mend looks for damage where the store is on this machine, and repairs it if that is wanted,
// however long that takes.
func (q *Queue) mend(ctx context.Context) error {
	if err := q.endRepairs(ctx); err != nil || q.config.Dir == "" && !q.config.Repair {
		return err
	}
	look, cancel := context.WithTimeout(ctx, damageTime)
	defer cancel()
	all, err := q.damage(look)
	if err != nil && look.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("the store does not say within %v whether it is damaged: %v", damageTime, err)
	}
	if err != nil {
		return fmt.Errorf("whether the store is damaged: %w", err)
	}
	for _, d := range all {
		if !q.config.Repair {
			err = errors.Join(err, d)
			continue
		}
		for _, lost := range d.Lost {
			q.config.Log.Error("the store has lost something", "stream", d.Stream, "what", lost)
		}
		if e := q.repair(ctx, d.Stream); e != nil {
			err = errors.Join(err, fmt.Errorf("the stream %s cannot be repaired: %w", d.Stream, e))
		}
	}
	return err
}
