package httpapi

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/seed9bb5c928/nst/nst/jobs"
)

// Token is what a client has to know. Who knows it submits its Owner's jobs, within what is
// granted, and sees and deletes these alone, unless Admin says that it is everyone's. A token
// without a name is an admin's.
type Token struct {
	jobs.Owner
	// Label is what the log calls who has no name.
	Label string
	// Secret is the token, of which any text will do; or SHA256 is its hash.
	Secret string
	SHA256 [sha256.Size]byte
	Admin  bool
}

// guests lets in who knows a token: as Authorization: Bearer, or, for browsers,
// by the cookie of a session that login began with it.
type guests struct {
	known    atomic.Pointer[[]guest] // of no tokens nothing is asked
	sessions *jobs.Queue
	attempts *lru.Cache[string, *rate.Limiter]
	group    func(*http.Request) string // that the client is one of
	secure   func(*http.Request) bool
}

// guest is who knows a token: its hash is what a session has as its owner.
type guest struct {
	owner jobs.Owner
	label string // in the log
	admin bool
	hash  [sha256.Size]byte
}

// sees says whether a job is among those that a guest may see.
func (g guest) sees(j jobs.Job) bool { return g.admin || j.Owner == g.owner.Name }

// Wrong tokens that a client may try: guessBurst at once, then one each guessEvery.
const (
	guessBurst = 10
	guessEvery = 6 * time.Second
	cookieName = "nst-session"
)

func newGuests(q *jobs.Queue, c Config, group func(*http.Request) string, secure func(*http.Request) bool) *guests {
	g := &guests{sessions: q, group: group, secure: secure}
	g.attempts, _ = lru.New[string, *rate.Limiter](4096)
	g.set(c.Tokens)
	return g
}

// set replaces the tokens. Sessions of those that stay go on.
func (g *guests) set(tokens []Token) {
	all := make([]guest, 0, len(tokens))
	for _, t := range tokens {
		one := guest{owner: t.Owner, label: cmp.Or(t.Name, t.Label), admin: t.Admin || t.Name == "", hash: t.SHA256}
		if t.Secret != "" {
			one.hash = sha256.Sum256([]byte(t.Secret))
		}
		all = append(all, one)
	}
	g.known.Store(&all)
}

func (g *guests) asked() bool { return len(*g.known.Load()) > 0 }

var errToken = problem{Status: 401, Title: "Unauthorized", Detail: "a token is wanted: Authorization: Bearer TOKEN"}

// check returns whose the client's token is. Where there are no tokens all is everyone's.
func (g *guests) check(r *http.Request) (guest, error) {
	if !g.asked() {
		return guest{admin: true}, nil
	}
	scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if ok && strings.EqualFold(scheme, "Bearer") {
		return g.try(r, strings.TrimSpace(given))
	}
	c, err := r.Cookie(cookieName)
	if err != nil {
		return guest{}, errToken
	}
	owner, err := g.sessions.Session(r.Context(), c.Value)
	if err != nil && !errors.Is(err, jobs.ErrNotFound) {
		return guest{}, err
	}
	for _, one := range *g.known.Load() {
		if owner == hex.EncodeToString(one.hash[:]) {
			return one, nil
		}
	}
	return guest{}, errToken
}

// guestKey is the key of a request's guest in its context.
type guestKey struct{}

// guestOf is whose a request is, which check has let in.
func guestOf(r *http.Request) guest {
	g, _ := r.Context().Value(guestKey{}).(guest)
	return g
}

// whoami is GET /v1/session.
func (a *API) whoami(w http.ResponseWriter, r *http.Request) error {
	g := guestOf(r)
	writeJSON(w, 200, map[string]any{"name": g.owner.Name, "admin": g.admin})
	return nil
}

// find returns a job, if whoever asks may see it.
func (a *API) find(r *http.Request) (jobs.Job, error) {
	j, err := a.queue.Get(r.Context(), r.PathValue("id"))
	if err == nil && !guestOf(r).sees(j) {
		return jobs.Job{}, jobs.ErrNotFound
	}
	return j, err
}

// try compares a token, in the same time whatever it is, and counts those that are
// wrong: a right one is let in however many were.
func (g *guests) try(r *http.Request, token string) (found guest, err error) {
	hash, right := sha256.Sum256([]byte(token)), 0
	for _, one := range *g.known.Load() {
		if subtle.ConstantTimeCompare(hash[:], one.hash[:]) == 1 {
			found, right = one, 1
		}
	}
	if right == 1 {
		return found, nil
	}
	client := g.group(r)
	limiter, ok := g.attempts.Get(client)
	if !ok {
		limiter = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
		g.attempts.Add(client, limiter)
	}
	if !limiter.Allow() {
		return found, problem{Status: 429, Title: "Too many attempts",
			Detail: "too many wrong tokens came from this address; wait a minute", retry: time.Minute}
	}
	return found, errToken
}

// login is POST /v1/session: {"token": …} for a cookie. Its body has a job's times to come.
func (a *API) login(w http.ResponseWriter, r *http.Request) error {
	leave, err := a.senders.enter(a.group(r))
	if err != nil {
		return err
	}
	defer leave()
	r.Body = &arriving{ReadCloser: http.MaxBytesReader(w, r.Body, 4096), control: http.NewResponseController(w),
		began: time.Now()}
	g := a.guests
	var given struct {
		Token string `json:"token"`
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	w.Header().Del("Connection")
	if json.Unmarshal(data, &given) != nil {
		return bad(`{"token": "…"} is wanted`)
	}
	if g.asked() {
		one, err := g.try(r, given.Token)
		if err != nil {
			return err
		}
		id, err := g.sessions.BeginSession(r.Context(), hex.EncodeToString(one.hash[:]),
			cmp.Or(one.label, one.owner.Name))
		if err != nil {
			return err
		}
		g.hand(w, r, id, int(jobs.SessionAge.Seconds()))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// logout is DELETE /v1/session: the session ends, and the browser forgets its cookie.
func (g *guests) logout(w http.ResponseWriter, r *http.Request) error {
	if c, err := r.Cookie(cookieName); err == nil {
		if err := g.sessions.EndSession(r.Context(), c.Value); err != nil {
			return err
		}
	}
	g.hand(w, r, "", -1)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (g *guests) hand(w http.ResponseWriter, r *http.Request, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: g.secure(r),
	})
}

// client is the address that a request is from: that of the connection or, if this is a
// trusted proxy's, the last one in X-Forwarded-For that is not.
func (a *API) client(r *http.Request) string {
	address := func(text string) (netip.Addr, bool) {
		if host, _, err := net.SplitHostPort(text); err == nil {
			text = host
		}
		addr, err := netip.ParseAddr(strings.Trim(text, "[] "))
		return addr.Unmap(), err == nil
	}
	now, ok := address(r.RemoteAddr)
	if !ok || !a.trusted(now) {
		return now.String()
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, ok := address(strings.TrimSpace(hop))
		if !ok {
			break
		}
		if now = next; !a.trusted(now) {
			break
		}
	}
	return now.String()
}

// group is what a client counts as, where it has a share: its address or, of IPv6, of
// which a client may have as many as it likes, the network of it (/64).
func (a *API) group(r *http.Request) string {
	client := a.client(r)
	if addr, err := netip.ParseAddr(client); err == nil && addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return client
}

func (a *API) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(a.config.TrustedProxies,
		func(p netip.Prefix) bool { return p.Contains(addr.WithZone("")) })
}

// secure says whether the client's connection is encrypted.
func (a *API) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	addr, err := netip.ParseAddr(host)
	return err == nil && a.trusted(addr.Unmap()) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}
