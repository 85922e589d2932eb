package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/picture/decoder"
)

// What goes up and down: it lies in files that have no name, so that slow clients cost
// no memory, and what is fast is not held up by them.

const (
	patience     = 15 * time.Second // without a byte
	leastRate    = 16 << 10         // bytes a second, on the average
	grace        = 10 * time.Second // before that is asked for
	maxSenders   = 64               // requests whose bodies are arriving
	sendersOfOne = 16               // of them, of one client
	maxTakers    = 512              // that take pictures
	takersOfOne  = 128
	startBytes   = 64 // that tell a format

	maxConversions = 2         // results that are made files of another format at once
	convertMemory  = 512 << 20 // what decoding one may take
)

// spool is a file that is gone when it is closed.
func spool() (*os.File, error) {
	f, err := os.CreateTemp("", "nst-*")
	if err != nil {
		return nil, fmt.Errorf("no room for what is sent: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// shares counts what clients do at once.
type shares struct {
	most, ofOne int
	mutex       sync.Mutex
	of          map[string]int
	all         int
	left        chan struct{} // closed when one leaves
}

func newShares(most, ofOne int) *shares {
	return &shares{most: most, ofOne: ofOne, of: map[string]int{}, left: make(chan struct{})}
}

// enter says whether a client may do one more; leave is to be called when it has.
func (s *shares) enter(client string) (leave func(), err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.all >= s.most || s.of[client] >= s.ofOne {
		return nil, problem{Status: 429, Title: "Busy",
			Detail: "too much is under way, here or of this client; try again", retry: 2 * time.Second}
	}
	s.of[client]++
	s.all++
	return sync.OnceFunc(func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.all--
		if s.of[client]--; s.of[client] == 0 {
			delete(s.of, client)
		}
		close(s.left)
		s.left = make(chan struct{})
	}), nil
}

// count is how many there are.
func (s *shares) count() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.all
}

// wait is enter for a client that waits for its turn, until ctx is done.
func (s *shares) wait(ctx context.Context, client string) (leave func(), err error) {
	for {
		s.mutex.Lock()
		left := s.left
		s.mutex.Unlock()
		if leave, err = s.enter(client); err == nil {
			return leave, nil
		}
		select {
		case <-left:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// receive takes a request's parts into files, if they come at the least rate.
func (a *API) receive(w http.ResponseWriter, r *http.Request) (s *sent, err error) {
	leave, err := a.senders.enter(a.group(r))
	if err != nil {
		return nil, err
	}
	defer leave()
	w.Header().Del("Connection")
	control := http.NewResponseController(w)
	most := a.config.MaxBytes + a.config.MaxClipBytes
	r.Body = &arriving{ReadCloser: http.MaxBytesReader(w, r.Body, most), control: control, began: time.Now()}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, bad("the multipart form cannot be read: %v", err)
	}
	s = &sent{}
	if s.file, err = spool(); err != nil {
		return nil, err
	}
	if err = s.take(a, a.group(r), parts); err == nil {
		if _, err = io.Copy(io.Discard, r.Body); err != nil { // what follows the form
			err = formError(err)
		}
	}
	if err != nil {
		s.close()
		return nil, err
	}
	_ = control.SetReadDeadline(time.Time{}) // one that passes is taken for a client that has gone
	answer := writeTime
	if s.clip != nil {
		answer = clipTime
	}
	_ = control.SetWriteDeadline(time.Now().Add(answer))
	return s, nil
}

// arriving is a body that is to come at the least rate.
type arriving struct {
	io.ReadCloser
	control *http.ResponseController
	began   time.Time
	taken   int64
}

// Read reads what has come.
func (b *arriving) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(patience))
	n, err := b.ReadCloser.Read(p)
	b.taken += int64(n)
	if passed := time.Since(b.began); err == nil && passed > grace && float64(b.taken) < leastRate*passed.Seconds() {
		err = os.ErrDeadlineExceeded
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // the context is done by it
		err = problem{Status: 408, Title: "Timeout", Detail: "the request came too slowly: it is to send something " +
			"every 15 seconds, and 16 KiB a second"}
	}
	return n, err
}

// patient is a ResponseWriter for a client that may be slow, as long as it goes on.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	beyond  bool // the client wants what is not there: it is told so as it is told of all errors
}

// WriteHeader writes all but the answer to a range that there is not.
func (p *patient) WriteHeader(status int) {
	if p.beyond = status == http.StatusRequestedRangeNotSatisfiable; !p.beyond {
		p.ResponseWriter.WriteHeader(status)
	}
}

// Write gives the client new time.
func (p *patient) Write(data []byte) (int, error) {
	if p.beyond {
		return len(data), nil
	}
	_ = p.control.SetWriteDeadline(time.Now().Add(patience + writeTime/2)) // for 32 KB
	return p.ResponseWriter.Write(data)
}

// picture sends one of a job's pictures, or parts of it.
func (a *API) picture(w http.ResponseWriter, r *http.Request) error {
	id, name := r.PathValue("id"), r.PathValue("picture")
	j, err := a.find(r)
	if err != nil {
		return err
	}
	if name != "preview" && name != "result" && !j.Has(name) {
		return jobs.ErrNotFound
	}
	as := picture.PNG // which results are
	if name == "result" {
		if as, err = wantedFormat(r, j); err != nil {
			return err
		}
	}
	leave, err := a.takers.enter(a.group(r))
	if err != nil {
		return err
	}
	defer leave()
	h := w.Header()
	tag := fmt.Sprintf("%q", fmt.Sprintf("%s-%s", id, name))
	switch {
	case name == "preview":
		tag = fmt.Sprintf("%q", fmt.Sprintf("%s-preview-%d-%s", id, j.Preview, j.State))
	case as != picture.PNG:
		tag = fmt.Sprintf("%q", fmt.Sprintf("%s-%s-%s", id, name, as))
	}
	if name != "preview" { // it will not change
		h.Set("Cache-Control", "private, no-cache")
	}
	if ready := name != "preview" && (name != "result" || j.State == jobs.Done); ready && matches(r, tag) {
		h.Set("ETag", tag)
		w.WriteHeader(http.StatusNotModified) // without reading it
		return nil
	}
	file, left, err := a.bring(r, j, name)
	if err == nil {
		defer left()
	}
	if err == nil && as != picture.PNG {
		err = a.converted(r, file, as)
	}
	var kind, ending string
	if err == nil {
		kind, ending, err = kindOf(j, name, file)
	}
	if err != nil {
		h.Del("Cache-Control")
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	h.Set("ETag", tag)
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", "default-src 'none'; media-src 'self'; sandbox") // a clip's tab plays it
	h.Set("Content-Disposition", fmt.Sprintf(`inline; filename="nst-%s-%s.%s"`, id[:8], name, ending))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime)) // to bring a clip may take long
	taker := &patient{ResponseWriter: w, control: http.NewResponseController(w)}
	http.ServeContent(taker, r, "", time.Time{}, io.NewSectionReader(file, 0, info.Size()))
	if taker.beyond {
		return problem{Status: 416, Title: "Range not satisfiable",
			Detail: fmt.Sprintf("the range %q is none of the picture, which has %d bytes", r.Header.Get("Range"),
				info.Size())}
	}
	return nil
}

// bring brings one of a job's pictures from the store into a file, which is left when it is
// not needed any more.
func (a *API) bring(r *http.Request, j jobs.Job, name string) (file *os.File, left func(), err error) {
	copied := func(file *os.File) error { return a.queue.CopyPicture(r.Context(), j.ID, name, file) }
	if name == clipPart || name == "result" && j.Clip != nil {
		key := j.ID + "/" + name
		one, err := a.films.take(r.Context(), key, copied)
		if err != nil {
			return nil, nil, err
		}
		return one.File, func() { a.films.leave(key, one) }, nil
	}
	if file, err = spool(); err != nil {
		return nil, nil, err
	}
	if err := copied(file); err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, func() { file.Close() }, nil
}

// kindOf is what a file is: its media type, and how its name ends.
func kindOf(j jobs.Job, name string, file *os.File) (kind, ending string, err error) {
	if name == "result" && j.Result != nil && j.Result.Type != "" {
		for ending, kind := range jobs.Containers {
			if kind == j.Result.Type {
				return kind, ending, nil
			}
		}
	}
	start := make([]byte, startBytes)
	n, err := file.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", "", err
	}
	if name == clipPart { // as browsers would find out
		switch kind = http.DetectContentType(start[:n]); kind {
		case "video/mp4", "video/webm":
			return kind, strings.TrimPrefix(kind, "video/"), nil
		case "image/gif":
			return kind, "gif", nil
		}
		return "application/octet-stream", "bin", nil
	}
	format := picture.FormatByStart(start[:n])
	if kinds[format] == "" {
		return "", "", fmt.Errorf("%s of %s is no picture", name, j.ID)
	}
	return kinds[format], string(format), nil
}

// wantedFormat is what a result is asked for as: PNG, JPEG or WebP. A clip is what it is.
func wantedFormat(r *http.Request, j jobs.Job) (picture.Format, error) {
	if !r.URL.Query().Has("format") {
		return picture.PNG, nil
	}
	if j.Clip != nil {
		return "", bad("format is of pictures; the job is of a clip, whose container is an option")
	}
	switch f := picture.Format(r.URL.Query().Get("format")); f {
	case picture.PNG, picture.JPEG, picture.WebP:
		return f, nil
	default:
		return "", bad("format is %.40q; png, jpeg or webp will do", string(f))
	}
}

// converted makes the result in a file one of another format, with the settings that it
// was made with. It is in memory meanwhile, so a client waits for its turn.
func (a *API) converted(r *http.Request, file *os.File, as picture.Format) error {
	turn, cancel := context.WithTimeout(r.Context(), uploadWait)
	defer cancel()
	leave, err := a.convert.wait(turn, a.group(r))
	if err != nil {
		return cmp.Or(r.Context().Err(), err)
	}
	defer leave()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	whole := decoder.Request{File: file, Size: size, Client: a.group(r)}
	info, err := a.queue.Decoder().Inspect(r.Context(), whole, 0)
	if err != nil {
		return unreadable(err)
	}
	if as.CheckSize(picture.Encoding{}, info.Width, info.Height) != nil || info.Memory > convertMemory {
		return problem{Status: 422, Title: "Too large", Detail: fmt.Sprintf("the result is of %d×%d pixels, too many "+
			"to be made a %s here; format=png will do", info.Width, info.Height, as), Field: "format"}
	}
	p, err := a.queue.Decoder().Decode(r.Context(), whole)
	if err != nil {
		return unreadable(err)
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return p.Encode(file, as, picture.Encoding{Comment: info.Comment})
}

// unreadable is the error of a picture that is ours: the client did nothing wrong.
func unreadable(err error) error {
	if errors.Is(err, picture.ErrPicture) {
		return fmt.Errorf("the result cannot be read: %v", err)
	}
	return fmt.Errorf("the result cannot be read: %w", err)
}

// matches says whether a client has what a tag names already.
func matches(r *http.Request, tag string) bool {
	for given := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if given = strings.TrimPrefix(strings.TrimSpace(given), "W/"); given == tag || given == "*" {
			return true
		}
	}
	return false
}
