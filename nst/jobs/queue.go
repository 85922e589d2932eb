package jobs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed9bb5c928/nst/nst/picture/decoder"
)

// Config says how a queue is kept. The zero value is the default.
type Config struct {
	// Join has Open use the queue as another process keeps it: nothing of it is
	// changed, and limits are that process's. It waits until there is one.
	Join bool
	// Replicas is on how many servers of a cluster everything is kept; 0 means 1.
	Replicas int
	// MaxJobs is how many jobs may wait or run; 0 means 200.
	MaxJobs int
	// Retention is how long finished jobs are kept; 0 means a week.
	Retention time.Duration
	// MaxPixels is how large a picture, and a result, may be; 0 means 64 million.
	MaxPixels int64
	// MaxIterations is how many a job may ask for, of a clip for each frame; 0 means 20,000.
	MaxIterations int
	// MaxClipFrames is how many frames a clip may have; 0 means 3,000, two minutes at 25 a
	// second.
	MaxClipFrames int
	// Patience is how long a worker may be silent before its job goes to another; 0
	// means 15 seconds.
	Patience time.Duration
	// CheckpointEvery is how often a worker keeps a running job's state (less often,
	// where that takes long); 0 means 10 seconds.
	CheckpointEvery time.Duration
	// Stall is how long a transfer may go on without finishing a tile or an iteration: then
	// it hangs, and Work ends with ErrStuck; 0 means 15 minutes.
	Stall time.Duration
	// MemoryLimit is what a worker's jobs may use of its memory, as nst.Options' is; a
	// job's own can only be lower. 0 means what is free.
	MemoryLimit int64
	// MaxSeconds is how long workers may have a job; 0: as long as it takes. A picture is what it
	// is then, a clip has failed. An Owner's goes before it.
	MaxSeconds float64
	// Turn is how long a worker makes a job of one owner while jobs of another wait, before it is
	// put back; 0 means a minute.
	Turn time.Duration
	// MaxBytes is how much may be stored, beside what the servers' own limits say: see
	// Server.MaxBytes. 0: no limit.
	MaxBytes int64
	// Dir is the folder of the store if it is on this machine: its disk is kept
	// from becoming full.
	Dir string
	// Repair has Open go on with what is whole of a store that is damaged: see DamageError.
	Repair bool
	// Log is told of what happens; nil: of nothing.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Replicas = cmp.Or(c.Replicas, 1)
	c.MaxJobs = cmp.Or(c.MaxJobs, 200)
	c.Patience = cmp.Or(c.Patience, 15*time.Second)
	c.Stall = cmp.Or(c.Stall, 15*time.Minute)
	c.Turn = cmp.Or(c.Turn, time.Minute)
	c.CheckpointEvery = cmp.Or(c.CheckpointEvery, 10*time.Second)
	c.Retention = cmp.Or(c.Retention, 7*24*time.Hour)
	c.MaxPixels = cmp.Or(c.MaxPixels, 64<<20)
	c.MaxIterations = cmp.Or(c.MaxIterations, 20_000)
	c.MaxClipFrames = cmp.Or(c.MaxClipFrames, 3000)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Names of what is in JetStream.
const (
	workStream   = "NST_WORK"
	workSubject  = "nst.work."
	workConsumer = "workers"
)

// reserve is what is left free of a disk.
const reserve = 512 << 20

// Queue is a queue of transfers. It is safe for concurrent use, by many processes
// at once. The owner closes it.
type Queue struct {
	config   Config
	js       jetstream.JetStream
	stream   jetstream.Stream
	records  jetstream.KeyValue // by job; and "cancel.JOB", "key.HASH"
	previews jetstream.KeyValue
	workers  jetstream.KeyValue
	sessions jetstream.KeyValue
	objects  jetstream.ObjectStore

	decoder *decoder.Pool
	looking chan struct{} // clips that are looked at at once
	reading chan struct{} // objects that are read at once
	end     context.CancelFunc
	ended   sync.WaitGroup

	mutex      sync.Mutex
	known      map[string]Job
	gone       *lru.Cache[string, bool]          // jobs that were forgotten lately: who changed one may tell of it late
	waiting    int                               // of them, those that are not finished
	changed    map[string]map[chan struct{}]bool // by job; of "" when any job's state changes
	consumers  map[string]jetstream.Consumer     // by owner
	observers  map[*func(before, after Job)]bool
	unseen     [][2]Job                 // changes that they are to be told of
	delivering bool                     // somebody tells them
	granting   int64                    // bytes of the store that submissions under way may take
	began      map[string]time.Time     // when an attempt at one of an owner's jobs was begun last
	submitting map[string]chan struct{} // by owner
}

// Open opens a queue on a NATS connection, which has to have JetStream, and makes
// what it lacks. The connection stays the caller's.
func Open(ctx context.Context, nc *nats.Conn, c Config) (*Queue, error) {
	removeLeft()
	c = c.withDefaults()
	q := &Queue{config: c, decoder: decoder.New(decoder.Config{Children: max(4, runtime.GOMAXPROCS(0)), Slowness: 2}),
		reading: make(chan struct{}, readers),
		looking: make(chan struct{}, lookers),
		known:   map[string]Job{}, changed: map[string]map[chan struct{}]bool{},
		consumers: map[string]jetstream.Consumer{}, observers: map[*func(before, after Job)]bool{},
		began: map[string]time.Time{}, submitting: map[string]chan struct{}{}}
	var err error
	if q.gone, err = lru.New[string, bool](4096); err != nil {
		return nil, err
	}
	for {
		failed := q.make(ctx, nc)
		if failed == nil || err == nil || ctx.Err() == nil { // else: what was waited for says more
			err = failed
		}
		if failed == nil || !temporary(failed) {
			break
		}
		c.Log.Info("waiting for the queue", "error", err)
		select { // a cluster that has no leader yet
		case <-ctx.Done():
			return nil, fmt.Errorf("the queue: %w", err)
		case <-time.After(500 * time.Millisecond):
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the queue: %w", err)
	}
	background, end := context.WithCancel(context.Background())
	q.end = end
	watcher, err := q.records.WatchAll(background)
	if err != nil {
		end()
		return nil, fmt.Errorf("the queue: %w", err)
	}
	ready := make(chan struct{})
	q.ended.Go(func() { q.follow(background, watcher, ready) })
	if err := q.readRecords(ctx, ready); err != nil {
		q.Close()
		return nil, fmt.Errorf("the queue: %w", err)
	}
	if !c.Join {
		lost, err := q.Verify(ctx, false)
		for _, line := range lost {
			c.Log.Error("the store has lost something", "what", line)
		}
		if err != nil {
			q.Close()
			return nil, fmt.Errorf("the queue: %w", err)
		}
		if _, err := q.records.Put(ctx, tidied, nil); err != nil {
			q.Close()
			return nil, fmt.Errorf("the queue: %w", full(err))
		}
		if err := q.renew(ctx); err != nil {
			q.Close()
			return nil, fmt.Errorf("the queue: %w", err)
		}
		q.ended.Go(func() { q.tidy(background) })
	}
	return q, nil
}

// readRecords waits until all records are known, as long as they come.
func (q *Queue) readRecords(ctx context.Context, ready <-chan struct{}) error {
	for before := -1; ; {
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(recordTime):
		}
		q.mutex.Lock()
		now := len(q.known)
		q.mutex.Unlock()
		if now == before {
			if q.config.Join {
				return errNoQueue
			}
			return &DamageError{recordStream, []string{"what follows the first " + strconv.Itoa(now) + " records"}}
		}
		before = now
	}
}

func temporary(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, errNoQueue) || strings.Contains(err.Error(), "temporarily unavailable") ||
		strings.Contains(err.Error(), "no suitable peers")
}

var errNoQueue = errors.New("nobody keeps a queue here; nst serve does")

// join uses what is there.
func (q *Queue) join(ctx context.Context) (err error) {
	var work jetstream.Consumer
	if q.stream, err = q.js.Stream(ctx, workStream); err == nil {
		work, err = q.stream.Consumer(ctx, workConsumer)
	}
	keys := func(name string) (kv jetstream.KeyValue) {
		if err == nil {
			kv, err = q.js.KeyValue(ctx, name)
		}
		return kv
	}
	q.records, q.previews, q.workers = keys("nst-jobs"), keys("nst-previews"), keys("nst-workers")
	if err == nil {
		q.objects, err = q.js.ObjectStore(ctx, bucket)
	}
	for _, missing := range []error{jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound,
		jetstream.ErrBucketNotFound} {
		if errors.Is(err, missing) {
			return errNoQueue
		}
	}
	if err == nil {
		q.config.Patience = work.CachedInfo().Config.AckWait
		q.config.MaxJobs = int(q.stream.CachedInfo().Config.MaxMsgs)
	}
	return err
}

// make makes what is not there.
func (q *Queue) make(whole context.Context, nc *nats.Conn) (err error) {
	ctx, cancel := context.WithTimeout(whole, 10*time.Second)
	defer cancel()
	c := q.config
	if q.js, err = jetstream.New(nc); err != nil {
		return err
	}
	if c.Join {
		return q.join(ctx)
	}
	if err := q.mend(whole); err != nil {
		return err
	}
	q.stream, err = q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: workStream, Subjects: []string{workSubject + "*", workSubject + "*.*"},
		Retention: jetstream.WorkQueuePolicy,
		MaxMsgs:   int64(c.MaxJobs), Discard: jetstream.DiscardNew, Replicas: c.Replicas, Duplicates: 2 * time.Minute,
	})
	if err != nil {
		return err
	}
	if err := q.Grant(ctx, Owner{}); err != nil {
		return err
	}
	keys := func(name string, ttl time.Duration) (kv jetstream.KeyValue) {
		if err == nil {
			kv, err = q.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, History: 1, TTL: ttl,
				Replicas: c.Replicas, MaxValueSize: 4 << 20})
		}
		return kv
	}
	q.records = keys("nst-jobs", 0)
	q.previews = keys("nst-previews", 0)
	q.workers = keys("nst-workers", 3*presence)
	q.sessions = keys(sessionBucket, SessionAge)
	keys(spentBucket, 48*time.Hour)
	if err != nil {
		return err
	}
	// What is kept lives as long as its job's record says, not by a time of its own.
	q.objects, err = q.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: bucket,
		Replicas: c.Replicas})
	return err
}

// Close ends what the queue does in the background.
func (q *Queue) Close() {
	q.end()
	q.ended.Wait()
	q.decoder.Close()
}

// Decoder decodes what strangers send, for whatever concerns the queue. Close ends it.
func (q *Queue) Decoder() *decoder.Pool { return q.decoder }

// Limits are those of the configuration, its defaults filled in.
func (q *Queue) Limits() Config { return q.config }

// follow keeps what is known up to date.
func (q *Queue) follow(ctx context.Context, w jetstream.KeyWatcher, ready chan struct{}) {
	defer func() { _ = w.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return
			case e == nil: // all that there was
				close(ready)
			case !strings.Contains(e.Key(), "."):
				if e.Operation() != jetstream.KeyValuePut {
					q.forget(e.Key(), e.Revision())
				} else if j, err := decode(e); err == nil {
					q.learn(j)
				} else {
					q.config.Log.Error("a record cannot be read: the job is left alone", "job", e.Key(), "error", err)
				}
			}
		}
	}
}

func decode(e jetstream.KeyValueEntry) (j Job, err error) {
	if err = json.Unmarshal(e.Value(), &j); err == nil && j.Version > version {
		err = errVersion
	}
	j.Revision = e.Revision()
	return j, err
}

// learn is told of a record, by the server or by who wrote it.
func (q *Queue) learn(j Job) {
	q.mutex.Lock()
	if q.known[j.ID].Revision >= j.Revision || q.gone.Contains(j.ID) {
		q.mutex.Unlock()
		return
	}
	q.change(j)
	q.mutex.Unlock()
	q.deliver()
}

// change makes a record that is known another.
func (q *Queue) change(j Job) {
	before := q.known[j.ID]
	q.count(before, -1)
	q.known[j.ID] = j
	q.count(j, 1)
	if began := cmp.Or(j.Began, j.Started); began != nil && began.After(q.began[j.Owner]) {
		q.began[j.Owner] = *began
	}
	q.tell(j.ID)
	if before.State != j.State {
		q.tell("")
	}
	if len(q.observers) > 0 {
		q.unseen = append(q.unseen, [2]Job{before, j})
	}
}

// deliver calls the observers, in the order of the changes, without the lock: whoever is the
// first to come does so for all.
func (q *Queue) deliver() {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.delivering {
		return
	}
	q.delivering = true
	for len(q.unseen) > 0 {
		one := q.unseen[0]
		q.unseen = q.unseen[1:]
		observers := slices.Collect(maps.Keys(q.observers))
		q.mutex.Unlock()
		for _, observe := range observers {
			(*observe)(one[0], one[1])
		}
		q.mutex.Lock()
	}
	q.delivering = false
}

func (q *Queue) forget(id string, revision uint64) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if j, ok := q.known[id]; ok && j.Revision < revision {
		q.count(j, -1)
		delete(q.known, id)
		q.gone.Add(id, true)
		q.tell(id)
		q.tell("")
	}
}

func (q *Queue) count(j Job, by int) {
	if j.ID != "" && !j.State.Finished() {
		q.waiting += by
	}
}

func (q *Queue) tell(id string) {
	for c := range q.changed[id] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Observe has a function called with each change of a record from now on until stop is
// called, before.ID being empty of a new job: one after the other, in their order. It is to be
// fast, for others wait; it may use the queue.
func (q *Queue) Observe(observe func(before, after Job)) (stop func()) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.observers[&observe] = true
	return func() {
		q.mutex.Lock()
		defer q.mutex.Unlock()
		delete(q.observers, &observe)
	}
}

// Stored is how much is stored, and how much may be; 0: there is no limit.
func (q *Queue) Stored(ctx context.Context) (bytes, limit int64, err error) {
	a, err := q.js.AccountInfo(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, l := range []int64{a.Limits.MaxStore, q.config.MaxBytes} {
		if l > 0 && (limit == 0 || l < limit) {
			limit = l
		}
	}
	return int64(a.Store), limit, nil
}

// Get returns what is known of a job. The error is ErrNotFound, or the
// connection's.
func (q *Queue) Get(ctx context.Context, id string) (Job, error) {
	q.mutex.Lock()
	j, ok := q.known[id]
	q.mutex.Unlock()
	if ok {
		return j, nil
	}
	if !validID(id) {
		return Job{}, ErrNotFound
	}
	return q.load(ctx, id)
}

// load asks the server.
func (q *Queue) load(ctx context.Context, id string) (Job, error) {
	e, err := q.records.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Job{}, ErrNotFound
	}
	if err != nil {
		return Job{}, err
	}
	return decode(e)
}

// validID says whether an id can be one of ours: it is part of subjects and names.
func validID(id string) bool {
	return len(id) == 26 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') &&
			(r < '2' || r > '7')
	})
}

// List returns all jobs, the newest first.
func (q *Queue) List() []Job {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	all := make([]Job, 0, len(q.known))
	for _, j := range q.known {
		all = append(all, j)
	}
	slices.SortFunc(all, func(a, b Job) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	return all
}

// unfinished are the jobs that wait or run, in no order.
func (q *Queue) unfinished() (all []Job) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for _, j := range q.known {
		if !j.State.Finished() {
			all = append(all, j)
		}
	}
	return all
}

// Changes returns a channel that has a value soon after each change of a job, and
// what to call when it is not needed any more. Several changes may be one value:
// Get has the latest. Of no id it has one when any job is queued, begun, finished or
// forgotten.
func (q *Queue) Changes(id string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.changed[id] == nil {
		q.changed[id] = map[chan struct{}]bool{}
	}
	q.changed[id][c] = true
	return c, func() {
		q.mutex.Lock()
		defer q.mutex.Unlock()
		if delete(q.changed[id], c); len(q.changed[id]) == 0 {
			delete(q.changed, id)
		}
	}
}

// log is for lines about a job.
func (q *Queue) log(j Job) *slog.Logger {
	log := q.config.Log.With("job", j.ID)
	if j.RequestID != "" {
		log = log.With("request", j.RequestID)
	}
	return log
}

// Ready says why jobs would not be made now; nil: they would.
func (q *Queue) Ready(ctx context.Context) error {
	if free, known := q.diskFree(); known && free < reserve {
		return errors.New("the disk is full")
	}
	all, err := q.Workers(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the queue does not answer: %w", err)
	case len(all) == 0:
		return fmt.Errorf("no worker has been seen for %d seconds", int(absence.Seconds()))
	}
	return nil
}

// full makes errors of limits ours.
func full(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "maximum messages exceeded"):
		return ErrQueueFull
	case strings.Contains(text, "insufficient storage"), strings.Contains(text, "resource limits exceeded"),
		strings.Contains(text, "no space left"), strings.Contains(text, "maximum bytes exceeded"),
		strings.Contains(text, "insufficient resources"):
		return ErrNoSpace
	}
	return err
}

// Picture returns one of a job's pictures: "content" or "clip", "style-1", …, "preview" (a
// JPEG), "result" (a PNG, or a clip: see Result.Type). The error is ErrNotFound or
// ErrNotReady, or the connection's.
func (q *Queue) Picture(ctx context.Context, id, name string) ([]byte, error) {
	var out bytes.Buffer
	err := q.CopyPicture(ctx, id, name, &out)
	return out.Bytes(), err
}

// CopyPicture writes one of a job's pictures, as Picture returns it, to w, which is to
// be fast: some are copied at a time, others wait.
func (q *Queue) CopyPicture(ctx context.Context, id, name string, w io.Writer) error {
	j, err := q.Get(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case name == "preview":
		e, err := q.previews.Get(ctx, id)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return ErrNotReady
		}
		if err == nil {
			_, err = w.Write(e.Value())
		}
		return err
	case name == "result" && j.State != Done:
		return ErrNotReady
	case name != "result" && !slices.Contains(j.Inputs.names(), name):
		return ErrNotFound
	}
	if name == "result" {
		name = j.result()
	}
	return q.copy(ctx, id, name, w)
}

// Unavailable says whether an error is that the queue does not answer, or that it has no process to
// decode a picture in: the same may succeed later.
func Unavailable(err error) bool {
	for _, one := range []error{context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders,
		nats.ErrConnectionClosed, nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrJetStreamNotEnabled,
		decoder.ErrDecoder} {
		if errors.Is(err, one) {
			return true
		}
	}
	return err != nil && temporary(err)
}

// Cancel has a job end: at once, whether there is a worker or not; one that has it
// stops within an iteration. Of a finished one it changes nothing.
func (q *Queue) Cancel(ctx context.Context, id string) (Job, error) {
	var j Job
	running := false
	err := q.edit(ctx, id, &j, func(j *Job) error {
		if j.State.Finished() {
			return errNoChange
		}
		running = j.State == Running
		j.finish(Cancelled)
		return nil
	})
	if err == nil {
		err = q.stream.Purge(ctx, jetstream.WithPurgeSubject(j.subject()))
	}
	if err == nil && running { // the worker, if it lives
		_, err = q.records.Put(ctx, "cancel."+id, nil)
	}
	if err == nil {
		err = q.drop(ctx, object(id, j.checkpoint()))
	}
	if err == nil {
		err = q.dropSegments(ctx, j)
	}
	if errors.Is(err, errNoChange) {
		err = nil
	}
	return j, err
}

// errNoChange is returned by what edit calls if there is nothing to write.
var errNoChange = errors.New("no change")

// edit reads a record, has do change it, and writes it, again if another wrote it
// in between, or a server of a cluster had not heard of the last change.
func (q *Queue) edit(ctx context.Context, id string, j *Job, do func(*Job) error) (err error) {
	for {
		if *j, err = q.load(ctx, id); err != nil {
			return err
		}
		if err := do(j); err != nil {
			return err
		}
		if *j, err = q.update(ctx, *j); !errors.Is(err, errConflict) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (j *Job) finish(s State) {
	now := time.Now().UTC()
	j.State, j.Finished = s, &now
}

// Delete forgets a finished job and its pictures, and then gone is true; of another
// it is Cancel.
func (q *Queue) Delete(ctx context.Context, id string) (j Job, gone bool, err error) {
	if j, err = q.Get(ctx, id); err != nil {
		return j, false, err
	}
	if j.State.Finished() {
		return j, true, q.remove(ctx, j)
	}
	j, err = q.Cancel(ctx, id)
	return j, false, err
}

// remove deletes all of a job, its record last.
func (q *Queue) remove(ctx context.Context, j Job) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := q.stream.Purge(ctx, jetstream.WithPurgeSubject(j.subject()))
	for _, name := range slices.Concat(j.Inputs.names(), []string{j.result(), j.checkpoint()}, j.segments(true)) {
		if e := q.drop(ctx, object(j.ID, name)); e != nil {
			if err = errors.Join(err, e); Unavailable(e) {
				return err
			}
		}
	}
	err = errors.Join(err, q.previews.Purge(ctx, j.ID), q.records.Purge(ctx, "cancel."+j.ID))
	if j.Key != "" && err == nil {
		err = q.unclaim(ctx, j)
	}
	if err == nil {
		err = q.records.Purge(ctx, j.ID)
	}
	if err == nil {
		q.forget(j.ID, 1<<63)
	}
	return err
}

// unclaim gives up a job's key, if it is still the job's.
func (q *Queue) unclaim(ctx context.Context, j Job) error {
	e, err := q.records.Get(ctx, j.Key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var c claimRecord
	if json.Unmarshal(e.Value(), &c) == nil && c.ID != j.ID {
		return nil
	}
	return q.records.Purge(ctx, j.Key, jetstream.LastRevision(e.Revision()))
}

// errConflict is update's if another has changed the record since it was read.
var errConflict = errors.New("another has changed the job")

// conflicts says whether an error is that another wrote in between.
func conflicts(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// update writes a record over the revision that it was made from.
func (q *Queue) update(ctx context.Context, j Job) (Job, error) {
	value, err := json.Marshal(j)
	if err != nil {
		return j, err
	}
	revision, err := q.records.Update(ctx, j.ID, value, j.Revision)
	if conflicts(err) {
		return j, errConflict
	}
	if err != nil {
		return j, full(err)
	}
	j.Revision = revision
	q.learn(j)
	return j, nil
}
