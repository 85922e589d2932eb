package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Owner is whose a job is, and what is granted to whom it is. Owners take turns: one who has
// a hundred jobs waiting does not keep another's one from being next. Each has a subject
// and a consumer of its own in the work stream, which workers ask in the order of turns.
// The zero value is nobody, who is granted everything.
type Owner struct {
	Name string
	// Priority is of the jobs that the owner submits: workers take the highest first.
	Priority int
	// AtOnce is how many of the owner's jobs may run at once; 0: any number.
	AtOnce int
	// Waiting is how many may wait or run; 0 means half of Config.MaxJobs.
	Waiting int
	// PixelsADay is how large the results that an owner asks for on one day (UTC) may be
	// together, in pixels; 0: there is no limit.
	PixelsADay int64
	// WorkADay is how much work they may be together: pixels times iterations; 0: any.
	WorkADay int64
	// MaxSeconds is how long workers may have one of the owner's jobs; 0: Config.MaxSeconds.
	MaxSeconds float64
}

// QuotaError is the error of a request that is more than its owner is granted.
type QuotaError struct {
	Problem string
	Retry   time.Duration // after which there may be room
}

// Error completes the sentence.
func (e *QuotaError) Error() string { return e.Problem }

const spentBucket = "nst-spent"

// manyAtOnce is the number of jobs that run at once of an owner who has no limit.
const manyAtOnce = 4096

// subject is that of a job's message; consumerOf names the consumer that has it.
func (j Job) subject() string { return workSubject + ownerKey(j.Owner) + j.ID }

func ownerKey(owner string) string {
	if owner == "" {
		return ""
	}
	return hashed(owner)[:16] + "."
}

func consumerOf(owner string) string {
	if owner == "" {
		return workConsumer
	}
	return workConsumer + "-" + hashed(owner)[:16]
}

// Owners are the names of those whose jobs wait or run.
func (q *Queue) Owners() map[string]bool {
	all := map[string]bool{}
	for _, j := range q.unfinished() {
		all[j.Owner] = true
	}
	return all
}

// Grant makes an owner's consumer, or changes what it is granted: Submit does it for whose
// the job is.
func (q *Queue) Grant(ctx context.Context, o Owner) error {
	if !utf8.ValidString(o.Name) {
		return fmt.Errorf("the owner's name %q is not UTF-8", o.Name)
	}
	_, err := q.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: consumerOf(o.Name), FilterSubject: workSubject + ownerKey(o.Name) + "*",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: q.config.Patience, MaxDeliver: -1,
		MaxAckPending: cmp.Or(o.AtOnce, manyAtOnce),
	})
	return err
}

// renew gives the owners' consumers that there are the patience of now, and makes those of
// unfinished jobs that are missing, with nothing granted beyond what everyone is.
func (q *Queue) renew(ctx context.Context) error {
	there, err := map[string]bool{}, error(nil)
	list := q.stream.ListConsumers(ctx)
	for info := range list.Info() {
		there[info.Name] = true
		if c := info.Config; strings.HasPrefix(c.Durable, workConsumer+"-") && c.AckWait != q.config.Patience {
			c.AckWait = q.config.Patience
			_, e := q.stream.UpdateConsumer(ctx, c)
			err = errors.Join(err, e)
		}
	}
	if err = errors.Join(err, list.Err()); err != nil {
		return err
	}
	for _, j := range q.unfinished() {
		if name := consumerOf(j.Owner); !there[name] {
			there[name] = true
			err = errors.Join(err, q.Grant(ctx, Owner{Name: j.Owner}))
		}
	}
	return err
}

// lockOwner has an owner's submissions come one after the other, so that what one takes of a
// grant the next one finds taken: in this process.
func (q *Queue) lockOwner(ctx context.Context, name string) (unlock func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	q.mutex.Lock()
	lock := q.submitting[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		q.submitting[name] = lock
	}
	q.mutex.Unlock()
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// admit says whether an owner may have one more job wait.
func (q *Queue) admit(o Owner) error {
	if o.Name == "" {
		return nil
	}
	most := cmp.Or(o.Waiting, (q.config.MaxJobs+1)/2)
	waiting := 0
	for _, j := range q.unfinished() {
		if j.Owner == o.Name {
			waiting++
		}
	}
	if waiting >= most {
		return &QuotaError{fmt.Sprintf("%d jobs of %s wait or run, and no more may; delete some, or wait", waiting,
			o.Name), 30 * time.Second}
	}
	return nil
}

// charge looks whether an owner may have the job, and counts it.
func (q *Queue) charge(ctx context.Context, r Request, j Job) error {
	if r.Owner.Name == "" {
		return nil
	}
	if err := q.admit(r.Owner); err != nil { // a key was claimed meanwhile, or others came
		return err
	}
	if err := q.Grant(ctx, r.Owner); err != nil {
		return err
	}
	return q.spend(ctx, r.Owner, j, 1)
}

// pixels are those of the result; of a clip those of its frames, as often as they are made.
func (j Job) pixels() int64 {
	all := int64(j.Width) * int64(j.Height)
	if j.Clip != nil {
		all *= int64(j.Clip.Frames) * int64(j.Clip.passes())
	}
	return all
}

// work is how much the job asks for: pixels times iterations, as if all scales were as large as
// the result.
func (j Job) work() int64 {
	o, err := j.Options.Resolve()
	if err != nil || o.Iterations == nil {
		return 0
	}
	iterations, pixels := float64(max(1, *o.Iterations)), float64(j.Width)*float64(j.Height)
	if j.Clip != nil {
		each := iterations
		if n := j.Clip.FrameIterations; n != nil {
			each = float64(max(1, *n))
		}
		iterations = (iterations + each*float64(j.Clip.Frames-1)) * float64(j.Clip.passes())
	}
	return int64(min(pixels*iterations, math.MaxInt64/4))
}

// spend counts what a job asks for as of today; sign −1 gives it back. What is refused is not
// counted.
func (q *Queue) spend(ctx context.Context, o Owner, j Job, sign int64) error {
	if err := q.spendOf(ctx, o, "", sign*j.pixels(), o.PixelsADay, "pixels"); err != nil {
		return err
	}
	err := q.spendOf(ctx, o, ".work", sign*j.work(), o.WorkADay, "pixels times iterations")
	if err != nil && sign > 0 {
		err = errors.Join(err, q.spendOf(ctx, o, "", -j.pixels(), o.PixelsADay, ""))
	}
	return err
}

// spendOf counts one of the two, by the end of its key.
func (q *Queue) spendOf(ctx context.Context, o Owner, end string, amount, most int64, of string) error {
	if o.Name == "" || most == 0 {
		return nil
	}
	spent, err := q.js.KeyValue(ctx, spentBucket)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	key := hashed(o.Name)[:16] + "." + now.Format(time.DateOnly) + end
	for {
		var have int64
		e, err := spent.Get(ctx, key)
		switch {
		case err == nil:
			have, _ = strconv.ParseInt(string(e.Value()), 10, 64)
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return err
		}
		if amount > 0 && have+amount > most {
			return &QuotaError{fmt.Sprintf("the job asks for %d %s, and of the %d that %s may ask for a day %d are "+
				"left", amount, of, most, o.Name, max(0, most-have)),
				now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)}
		}
		value := []byte(strconv.FormatInt(max(0, have+amount), 10))
		if e == nil {
			_, err = spent.Create(ctx, key, value)
		} else {
			_, err = spent.Update(ctx, key, value, e.Revision())
		}
		if !conflicts(err) {
			return full(err)
		}
	}
}

// turns are the owners of unfinished jobs, in the order in which workers ask for theirs: by
// priority, then those of whom the fewest run, then those of whom none began for longest.
func (q *Queue) turns() (owners []string, queued bool) {
	type turn struct {
		owner             string
		priority, running int
		queued            bool
		began             time.Time
	}
	all := map[string]*turn{}
	for _, j := range q.unfinished() {
		t := all[j.Owner]
		if t == nil {
			t = &turn{owner: j.Owner, priority: math.MinInt}
			all[j.Owner] = t
		}
		if j.State == Running {
			t.running++
		} else {
			t.queued, t.priority = true, max(t.priority, j.Priority)
		}
	}
	order := make([]*turn, 0, len(all))
	for _, t := range all {
		t.began = q.lastBegan(t.owner)
		order = append(order, t)
		queued = queued || t.queued
	}
	slices.SortFunc(order, func(a, b *turn) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.running, b.running), a.began.Compare(b.began),
			cmp.Compare(a.owner, b.owner))
	})
	for _, t := range order {
		owners = append(owners, t.owner)
	}
	return owners, queued
}

// othersWait says whether a job of another owner waits that this worker could take in place of one
// that runs, and of its owner's jobs this is the one that has run for longest.
func (q *Queue) othersWait(mine Job) bool {
	all, running := q.unfinished(), map[string]int{}
	for _, j := range all {
		if j.State != Running {
			continue
		}
		running[j.Owner]++
		if j.Owner == mine.Owner && j.Began != nil && mine.Began != nil && j.Began.Before(*mine.Began) {
			return false
		}
	}
	return slices.ContainsFunc(all, func(j Job) bool {
		late := j.Began != nil && time.Since(*j.Began) < newerDelay // it may wait for a time, or for other workers
		return j.State == Queued && j.Owner != mine.Owner && j.Priority >= mine.Priority && !late &&
			(j.AtOnce == 0 || running[j.Owner] < j.AtOnce) && (j.Clip == nil || TakesClips())
	})
}

// lastBegan is when a job of an owner's was begun last, though it be forgotten since.
func (q *Queue) lastBegan(owner string) time.Time {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	return q.began[owner]
}

// Times between which a worker asks again, if it has found nothing: soon, while jobs wait,
// of which a message may come in a moment, and then as often as those that run may be given
// back.
const (
	askSoon = 20 * time.Millisecond
	askIdle = time.Second
)

// next waits for the message of the job whose turn it is.
func (q *Queue) next(ctx context.Context) (jetstream.Msg, error) {
	changes, stop := q.Changes("")
	defer stop()
	for pause := askSoon; ; pause = min(2*pause, askIdle) {
		owners, queued := q.turns()
		var failed error // of one owner's consumer: the others' may answer
		for _, owner := range owners {
			m, err := q.ask(ctx, owner)
			if m != nil {
				return m, nil
			}
			failed = errors.Join(failed, err)
		}
		if failed != nil {
			return nil, failed
		}
		if !queued {
			pause = askIdle
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changes:
			pause = askSoon / 2
		case <-time.After(pause):
		}
	}
}

// ask returns the next message of an owner's consumer, if there is one now.
func (q *Queue) ask(ctx context.Context, owner string) (jetstream.Msg, error) {
	if q.js.Conn().Status() != nats.CONNECTED { // what is asked would be answered when nobody waits any more
		return nil, nil
	}
	c, err := q.consumer(ctx, owner)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, nil // it is being made, or tidy will
	}
	if err != nil {
		return nil, err
	}
	batch, err := c.FetchNoWait(1)
	if err != nil {
		return nil, err
	}
	select {
	case m, ok := <-batch.Messages():
		if ok {
			return m, nil
		}
		err := batch.Error()
		if err != nil {
			q.forgetConsumer(owner)
		}
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) {
			return nil, nil
		}
		return nil, err
	case <-time.After(answerWait):
		return nil, nats.ErrTimeout
	}
}

// answerWait is how long a server may take to say whether there is a message.
const answerWait = 5 * time.Second

// consumer looks an owner's consumer up, once.
func (q *Queue) consumer(ctx context.Context, owner string) (jetstream.Consumer, error) {
	q.mutex.Lock()
	c := q.consumers[owner]
	q.mutex.Unlock()
	if c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	c, err := q.stream.Consumer(ctx, consumerOf(owner))
	if err != nil {
		return nil, err
	}
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.consumers[owner] = c
	return c, nil
}

func (q *Queue) forgetConsumer(owner string) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	delete(q.consumers, owner)
}

// idOf is the job of a message.
func idOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
