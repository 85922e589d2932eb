package jobs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/picture/decoder"
)

// Submit checks a request, stores it and queues it. Of a request whose Key was
// used before it returns the job that there is, and created is false. Errors are
// ErrQueueFull, ErrNoSpace, ErrNoClips, ErrKeyUsed, QuotaErrors, PictureErrors, those that match
// nst.ErrInvalidOption, and the connection's.
func (q *Queue) Submit(ctx context.Context, r Request) (j Job, created bool, err error) {
	if r.Key == "" {
		if q.Full() {
			return j, false, ErrQueueFull
		}
		if err := q.admit(r.Owner); err != nil {
			return j, false, err
		}
	}
	if j, err = q.check(ctx, r); err != nil {
		return j, false, err
	}
	if j.Reserved, err = q.room(ctx, r, j); err != nil {
		return j, false, err
	}
	defer q.grant(-j.Reserved) // the record says it then, or it was not stored
	j.ID, j.State, j.Created, j.Version = strings.ToLower(rand.Text()), Queued, time.Now().UTC(), version
	j.MaxSeconds, j.AtOnce = cmp.Or(r.Owner.MaxSeconds, q.config.MaxSeconds), r.Owner.AtOnce
	j.Owner, j.Priority, j.RequestID, j.Trace = r.Owner.Name, r.Owner.Priority, r.ID, traceOf(ctx)
	hash := ""
	if r.Key != "" {
		j.Key = r.keyName()
		if hash, err = r.hash(); err != nil {
			return j, false, err
		}
	}
	for since := time.Now(); r.Key != ""; { // until it is ours, or whose it is has a job
		other, err := q.claim(ctx, r, hash, j.ID)
		if err == nil && other == "" {
			break
		}
		var theirs Job
		if err == nil {
			theirs, err = q.load(ctx, other)
		}
		if !errors.Is(err, ErrNotFound) {
			return theirs, false, err
		}
		if time.Since(since) > claimWait {
			return j, false, ErrKeyBusy
		}
		select {
		case <-ctx.Done():
			return j, false, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	unlock, err := q.lockOwner(ctx, r.Owner.Name)
	if err == nil {
		if err = q.charge(ctx, r, j); err == nil {
			if j, err = q.store(ctx, r, j); err != nil {
				_ = q.spend(context.WithoutCancel(ctx), r.Owner, j, -1)
			}
		}
		unlock()
	}
	if err != nil {
		q.remove(context.WithoutCancel(ctx), j)
		return j, false, err
	}
	q.log(j).Info("queued", "owner", j.Owner, "width", j.Width, "height", j.Height)
	return j, true, nil
}

// Full says, by what is known now, whether Submit would answer ErrQueueFull to any
// request without a Key: then its pictures need not be looked at.
func (q *Queue) Full() bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	return q.waiting >= q.config.MaxJobs
}

// check validates a request, and makes its job.
func (q *Queue) check(ctx context.Context, r Request) (j Job, err error) {
	if err := r.Options.Validate(); err != nil && r.Options.Start != nst.StartPicture {
		return j, err
	}
	if n := r.Options.Iterations; n != nil && *n > q.config.MaxIterations {
		return j, &nst.OptionError{Field: "Iterations", Problem: fmt.Sprintf("is %d; at most %d are made here", *n,
			q.config.MaxIterations)}
	}
	j.Options = r.Options
	j.Styles = len(r.Styles)
	j.Inputs = inputs{Clip: r.Clip != "", Styles: len(r.Styles), ContentMask: r.ContentMask != nil,
		StyleMasks: len(r.StyleMasks), StrengthMask: r.StrengthMask != nil, Init: r.Init != nil}
	if j.Inputs.Init {
		j.Options.Start = nst.StartPicture
	}
	if len(r.Styles) == 0 {
		return j, &PictureError{"style 1", errors.New("is missing; one or more will do")}
	}
	if r.Clip == "" && !r.ClipOptions.empty() {
		return j, &nst.OptionError{Field: "Container",
			Problem: "and the options of frames are of a clip, which is missing"}
	}
	var content *picture.Picture // its size
	if r.Clip != "" {
		content, err = q.checkClip(ctx, r, &j)
	} else {
		content, err = q.glance(ctx, r, "content", r.Content)
	}
	if err != nil {
		return j, err
	}
	var styles []*picture.Picture
	for i, data := range r.Styles {
		s, err := q.glance(ctx, r, fmt.Sprintf("style %d", i+1), data)
		if err != nil {
			return j, err
		}
		styles = append(styles, s)
	}
	o := j.Options // with the sizes of the masks
	if o.ContentMask, err = q.glanceIf(ctx, r, "content mask", r.ContentMask); err != nil {
		return j, err
	}
	if o.StrengthMask, err = q.glanceIf(ctx, r, "strength mask", r.StrengthMask); err != nil {
		return j, err
	}
	o.StyleMasks = nil
	for i, data := range r.StyleMasks {
		mask, err := q.glance(ctx, r, fmt.Sprintf("style mask %d", i+1), data)
		if err != nil {
			return j, err
		}
		o.StyleMasks = append(o.StyleMasks, mask)
	}
	if _, err := q.glanceIf(ctx, r, "init", r.Init); err != nil {
		return j, err
	}
	if o.Start == nst.StartPicture {
		if !j.Inputs.Init {
			return j, &nst.OptionError{Field: "Start",
				Problem: "is a picture, which is missing: send it as the part init"}
		}
		o.Start = "" // it has been looked at
	}
	if j.Clip != nil {
		j.Width, j.Height, err = q.frames(j.Clip.video(o), content, styles)
	} else {
		j.Width, j.Height, err = o.ResultSize(content, styles...)
	}
	if err != nil {
		return j, err
	}
	if int64(j.Width)*int64(j.Height) > q.config.MaxPixels {
		return j, &nst.OptionError{Field: "Size",
			Problem: fmt.Sprintf("makes a picture of %d×%d; at most %d pixels are made here", j.Width, j.Height,
				q.config.MaxPixels)}
	}
	return j, nil
}

// glance looks whether a picture can be decoded, and returns its size alone.
func (q *Queue) glance(ctx context.Context, r Request, part string, data []byte) (*picture.Picture, error) {
	looked := decoder.Request{Data: data, Client: cmp.Or(r.Client, r.Owner.Name)}
	info, err := q.decoder.Inspect(ctx, looked, glanceMemory)
	if errors.Is(err, picture.ErrPicture) {
		return nil, &PictureError{part, err}
	}
	if err != nil {
		return nil, err
	}
	if int64(info.Width)*int64(info.Height) > q.config.MaxPixels {
		return nil, &PictureError{part, fmt.Errorf("claims %d×%d pixels; at most %d are taken here",
			info.Width, info.Height, q.config.MaxPixels)}
	}
	return &picture.Picture{Width: info.Width, Height: info.Height}, nil
}

// glanceIf is glance where there is something to look at.
func (q *Queue) glanceIf(ctx context.Context, r Request, part string, data []byte) (*picture.Picture, error) {
	if data == nil {
		return nil, nil
	}
	return q.glance(ctx, r, part, data)
}

// glanceMemory is what decoding a picture may take for it to be decoded when it is
// submitted; of larger ones the header alone is looked at, and a worker will see.
const glanceMemory = 128 << 20

// room says how much room a job, and all that will come of it, may take, and whether
// there is that much in addition to what other unfinished jobs may yet take, and those that are
// being submitted: it is reserved until grant gives it back.
func (q *Queue) room(ctx context.Context, r Request, j Job) (need int64, err error) {
	need = int64(len(r.Content))
	for _, s := range r.Styles {
		need += int64(len(s))
	}
	// Beside the result a checkpoint: of L-BFGS up to 45 pictures, of Adam 6, and the
	// one before until it is whole.
	pictures := int64(45)
	if o, err := j.Options.Resolve(); err == nil && o.Optimizer == nst.Adam {
		pictures = 6
	}
	if j.Clip == nil {
		need += int64(j.Width) * int64(j.Height) * 12 * (2*pictures + 1)
	} else {
		need += j.Clip.Bytes + j.clipRoom()
	}
	others := q.grant(need)
	defer func() {
		if err != nil {
			q.grant(-need)
		}
	}()
	wanted := others
	for _, other := range q.unfinished() {
		wanted += other.Reserved
	}
	if free, known := q.diskFree(); known && free < wanted*int64(q.config.Replicas)+reserve {
		return 0, ErrNoSpace
	}
	stored, limit, err := q.Stored(ctx)
	if err != nil {
		return 0, err
	}
	if limit > 0 && stored+wanted > limit {
		return 0, ErrNoSpace
	}
	return need, nil
}

// grant reserves room, or gives it back, and returns how much is reserved then.
func (q *Queue) grant(bytes int64) int64 {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.granting += bytes
	return q.granting
}

// diskFree is what the store's disk has free, if it is on this machine.
func (q *Queue) diskFree() (bytes int64, known bool) {
	if q.config.Dir == "" {
		return 0, false
	}
	free, err := freeBytes(q.config.Dir)
	return free, err == nil
}

// keyName is where a request's key is kept: an owner's keys are its own.
func (r Request) keyName() string {
	if r.Owner.Name == "" {
		return "key." + hashed(r.Key)
	}
	return "key." + hashed(r.Owner.Name+"\x00"+r.Key)
}

// hashed is a text as part of a key of the store, who reads which does not learn it.
func hashed(text string) string {
	hash := sha256.Sum256([]byte(text))
	return hex.EncodeToString(hash[:])
}

// claimRecord says whose a key is.
type claimRecord struct {
	ID   string    `json:"id"`
	Hash string    `json:"hash"` // of the request
	Made time.Time `json:"made"`
}

func (r Request) hash() (string, error) {
	h := sha256.New()
	options, _ := json.Marshal(r.Options)
	parts := slices.Concat([][]byte{options, r.Content, r.Init, r.ContentMask}, r.Styles, r.StyleMasks)
	if r.StrengthMask != nil { // which older programs' requests have not
		parts = append(parts, []byte("strength mask"), r.StrengthMask)
	}
	for _, part := range parts {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	if r.Clip != "" {
		if err := r.hashClip(h); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// claim makes a key the job's, or returns the job whose it is.
func (q *Queue) claim(ctx context.Context, r Request, hash, id string) (other string, err error) {
	mine := claimRecord{id, hash, time.Now()}
	value, _ := json.Marshal(mine)
	for {
		_, err = q.records.Create(ctx, r.keyName(), value)
		if err == nil || !errors.Is(err, jetstream.ErrKeyExists) {
			return "", err
		}
		e, err := q.records.Get(ctx, r.keyName())
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		var theirs claimRecord
		if err := json.Unmarshal(e.Value(), &theirs); err != nil {
			return "", err
		}
		if theirs.Hash != mine.Hash {
			return "", ErrKeyUsed
		}
		if _, err := q.load(ctx, theirs.ID); errors.Is(err, ErrNotFound) && time.Since(theirs.Made) > time.Minute {
			// Who claimed it died, or the job was deleted.
			if err := q.records.Purge(ctx, r.keyName(), jetstream.LastRevision(e.Revision())); err != nil {
				return "", err
			}
			continue
		}
		return theirs.ID, nil
	}
}

// claimWait is how long a request waits for another one with its key.
const claimWait = 10 * time.Second

// store writes the pictures, then the record, then the message. Without the last,
// tidy sends it.
func (q *Queue) store(ctx context.Context, r Request, j Job) (Job, error) {
	data := map[string][]byte{"content": r.Content, "content-mask": r.ContentMask, "strength-mask": r.StrengthMask,
		"init": r.Init}
	for i, s := range r.Styles {
		data[numbered("style", i)] = s
	}
	for i, s := range r.StyleMasks {
		data[numbered("style-mask", i)] = s
	}
	for _, name := range j.Inputs.names() {
		err := error(nil)
		if name == clipName {
			err = q.writeFile(ctx, j.ID, name, r.Clip)
		} else {
			err = q.write(ctx, j.ID, name, bytes.NewReader(data[name]))
		}
		if err != nil {
			return j, err
		}
	}
	value, err := json.Marshal(j)
	if err != nil {
		return j, err
	}
	if j.Revision, err = q.records.Create(ctx, j.ID, value); err != nil {
		return j, full(err)
	}
	if err := q.send(ctx, j); err != nil {
		return j, err
	}
	q.learn(j)
	return j, nil
}

func (q *Queue) send(ctx context.Context, j Job) error {
	_, err := q.js.PublishMsg(ctx, &nats.Msg{Subject: j.subject()}, jetstream.WithMsgID(j.ID))
	return full(err)
}
