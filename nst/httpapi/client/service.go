// Package client is a client of the service (nst serve). Client has a method for each call,
// made of the service's description; Service does with them what a program wants: submit
// pictures, follow the job, take the result. It needs neither libtorch nor cgo.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"time"
)

// Finished says whether nothing more will happen to a job.
func (s State) Finished() bool { return s == Done || s == Failed || s == Cancelled }

// Service is a service, asked by one token.
type Service struct {
	// Calls are the calls as they are.
	Calls *Client
	// Patience is how long a call is tried again that nobody answers, or whose answer is that
	// the service is busy; 0: a minute.
	Patience time.Duration
	// Waits, if it is not nil, is told when a call begins to be tried again, and why.
	Waits func(error)
}

// New returns a client of the service at a URL, such as https://nst.example.com. The token
// may be empty, where there are none; nil is a client of its own. Redirects are not followed:
// they would make another request of one that submits, and take the token elsewhere. The
// error is about the URL or the token.
func New(url, token string, web *http.Client) (*Service, error) {
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the token has spaces, line breaks or other characters that no token has")
	}
	own := http.Client{}
	if web != nil {
		own = *web
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	options := []ClientOption{WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		return nil
	})}
	calls, err := NewClient(strings.TrimSuffix(url, "/"), append(options, WithHTTPClient(&own))...)
	return &Service{Calls: calls}, err
}

// Request is a picture to be made. Pictures are files' contents.
type Request struct {
	// Options are Options, or anything that is those in JSON; nil: the defaults.
	Options any
	Content []byte
	// Clip is the path of a file with moving pictures, in place of Content.
	Clip   string
	Styles [][]byte
	// Init is the picture to start from; the masks are as the service's description has
	// them. Each may be nil.
	Init, ContentMask, StrengthMask []byte
	StyleMasks                      [][]byte
	// Key makes requests with the same one the same job; empty: a random one.
	Key string
}

// form is the request as a multipart form. The clip's file belongs between before and after;
// without one after is empty.
func (r Request) form() (before, after []byte, kind string, err error) {
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	part := func(name, kind string, data []byte) {
		if data == nil || err != nil {
			return
		}
		h := textproto.MIMEHeader{}
		h.Set("Content-Disposition", fmt.Sprintf(`form-data; name=%q; filename=%q`, name, name))
		h.Set("Content-Type", kind)
		var p io.Writer
		if p, err = w.CreatePart(h); err == nil {
			_, err = p.Write(data)
		}
	}
	if r.Options != nil {
		options, err := json.Marshal(r.Options)
		if err != nil {
			return nil, nil, "", err
		}
		part("options", "application/json", options)
	}
	const data = "application/octet-stream"
	part("content", data, r.Content)
	for _, s := range r.Styles {
		part("style", data, s)
	}
	part("init", data, r.Init)
	part("content_mask", data, r.ContentMask)
	for _, m := range r.StyleMasks {
		part("style_mask", data, m)
	}
	part("strength_mask", data, r.StrengthMask)
	if r.Clip != "" {
		part("clip", data, []byte{})
	}
	end := out.Len()
	err = errors.Join(err, w.Close())
	all := out.Bytes()
	return all[:end:end], all[end:], w.FormDataContentType(), err
}

// clipped is a body with a clip in it.
type clipped struct {
	io.Reader
	io.Closer
}

// body is a form with the clip, if there is one, and how long it is.
func (r Request) body(before, after []byte) (body io.Reader, size int64, err error) {
	if r.Clip == "" {
		return bytes.NewReader(append(before, after...)), int64(len(before) + len(after)), nil
	}
	f, err := os.Open(r.Clip)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	all := io.MultiReader(bytes.NewReader(before), f, bytes.NewReader(after))
	return clipped{all, f}, int64(len(before)) + info.Size() + int64(len(after)), nil
}

// Submit has a picture made, and returns its job. It may be called again with the same key
// when nobody knows whether it was done. The error is a ProblemError, or the connection's.
func (s *Service) Submit(ctx context.Context, r Request) (*Job, error) {
	before, after, kind, err := r.form()
	if err != nil {
		return nil, err
	}
	key := r.Key
	if key == "" {
		key = rand.Text()
	}
	return s.job(ctx, func() (*http.Response, error) {
		body, size, err := r.body(before, after)
		if err != nil {
			return nil, err
		}
		return s.Calls.SubmitWithBody(ctx, &SubmitParams{IdempotencyKey: &key}, kind, body,
			func(_ context.Context, q *http.Request) error {
				if q.ContentLength = size; r.Clip != "" { // what is refused need not be sent
					q.Header.Set("Expect", "100-continue")
				}
				return nil
			})
	})
}

// job is a call whose answer is a job.
func (s *Service) job(ctx context.Context, call func() (*http.Response, error)) (*Job, error) {
	var j Job
	err := s.ask(ctx, &j, call)
	if err == nil && j.Id == "" {
		err = errors.New("what answers is no service of nst")
	}
	return &j, err
}

// Job returns what is known of a job.
func (s *Service) Job(ctx context.Context, id string) (*Job, error) {
	return s.job(ctx, func() (*http.Response, error) { return s.Calls.Get(ctx, id) })
}

// Cancel cancels a job, or forgets one that is finished.
func (s *Service) Cancel(ctx context.Context, id string) error {
	return s.ask(ctx, nil, func() (*http.Response, error) { return s.Calls.Delete(ctx, id) })
}

// Result writes a finished job's picture, a PNG, to w.
func (s *Service) Result(ctx context.Context, id string, w io.Writer) error {
	return s.picture(ctx, w, func() (*http.Response, error) { return s.Calls.Result(ctx, id, nil) })
}

// ResultFile writes a finished job's result to a file, from its beginning. It is not held in
// memory: where a connection breaks off, the rest is asked for.
func (s *Service) ResultFile(ctx context.Context, id string, file *os.File) error {
	at := int64(0)
	take := func(answer *http.Response) error {
		if answer.StatusCode != http.StatusPartialContent {
			at = 0
		}
		if _, err := file.Seek(at, io.SeekStart); err != nil {
			return err
		}
		n, err := io.Copy(file, answer.Body)
		at += n
		return err
	}
	return s.ask(ctx, take, func() (*http.Response, error) {
		params := &ResultParams{}
		if at > 0 {
			rest := fmt.Sprintf("bytes=%d-", at)
			params.Range = &rest
		}
		return s.Calls.Result(ctx, id, params)
	})
}

// Preview writes a job's picture so far, a JPEG, to w. There may be none yet: that is a
// ProblemError of status 404.
func (s *Service) Preview(ctx context.Context, id string, w io.Writer) error {
	return s.picture(ctx, w, func() (*http.Response, error) { return s.Calls.Preview(ctx, id, nil) })
}

// picture reads the whole before it writes any, so that it can be tried again.
func (s *Service) picture(ctx context.Context, w io.Writer, call func() (*http.Response, error)) error {
	var data []byte
	if err := s.ask(ctx, &data, call); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// ProblemError is what the service answers in place of what was wanted.
type ProblemError struct {
	Problem
	Retry    time.Duration // after which it may be otherwise; 0: it does not say
	Location string        // of a redirect
}

// Error is the problem's detail.
func (e *ProblemError) Error() string {
	switch {
	case e.Location != "":
		return "the service is at another address: " + e.Location
	case e.Detail == "":
		return fmt.Sprintf("the service answered %d", e.Status)
	}
	return e.Detail
}

// busy says whether the same may succeed later.
func (e *ProblemError) busy() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusConflict, http.StatusServiceUnavailable, http.StatusBadGateway,
		http.StatusGatewayTimeout: // the last two are a proxy's
		return true
	}
	return false
}

// problemOf reads the problem of an answer.
func problemOf(answer *http.Response) *ProblemError {
	p := &ProblemError{}
	data, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "application/problem+json") {
		_ = json.Unmarshal(data, &p.Problem)
	}
	p.Status = answer.StatusCode
	if p.Status < 400 {
		p.Location = answer.Header.Get("Location")
	}
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil {
		p.Retry = time.Duration(seconds) * time.Second
	}
	return p
}

// ask makes a call, again while nobody answers or the service is busy, and reads its answer
// into out: JSON, or a *[]byte as it is, or has a func(*http.Response) error read it.
func (s *Service) ask(ctx context.Context, out any, call func() (*http.Response, error)) error {
	patience := s.Patience
	if patience == 0 {
		patience = time.Minute
	}
	const first = 200 * time.Millisecond
	for began, pause := time.Now(), first; ; pause = min(2*pause, 10*time.Second) {
		err := once(out, call)
		var p *ProblemError
		if err == nil || ctx.Err() != nil || errors.As(err, &p) && !p.busy() || hopeless(err) {
			return errors.Join(ctx.Err(), err)
		}
		if s.Waits != nil && pause == first {
			s.Waits(err)
		}
		wait := pause
		if p != nil && p.Retry > 0 {
			wait = p.Retry
		}
		if time.Since(began)+wait > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// hopeless says whether an error is of what was asked, and not of the way there.
func hopeless(err error) bool {
	var certificate *tls.CertificateVerificationError
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var file *fs.PathError
	return errors.As(err, &file) || errors.As(err, &certificate) || errors.As(err, &syntax) || errors.As(err, &kind)
}

func once(out any, call func() (*http.Response, error)) error {
	answer, err := call()
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return problemOf(answer)
	}
	if take, ok := out.(func(*http.Response) error); ok {
		return take(answer)
	}
	if out == nil {
		return nil
	}
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = data
		return nil
	}
	return json.Unmarshal(data, out)
}

// Follow calls tell with each change of a job that it hears of, until the job is finished,
// and returns it then. Lost connections are made again. The error is ctx's, a ProblemError
// (of status 404: the job was deleted) or, for longer than Patience, the connection's.
func (s *Service) Follow(ctx context.Context, id string, tell func(*Job)) (*Job, error) {
	j, err := s.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	for tell(j); !j.State.Finished(); {
		before := j.Revision
		_ = s.events(ctx, id, j.Revision, func(next *Job) { j = next; tell(j) }) // what was lost is asked for
		if ctx.Err() != nil {
			return j, ctx.Err()
		}
		if j.State.Finished() {
			break
		}
		if j.Revision == before { // the stream told nothing, as when the service is restarted
			select {
			case <-ctx.Done():
				return j, ctx.Err()
			case <-time.After(time.Second):
			}
		}
		now, err := s.Job(ctx, id)
		if err != nil {
			return j, err
		}
		if now.Revision > j.Revision {
			j = now
			tell(j)
		}
	}
	return j, nil
}

// silence is how long a stream may send nothing: the service says every 15 seconds that it
// is there.
const silence = 45 * time.Second

// events reads a stream of Server-Sent Events while it lasts.
func (s *Service) events(ctx context.Context, id string, after int64, tell func(*Job)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	last := strconv.FormatInt(after, 10)
	answer, err := s.Calls.Events(ctx, id, &EventsParams{LastEventID: &last})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return problemOf(answer)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		quiet.Reset(silence)
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var j Job
		if json.Unmarshal([]byte(data), &j) == nil && j.Id != "" {
			tell(&j)
		}
	}
	return lines.Err()
}
