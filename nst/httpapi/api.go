// Package httpapi is the HTTP service of a jobs.Queue, and its web page. API is an
// http.Handler, for a server of one's own too; openapi.json describes its calls,
// and errors are RFC 9457 problem documents.
package httpapi

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/picture/decoder"
)

//go:embed openapi.json
var openAPI []byte

//go:embed page
var pageFiles embed.FS

// Config says how the service behaves. The zero value is the default, without a
// token: then it answers only requests that name this machine as their host.
type Config struct {
	// Tokens are what clients have to know one of; none: nothing is asked. SetTokens
	// changes them.
	Tokens []Token
	// TrustedProxies are whose X-Forwarded-For and X-Forwarded-Proto are believed.
	TrustedProxies []netip.Prefix
	// Hosts are names, beside localhost and loopback addresses, that a service
	// without a token answers to.
	Hosts []string
	// MaxBytes is how large a request may be, but for a clip in it; 0 means 128 MiB.
	MaxBytes int64
	// MaxClipBytes is how large a clip may be; 0 means 1 GiB.
	MaxClipBytes int64
	// MaxStreams is how many may follow events at once; 0 means 256.
	MaxStreams int
	// Log is told of requests and errors; nil: of nothing.
	Log *slog.Logger
	// Access is told of requests in place of Log, if it is not nil.
	Access *slog.Logger
	// LogReads has requests logged that read and succeed, as clients that poll send many of.
	LogReads bool
}

// API is the service. It is an http.Handler; Close ends the streams of events.
type API struct {
	queue   *jobs.Queue
	config  Config
	handler http.Handler
	guests  *guests
	metrics *metrics
	senders *shares // whose requests arrive
	takers  *shares // who take pictures
	uploads *shares // whose pictures are looked at
	clips   *shares // whose clips are here until they are stored
	convert *shares // whose results are made files of another format
	streams *shares // who follow jobs
	films   films
	ctx     context.Context
	end     context.CancelFunc
	ended   sync.WaitGroup
}

// Requests whose pictures are in memory at once, and clips that are in files; and of them, of
// one client.
const (
	maxUploads   = 8
	uploadsOfOne = 4
	maxClips     = 8
	clipsOfOne   = 2
)

// New returns the service of a queue, which stays the caller's.
func New(q *jobs.Queue, c Config) *API {
	if c.MaxBytes == 0 {
		c.MaxBytes = 128 << 20
	}
	if c.MaxClipBytes == 0 {
		c.MaxClipBytes = 1 << 30
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 256
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Access == nil {
		c.Access = c.Log
	}
	a := &API{
		queue: q, config: c, senders: newShares(maxSenders, sendersOfOne), takers: newShares(maxTakers, takersOfOne),
		uploads: newShares(maxUploads, uploadsOfOne), clips: newShares(maxClips, clipsOfOne),
		convert: newShares(maxConversions, 1),
		streams: newShares(c.MaxStreams, max(4, c.MaxStreams/4)), films: films{all: map[string]*film{}},
	}
	a.metrics = newMetrics(a)
	a.guests = newGuests(q, c, a.group, a.secure)
	a.ctx, a.end = context.WithCancel(context.Background())

	mux := http.NewServeMux()
	open := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, a.metrics.timed(pattern, h)) }
	known := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		open(pattern, func(w http.ResponseWriter, r *http.Request) {
			g, err := a.guests.check(r)
			if s := noted(w); s != nil {
				s.token, s.job = g.label, r.PathValue("id")
			}
			if err == nil {
				// A trace begins, or goes on from the client's, for who is known.
				ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
				ctx, span := otel.Tracer("github.com/seed9bb5c928/nst/nst/httpapi").Start(ctx, pattern,
					trace.WithSpanKind(trace.SpanKindServer))
				err = h(w, r.WithContext(context.WithValue(ctx, guestKey{}, g)))
				if span.IsRecording() {
					id, _ := ctx.Value(requestKey{}).(string)
					span.SetAttributes(attribute.String("nst.request", id))
				}
				span.End()
			}
			if err != nil {
				a.fail(w, r, err)
			}
		})
	}
	known("POST /v1/jobs", a.submit)
	known("GET /v1/jobs", a.list)
	known("GET /v1/jobs/{id}", a.job)
	known("DELETE /v1/jobs/{id}", a.remove)
	known("GET /v1/jobs/{id}/events", a.events)
	known("GET /v1/jobs/{id}/{picture}", a.picture)
	known("GET /v1/limits", a.limits)
	known("GET /v1/session", a.whoami)
	known("GET /metrics", func(w http.ResponseWriter, r *http.Request) error { a.metrics.ServeHTTP(w, r); return nil })
	stranger := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		open(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				a.fail(w, r, err)
			}
		})
	}
	stranger("POST /v1/session", a.login)
	stranger("DELETE /v1/session", a.guests.logout)
	open("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 200,
			map[string]string{"status": "ok"})
	})
	open("GET /readyz", a.ready)
	open("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openAPI)
	})
	files, _ := fs.Sub(pageFiles, "page")
	open("GET /{$}", http.FileServerFS(files).ServeHTTP)
	page := http.StripPrefix("/page/", http.FileServerFS(files))
	stranger("GET /page/{file}", func(w http.ResponseWriter, r *http.Request) error {
		if _, err := fs.Stat(files, r.PathValue("file")); err != nil {
			return errNowhere
		}
		page.ServeHTTP(w, r)
		return nil
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.stray(mux, w, r) })

	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, problem{Status: 403, Title: "Another site's request",
			Detail: "a page of another origin may not do this"})
	}))
	a.handler = a.shield(origins.Handler(mux))
	a.grant(c.Tokens)
	return a
}

// SetTokens changes the tokens that clients have to know one of. What they grant holds for
// jobs that wait, too, but for the priority, which is that of when a job was submitted.
func (a *API) SetTokens(tokens []Token) {
	a.guests.set(tokens)
	a.grant(tokens)
}

// grant has what tokens grant hold for the jobs that wait.
func (a *API) grant(tokens []Token) {
	ctx, cancel := context.WithTimeout(a.ctx, 30*time.Second)
	defer cancel()
	waiting := a.queue.Owners()
	for _, t := range tokens {
		if t.Name == "" || !waiting[t.Name] {
			continue
		}
		if err := a.queue.Grant(ctx, t.Owner); err != nil {
			a.config.Log.Warn("what is granted holds from the next job on", "owner", t.Name, "error", err)
		}
	}
}

// Close ends what follows events, as a server has to that shuts down.
func (a *API) Close() {
	a.end()
	a.ended.Wait()
	a.metrics.stop()
	a.films.close()
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// Server is an http.Server for the service with limits on slow clients and large
// headers. It ends streams of events when it shuts down.
func (a *API) Server() *http.Server {
	s := &http.Server{
		Handler: a, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(a.config.Log.Handler(), slog.LevelDebug),
	}
	s.RegisterOnShutdown(a.end)
	return s
}

// Time for a client to send its request, and to take an answer.
const (
	readTime  = 2 * time.Minute
	writeTime = time.Minute
	clipTime  = 10 * time.Minute // to look at a clip and to store it, and then to take the answer
)

const pageCSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src " +
	"'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// shield is what every request goes through: headers, time limits, whose name the
// service is asked by, and a log line.
func (a *API) shield(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", pageCSP)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		control := http.NewResponseController(w)
		if r.Body != http.NoBody { // net/http takes one that passes for a client that has gone
			_ = control.SetReadDeadline(time.Now().Add(readTime))
			if r.ProtoMajor == 1 { // until it is read: else net/http answers when a small one has come, however slowly
				h.Set("Connection", "close")
			}
		}
		_ = control.SetWriteDeadline(time.Now().Add(readTime + writeTime))
		began := time.Now()
		seen := &seen{ResponseWriter: w, status: 200}
		id := requestID(r)
		h.Set(requestHeader, id)
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, id))
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				a.log(r).Error("a request panicked", "path", r.URL.Path, "panic", fmt.Sprint(p))
				if !seen.wrote {
					a.fail(seen, r, errors.New("the request ended in an error of the program"))
				}
			}
			status := seen.status
			if !seen.wrote && r.Context().Err() != nil {
				status = statusGone
			}
			reads := (r.Method == http.MethodGet || r.Method == http.MethodHead) && status < 400
			if reads && !a.config.LogReads {
				return
			}
			attributes := []any{"request", id, "method", r.Method, "path", r.URL.Path, "status", status, "seconds",
				time.Since(began).Seconds(), "client", a.client(r)}
			if seen.token != "" {
				attributes = append(attributes, "token", seen.token)
			}
			if seen.job != "" {
				attributes = append(attributes, "job", seen.job)
			}
			a.config.Access.Info("request", attributes...)
			if status == statusGone { // nothing was written: that is no answer
				panic(http.ErrAbortHandler)
			}
		}()
		if !a.guests.asked() && !a.here(r.Host) {
			a.fail(seen, r, problem{Status: 421, Title: "Another host",
				Detail: "this service has no token, and answers only to requests for localhost, not for " +
					strconv.Quote(r.Host)})
			return
		}
		next.ServeHTTP(seen, r)
	})
}

// here says whether a host is this machine. Else a page of another site, the name
// of which its server makes this machine's, could use the service.
func (a *API) here(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	named := func(h string) bool { return strings.EqualFold(host, h) }
	ip := net.ParseIP(host)
	return named("localhost") || slices.ContainsFunc(a.config.Hosts, named) || ip != nil && ip.IsLoopback()
}

// seen notes the status that is written.
type seen struct {
	http.ResponseWriter
	status int
	wrote  bool
	token  string // the client's, by name
	job    string // that it is about
}

// noted is the answer of shield that others have wrapped.
func noted(w http.ResponseWriter) (last *seen) {
	for s, ok := w.(*seen); ok; s, ok = s.ResponseWriter.(*seen) {
		last = s
	}
	return last
}

// requestHeader has what a request is called in the log: the client's word for it, or one
// that the answer tells.
const requestHeader = "X-Request-Id"

type requestKey struct{}

var validRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func requestID(r *http.Request) string {
	if id := r.Header.Get(requestHeader); validRequestID.MatchString(id) {
		return id
	}
	return strings.ToLower(rand.Text()[:16])
}

// log is for lines about a request.
func (a *API) log(r *http.Request) *slog.Logger {
	id, _ := r.Context().Value(requestKey{}).(string)
	return a.config.Log.With("request", id)
}

// statusGone is what the log says of a client that did not wait for its answer.
const statusGone = 499

// WriteHeader notes the status.
func (s *seen) WriteHeader(status int) {
	s.status, s.wrote = status, true
	s.ResponseWriter.WriteHeader(status)
}

// Write notes that there is an answer.
func (s *seen) Write(p []byte) (int, error) {
	s.wrote = true
	return s.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (s *seen) Unwrap() http.ResponseWriter { return s.ResponseWriter }

var errNowhere = problem{Status: 404, Title: "Not found",
	Detail: "there is nothing at this address; /openapi.json lists what there is"}

// stray answers what no route is for.
func (a *API) stray(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{"GET", "POST", "DELETE"} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := mux.Handler(probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		a.fail(w, r, errNowhere)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	a.fail(w, r, problem{Status: 405, Title: "Method not allowed", Detail: r.Method + " is not answered here; " +
		strings.Join(allowed, " and ") + " will do"})
}

// problem is an RFC 9457 problem document.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Field is the option that is wrong, Part the picture.
	Field string `json:"field,omitempty"`
	Part  string `json:"part,omitempty"`

	retry time.Duration // Retry-After
}

// Error is the detail.
func (p problem) Error() string { return p.Detail }

// problemOf is what a client is told of an error. What it cannot know of is only
// logged.
func problemOf(err error) problem {
	var p problem
	var option *nst.OptionError
	var part *jobs.PictureError
	var tooLarge *http.MaxBytesError
	var quota *jobs.QuotaError
	switch {
	case errors.As(err, &p):
	case errors.As(err, &option):
		p = problem{Status: 422, Title: "Invalid option", Detail: option.Text(optionName),
			Field: optionName(option.Field)}
	case errors.As(err, &part):
		p = problem{Status: 422, Title: "Unusable picture", Detail: part.Error(), Part: part.Part}
	case errors.Is(err, nst.ErrInvalidOption):
		p = problem{Status: 422, Title: "Invalid option", Detail: err.Error()}
	case errors.Is(err, picture.ErrPicture):
		p = problem{Status: 422, Title: "Unusable picture", Detail: err.Error()}
	case errors.As(err, &tooLarge):
		p = problem{Status: 413, Title: "Too large", Detail: fmt.Sprintf("a request may have %d bytes", tooLarge.Limit)}
	case errors.Is(err, jobs.ErrNotFound):
		p = problem{Status: 404, Title: "Not found", Detail: "there is no such job, or no such picture of it"}
	case errors.Is(err, jobs.ErrNotReady):
		p = problem{Status: 404, Title: "Not ready", Detail: "there is none yet", retry: 2 * time.Second}
	case errors.As(err, &quota):
		p = problem{Status: 429, Title: "Too much", Detail: quota.Error(), retry: quota.Retry}
	case errors.Is(err, jobs.ErrQueueFull):
		p = problem{Status: 429, Title: "Queue full", Detail: err.Error(), retry: 10 * time.Second}
	case errors.Is(err, jobs.ErrNoClips):
		p = problem{Status: 422, Title: "No clips", Detail: err.Error(), Part: clipPart}
	case errors.Is(err, jobs.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		p = problem{Status: 507, Title: "Insufficient storage", Detail: err.Error()}
	case errors.Is(err, jobs.ErrKeyUsed):
		p = problem{Status: 422, Title: "Key used", Detail: "the Idempotency-Key was used for another request"}
	case errors.Is(err, jobs.ErrKeyBusy):
		p = problem{Status: 409, Title: "Key in use", Detail: err.Error(), retry: 2 * time.Second}
	case errors.Is(err, os.ErrDeadlineExceeded): // of reading from the client
		p = problem{Status: 408, Title: "Timeout", Detail: "the request took too long to arrive"}
	case errors.Is(err, decoder.ErrDecoder):
		p = problem{Status: 503, Title: "Unavailable", Detail: decoder.ErrDecoder.Error() + "; try again",
			retry: 5 * time.Second}
	case jobs.Unavailable(err):
		p = problem{Status: 503, Title: "Unavailable", Detail: "the queue does not answer; try again",
			retry: 5 * time.Second}
	default:
		p = problem{Status: 500, Title: "Internal error",
			Detail: "something is wrong with the service; its log says what"}
	}
	p.Type = "about:blank"
	return p
}

func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && !errors.As(err, new(problem)) {
		return // nobody listens: see shield
	}
	p := problemOf(err)
	if p.Status >= 500 {
		a.log(r).Error("a request failed", "method", r.Method, "path", r.URL.Path, "status", p.Status, "error", err)
	}
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(p.retry.Seconds())))
	}
	if p.Status == 401 {
		w.Header().Set("WWW-Authenticate", `Bearer realm="nst"`)
	}
	writeAs(w, "application/problem+json", p.Status, p)
}

func writeJSON(w http.ResponseWriter, status int, v any) { writeAs(w, "application/json", status, v) }

func writeAs(w http.ResponseWriter, kind string, status int, v any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// view is what clients see of a job.
type view struct {
	ID       string         `json:"id"`
	Owner    string         `json:"owner,omitempty"`
	State    jobs.State     `json:"state"`
	Revision uint64         `json:"revision"`
	Created  time.Time      `json:"created"`
	Started  *time.Time     `json:"started,omitempty"`
	Finished *time.Time     `json:"finished,omitempty"`
	Options  options        `json:"options"`
	Clip     *clipView      `json:"clip,omitempty"`
	Styles   int            `json:"styles"`
	Pictures []string       `json:"pictures"`
	Width    int            `json:"width"`
	Height   int            `json:"height"`
	Device   string         `json:"device,omitempty"`
	Attempts int            `json:"attempts"`
	Progress *jobs.Progress `json:"progress,omitempty"`
	Costs    *nst.Costs     `json:"costs,omitempty"`
	Curve    []jobs.Point   `json:"curve,omitempty"`
	Preview  int            `json:"preview"`
	Result   *jobs.Result   `json:"result,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`
	Error    string         `json:"error,omitempty"`
}

// clipView is what they see of its clip, beside its options.
type clipView struct {
	Frames  int     `json:"frames"`
	Seconds float64 `json:"seconds,omitempty"`
	Bytes   int64   `json:"bytes"`
}

func viewOf(j jobs.Job) view {
	asked := options{Options: j.Options}
	var clip *clipView
	if c := j.Clip; c != nil {
		asked.ClipOptions, clip = c.ClipOptions, &clipView{c.Frames, c.Seconds, c.Bytes}
	}
	return view{
		j.ID, j.Owner, j.State, j.Revision, j.Created, j.Started, j.Finished, asked, clip, j.Styles, j.Pictures(),
		j.Width, j.Height, j.Device, j.Attempts, j.Progress, j.Costs, j.Curve, j.Preview, j.Result, j.Warnings, j.Error,
	}
}

// list is GET /v1/jobs: those that whoever asks may see, the newest first, a page at a time.
func (a *API) list(w http.ResponseWriter, r *http.Request) error {
	query, g := r.URL.Query(), guestOf(r)
	limit := 100
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return bad("limit is %q; 1 to 1000 will do", text)
		}
		limit = n
	}
	state := jobs.State(query.Get("state"))
	if states := []jobs.State{"", jobs.Queued, jobs.Running, jobs.Done, jobs.Failed, jobs.Cancelled}; !slices.Contains(
		states, state) {
		return bad("state is %q; queued, running, done, failed and cancelled are known", string(state))
	}
	after, err := readCursor(query.Get("cursor"))
	if err != nil {
		return err
	}
	views, total, next := []view{}, 0, ""
	for _, j := range a.queue.List() {
		if !g.sees(j) || state != "" && j.State != state || query.Has("owner") && j.Owner != query.Get("owner") {
			continue
		}
		total++
		switch {
		case !after.before(j):
		case len(views) == limit:
			if next == "" {
				next = cursorOf(views[limit-1])
			}
		default:
			v := viewOf(j)
			v.Curve = nil
			views = append(views, v)
		}
	}
	answer := map[string]any{"jobs": views, "total": total}
	if next != "" {
		answer["next"] = next
	}
	writeJSON(w, 200, answer)
	return nil
}

// cursor is the last job of a page: the next one begins after it, whatever has come or gone
// meanwhile.
type cursor struct {
	created int64 // in nanoseconds; 0: the first page
	id      string
}

func cursorOf(v view) string { return fmt.Sprintf("%d-%s", v.Created.UnixNano(), v.ID) }

func readCursor(text string) (c cursor, err error) {
	if text == "" {
		return c, nil
	}
	created, id, ok := strings.Cut(text, "-")
	if c.created, err = strconv.ParseInt(created, 10, 64); err != nil || !ok || c.created <= 0 {
		return c, bad("cursor is %.60q, which is no answer's next", text)
	}
	c.id = id
	return c, nil
}

// before says whether a job comes after the cursor in the list.
func (c cursor) before(j jobs.Job) bool {
	at := j.Created.UnixNano()
	return c.created == 0 || at < c.created || at == c.created && j.ID > c.id
}

func (a *API) job(w http.ResponseWriter, r *http.Request) error {
	j, err := a.find(r)
	if err != nil {
		return err
	}
	writeJSON(w, 200, viewOf(j))
	return nil
}

// remove cancels a job (202: it will soon be) or forgets a finished one (204).
func (a *API) remove(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.find(r); err != nil {
		return err
	}
	j, gone, err := a.queue.Delete(r.Context(), r.PathValue("id"))
	switch {
	case err != nil:
		return err
	case gone:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusAccepted, viewOf(j))
	}
	return nil
}

func (a *API) limits(w http.ResponseWriter, r *http.Request) error {
	c := a.queue.Limits()
	clip := a.config.MaxClipBytes
	if !jobs.TakesClips() {
		clip = 0
	}
	writeJSON(w, 200, map[string]any{
		"max_clip_bytes": clip, "max_clip_frames": c.MaxClipFrames,
		"max_bytes": a.config.MaxBytes, "max_pixels": c.MaxPixels, "max_iterations": c.MaxIterations,
		"max_jobs": c.MaxJobs, "max_seconds": c.MaxSeconds, "retention_seconds": int64(c.Retention.Seconds()),
	})
	return nil
}

func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := a.queue.Ready(ctx); err != nil {
		// That is an answer, which whoever asks may ask for often: no error of the log's.
		w.Header().Set("Retry-After", "5")
		writeAs(w, "application/problem+json", 503, problem{Type: "about:blank", Status: 503, Title: "Not ready",
			Detail: err.Error()})
		return
	}
	workers, _ := a.queue.Workers(ctx)
	writeJSON(w, 200, map[string]any{"status": "ready", "workers": len(workers)})
}

// kinds are the media types of picture formats, by what is in the picture.
var kinds = map[string]string{"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "tiff": "image/tiff",
	"gif": "image/gif", "bmp": "image/bmp",
	"heic": "image/heic", "avif": "image/avif", "jxl": "image/jxl"}
