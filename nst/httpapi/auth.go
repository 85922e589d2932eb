package httpapi

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// guests lets in who knows the token: as Authorization: Bearer, or, for browsers,
// by the cookie that login gives for it.
type guests struct {
	token    [sha256.Size]byte // its hash; of no token nothing is asked
	asked    bool
	key      []byte // of the cookies; another one each time that the service starts
	attempts *lru.Cache[string, *rate.Limiter]
}

// Wrong tokens that an address may try: guessBurst at once, then one each
// guessEvery.
const (
	guessBurst = 10
	guessEvery = 6 * time.Second
	cookieName = "nst-session"
	cookieAge  = 30 * 24 * time.Hour
)

func newGuests(token string) *guests {
	g := &guests{token: sha256.Sum256([]byte(token)), asked: token != "", key: []byte(rand.Text())}
	g.attempts, _ = lru.New[string, *rate.Limiter](4096)
	return g
}

var errToken = problem{Status: 401, Title: "Unauthorized", Detail: "a token is wanted: Authorization: Bearer TOKEN"}

func (g *guests) check(r *http.Request) error {
	if !g.asked {
		return nil
	}
	if given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return g.try(r, given)
	}
	if c, err := r.Cookie(cookieName); err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(g.cookie())) == 1 {
		return nil
	}
	return errToken
}

// try compares a token, in the same time whatever it is.
func (g *guests) try(r *http.Request, token string) error {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	limiter, ok := g.attempts.Get(host)
	if !ok {
		limiter = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
	}
	if limiter.Tokens() < 1 {
		return problem{Status: 429, Title: "Too many attempts", Detail: "too many wrong tokens came from this address; wait a minute", retry: time.Minute}
	}
	hash := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(hash[:], g.token[:]) == 1 {
		return nil
	}
	limiter.Allow()
	g.attempts.Add(host, limiter)
	return errToken
}

func (g *guests) cookie() string {
	m := hmac.New(sha256.New, g.key)
	m.Write(g.token[:])
	return hex.EncodeToString(m.Sum(nil))
}

// login is POST /v1/session: {"token": …} for a cookie.
func (g *guests) login(w http.ResponseWriter, r *http.Request) error {
	var given struct {
		Token string `json:"token"`
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4096))
	if err != nil {
		return err
	}
	if json.Unmarshal(data, &given) != nil {
		return bad(`{"token": "…"} is wanted`)
	}
	if g.asked {
		if err := g.try(r, given.Token); err != nil {
			return err
		}
		http.SetCookie(w, &http.Cookie{
			Name: cookieName, Value: g.cookie(), Path: "/", MaxAge: int(cookieAge.Seconds()),
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
		})
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
